"""The HTML page: escaped names, embedded pictures, and notes on what is missing."""

from pathlib import Path

from matir_cli.gallery.database import GalleryFile
from matir_cli.output.html_page import html_page
from tests.output.blocks import make_pixels, picture


def test_names_are_escaped_and_pictures_embedded(gallery: GalleryFile, tmp_path: Path) -> None:
    path = tmp_path / "<b>&\u202e.png"
    picture(80, 60).save(path)
    pixels = make_pixels(gallery, path)
    with html_page(tmp_path / "page.html", "<script>", [pixels.result], force=False) as page:
        page.add(pixels)
    text = (tmp_path / "page.html").read_text("utf-8")
    assert "<h1><bdi>&lt;script&gt;</bdi></h1>" in text
    assert "&lt;b&gt;&amp;\\u202e.png" in text
    assert "<b>" not in text
    assert "\u202e" not in text
    assert 'src="data:image/jpeg;base64,' in text
    assert text.count('<path class="mask"') == 1


def test_a_photo_without_pixels_has_a_note(gallery: GalleryFile, tmp_path: Path) -> None:
    path = tmp_path / "photo.png"
    picture(80, 60).save(path)
    pixels = make_pixels(gallery, path, preview=False)
    path.unlink()
    with html_page(tmp_path / "page.html", "a block", [pixels.result], force=False) as page:
        page.add(pixels)
    text = (tmp_path / "page.html").read_text("utf-8")
    assert "the photo is not available" in text
    assert "data:image" not in text
