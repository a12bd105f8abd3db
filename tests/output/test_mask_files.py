"""Masks as PNG files, and the folder that keeps existing pictures."""

from pathlib import Path

import numpy as np
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


def test_a_mask_for_darktable_lies_as_the_file_stores_the_photo(gallery: GalleryFile, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    picture().save(tmp_path / "photo.png", exif=exif)
    result = make_pixels(gallery, tmp_path / "photo.png")
    (path,) = write_masks(PictureFolder(tmp_path / "dark", force=False), result, "darktable")
    (plain,) = write_masks(PictureFolder(tmp_path / "plain", force=False), result)
    assert path is not None
    assert plain is not None
    with Image.open(plain) as upright:
        stored = np.rot90(np.asarray(upright) > 0)  # orientation 6 is turned clockwise to be upright
    header, size, scale, rest = path.read_bytes().split(b"\n", 3)
    assert (header, size.split(), scale) == (b"Pf", [b"%d" % n for n in stored.shape[::-1]], b"-1.0")
    values = np.frombuffer(rest, "<f4").reshape(stored.shape)[::-1]  # rows from the bottom up
    assert (values == stored).all()
    assert path.suffix == ".pfm"


def test_a_mask_as_arrays(gallery: GalleryFile, tmp_path: Path) -> None:
    picture().save(tmp_path / "photo.png")
    result = make_pixels(gallery, tmp_path / "photo.png")
    folder = PictureFolder(tmp_path / "arrays", force=False)
    (path,) = write_masks(folder, result, "npz")
    assert path is not None
    first = path.read_bytes()
    with np.load(path) as arrays:
        assert sorted(arrays) == ["box", "mask", "score"]
        assert arrays["mask"].dtype == np.bool_
        record = result.result.photo.record
        assert arrays["mask"].shape == (record.height, record.width)
        found = result.masked_objects[0]
        assert (arrays["mask"] == result.result.photo.at_true_size(found[1])).all()
        box = found[0].box
        assert arrays["box"].tolist() == [box.x0, box.y0, box.x1, box.y1]
        assert float(arrays["score"]) == result.result.score
    assert write_masks(folder, result, "npz") == (path,)
    assert (folder.kept, path.read_bytes()) == (1, first)
