"""The pixels of a result's photo, and the names of its files."""

import os
from pathlib import Path

from matir_cli.gallery.database import GalleryFile
from matir_cli.output.cutouts import Cutouts
from matir_cli.output.overlays import write_overlay
from matir_cli.output.picture_folder import PictureFolder
from matir_cli.output.result_pixels import ResultPixels, file_url
from tests.output.blocks import make_pixels, make_result, picture, put


def test_without_any_pixels_there_is_no_picture(gallery: GalleryFile, tmp_path: Path) -> None:
    path = tmp_path / "photo.png"
    picture().save(path)
    result = make_pixels(gallery, path, preview=False)
    path.unlink()
    assert Cutouts(PictureFolder(tmp_path / "out", force=False)).write(result) == (None,)
    assert write_overlay(PictureFolder(tmp_path / "out", force=False), result) is None
    assert result.jpeg() is None
    assert not (tmp_path / "out").exists()


def test_photos_of_one_name_do_not_share_a_file(gallery: GalleryFile, tmp_path: Path) -> None:
    stems = set()
    for number, folder in enumerate(("a", "b")):
        (tmp_path / folder).mkdir()
        picture(1600 + number).save(tmp_path / folder / "photo.png")
        stems.add(make_pixels(gallery, tmp_path / folder / "photo.png").file_stem("same"))
    assert len(stems) == 2


def test_the_original_is_used_while_it_is_as_it_was_when_indexed(
    gallery: GalleryFile, tmp_path: Path
) -> None:
    path = tmp_path / "photo.png"
    picture(80, 60).save(path)
    pixels = make_pixels(gallery, path)
    original = pixels.original()
    assert original is not None
    assert original.size == (80, 60)
    path.write_bytes(b"changed")
    assert pixels.original() is None
    assert pixels.jpeg() == gallery.preview(pixels.result.photo.id)


def test_objects_are_the_first_alone_or_all(gallery: GalleryFile, tmp_path: Path) -> None:
    picture(80, 60).save(tmp_path / "photo.png")
    result = make_result(gallery, put(gallery, tmp_path / "photo.png"), others=2)
    assert ResultPixels(gallery, result, all_instances=False).objects == result.objects[:1]
    every = ResultPixels(gallery, result, all_instances=True)
    assert every.objects == result.objects
    assert every.masked_objects == ((result.objects[0], result.objects[0].mask),)
    assert every.label == "0.500"


def test_a_url_has_the_bytes_of_the_path() -> None:
    path = Path(os.fsdecode(b"/a b/\xff#?.jpg"))
    assert file_url(path) == "file:///a%20b/%FF%23%3F.jpg"
    assert file_url(path, "my host") == "file://my%20host/a%20b/%FF%23%3F.jpg"
