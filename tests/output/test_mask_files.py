"""Masks as PNG files, and the folder that keeps existing pictures."""

from pathlib import Path

import pytest
from PIL import Image

from matir_cli.errors import OutputError
from matir_cli.gallery.database import GalleryFile
from matir_cli.output.mask_files import write_masks
from matir_cli.output.picture_folder import PictureFolder
from tests.output.blocks import make_pixels, picture


def test_a_file_is_kept_unless_forced(gallery: GalleryFile, tmp_path: Path) -> None:
    picture().save(tmp_path / "photo.png")
    result = make_pixels(gallery, tmp_path / "photo.png")
    first = PictureFolder(tmp_path / "out", force=False)
    (path,) = write_masks(first, result)
    assert (first.written, first.kept) == (1, 0)
    assert path is not None
    path.write_bytes(b"mine")
    second = PictureFolder(tmp_path / "out", force=False)
    assert write_masks(second, result) == (path,)
    assert (second.written, second.kept, path.read_bytes()) == (0, 1, b"mine")
    third = PictureFolder(tmp_path / "out", force=True)
    assert write_masks(third, result) == (path,)
    assert (third.written, third.kept) == (1, 0)
    with Image.open(path) as mask:
        assert mask.size == (1600, 1200)
    assert [*path.parent.iterdir()] == [path]


def test_a_picture_that_cannot_be_written_is_an_error_of_ours(gallery: GalleryFile, tmp_path: Path) -> None:
    picture().save(tmp_path / "photo.png")
    with pytest.raises(OutputError):
        write_masks(
            PictureFolder(tmp_path / "photo.png", force=False), make_pixels(gallery, tmp_path / "photo.png")
        )
