"""The working image of a stored photo, from its preview or its file."""

from pathlib import Path

import numpy as np
import pytest

from matir_cli.errors import PhotoUnreadable
from matir_cli.gallery.database import GalleryFile
from matir_cli.gallery.working_image import load_working_image
from matir_cli.photos.preview import encode_preview
from tests.gallery.test_database import region
from tests.photos.decoding import read
from tests.support.pictures import save_scenes


@pytest.mark.parametrize("preview", [True, False])
def test_the_preview_or_the_unchanged_file_is_loaded(tmp_path: Path, preview: bool) -> None:
    (path,) = save_scenes(tmp_path, a="red blue")
    photo = read(path)
    with GalleryFile.open(tmp_path / "gallery.db", create=True) as gallery:
        with gallery.atomic():
            jpeg = encode_preview(photo.image) if preview else None
            photo_id, _ = gallery.add_photo(photo.file, photo.record, [region()], jpeg)
        image = load_working_image(gallery, photo_id)
        assert image is not None
        assert image.shape == photo.image.shape
        assert image.dtype == np.uint8
        assert np.abs(image.astype(int) - photo.image).mean() < (6 if preview else 0.01)
        path.write_bytes(b"changed")
        assert (load_working_image(gallery, photo_id) is not None) == preview
        path.unlink()
        assert (load_working_image(gallery, photo_id) is not None) == preview
        gallery.connection.execute("delete from photos")
        assert load_working_image(gallery, photo_id) is None


def test_a_damaged_preview_is_an_error(tmp_path: Path) -> None:
    (path,) = save_scenes(tmp_path, a="red")
    photo = read(path)
    with GalleryFile.open(tmp_path / "gallery.db", create=True) as gallery:
        with gallery.atomic():
            photo_id, _ = gallery.add_photo(photo.file, photo.record, [region()], b"not a JPEG")
        with pytest.raises(PhotoUnreadable):
            load_working_image(gallery, photo_id)


def test_a_preview_of_another_size_than_the_masks_is_an_error(tmp_path: Path) -> None:
    (path,) = save_scenes(tmp_path, a="red")
    photo = read(path)
    other = encode_preview(np.ascontiguousarray(photo.image[:-1]))
    with GalleryFile.open(tmp_path / "gallery.db", create=True) as gallery:
        with gallery.atomic():
            photo_id, _ = gallery.add_photo(photo.file, photo.record, [region()], other)
        with pytest.raises(PhotoUnreadable, match="another size"):
            load_working_image(gallery, photo_id)
