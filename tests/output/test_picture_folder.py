"""A folder of pictures: existing files are kept, unless they may be replaced."""

from pathlib import Path

import pytest
from PIL import Image

from matir_cli.errors import OutputError
from matir_cli.output.picture_folder import PictureFolder


def grey() -> Image.Image:
    return Image.new("RGB", (8, 6), (90, 90, 90))


def refuse() -> Image.Image:
    raise AssertionError("a picture was made without need")


def test_a_picture_that_exists_is_not_made_again(tmp_path: Path) -> None:
    folder = PictureFolder(tmp_path / "out", force=False)
    assert folder.save("a.jpg", grey, quality=50) == tmp_path / "out" / "a.jpg"
    assert folder.save("a.jpg", refuse) == tmp_path / "out" / "a.jpg"
    assert (folder.written, folder.kept) == (1, 1)
    with Image.open(tmp_path / "out" / "a.jpg") as picture:
        assert (picture.format, picture.size) == ("JPEG", (8, 6))


def test_no_picture_is_no_file(tmp_path: Path) -> None:
    folder = PictureFolder(tmp_path / "out", force=False)
    assert folder.save("a.png", lambda: None) is None
    assert (folder.written, folder.kept) == (0, 0)
    assert not (tmp_path / "out").exists()


def test_a_folder_in_the_way_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "a.png").mkdir()
    with pytest.raises(OutputError, match="it is a folder"):
        PictureFolder(tmp_path, force=False).save("a.png", grey)
