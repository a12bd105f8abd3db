"""Which sidecars a photo has, by the names that programs use."""

from pathlib import Path

import pytest

from matir_cli.errors import SidecarUnusable
from matir_cli.output.sidecar_paths import SidecarChoice
from matir_cli.output.xmp import APPEND, AUTO, REPLACE
from tests.output.sidecar_files import FOREIGN, tagged

OF_RAW = FOREIGN.replace(
    "xap:Rating=",
    'xmlns:ps="http://ns.adobe.com/photoshop/1.0/" ps:SidecarForExtension="{}" xap:Rating=',
)


def chosen(photo: Path, naming: str = AUTO) -> tuple[list[str], str | None]:
    """Names of the sidecars to change, and of the one that is left alone."""
    choice = SidecarChoice(naming, follow_links=False).of(photo)
    ignored = None if choice.ignored is None else choice.ignored.name
    return [each.path.name for each in choice.sidecars], ignored


@pytest.mark.parametrize(
    ("beside", "expected"),
    [
        ([], (["a.jpg.xmp"], None)),
        (["a.jpg.xmp"], (["a.jpg.xmp"], None)),
        (["a.xmp"], (["a.xmp"], None)),
        (["a.XMP"], (["a.XMP"], None)),
        (["a.jpg.XMP"], (["a.jpg.XMP"], None)),
        (["a.jpg.xmp", "a.xmp"], (["a.jpg.xmp", "a.xmp"], None)),
        (["a.xmp", "a.txt", "ab.cr2"], (["a.xmp"], None)),
        (["a.xmp", "a.CR2"], (["a.jpg.xmp"], "a.xmp")),
        (["a.xmp", "a.png"], (["a.jpg.xmp"], "a.xmp")),
        (["a.jpg.xmp", "a.xmp", "a.dng"], (["a.jpg.xmp"], "a.xmp")),
    ],
)
def test_a_label_goes_where_the_photo_has_its_metadata(
    tmp_path: Path, beside: list[str], expected: tuple[list[str], str | None]
) -> None:
    (tmp_path / "a.jpg").write_bytes(b"")
    for name in beside:
        (tmp_path / name).write_text(FOREIGN, "utf-8")
    assert chosen(tmp_path / "a.jpg") == expected


@pytest.mark.parametrize(("declared", "own"), [("jpg", True), ("JPG", True), ("CR2", False)])
def test_a_sidecar_says_to_which_file_it_belongs(tmp_path: Path, declared: str, own: bool) -> None:
    for name in ("a.jpg", "a.cr2"):
        (tmp_path / name).write_bytes(b"")
    (tmp_path / "a.xmp").write_text(OF_RAW.format(declared), "utf-8")
    assert chosen(tmp_path / "a.jpg") == ((["a.xmp"], None) if own else (["a.jpg.xmp"], "a.xmp"))


def test_a_name_that_was_asked_for_is_used(tmp_path: Path) -> None:
    photo = tmp_path / "a.jpg"
    assert chosen(photo, APPEND) == (["a.jpg.xmp"], None)
    assert chosen(photo, REPLACE) == (["a.xmp"], None)
    tagged(tmp_path / "a.xmp")
    tagged(tmp_path / "a.jpg.xmp")
    assert chosen(photo, APPEND) == (["a.jpg.xmp"], "a.xmp")
    assert chosen(photo, REPLACE) == (["a.xmp"], "a.jpg.xmp")


def test_two_names_of_one_sidecar_are_one(tmp_path: Path) -> None:
    tagged(tmp_path / "a.xmp")
    (tmp_path / "a.jpg.xmp").symlink_to("a.xmp")
    assert chosen(tmp_path / "a.jpg") == (["a.jpg.xmp"], None)
    (tmp_path / "a.jpg.xmp").unlink()
    (tmp_path / "a.jpg.xmp").hardlink_to(tmp_path / "a.xmp")
    assert chosen(tmp_path / "a.jpg") == (["a.xmp"], None)
    tagged(tmp_path / "b.xmp")
    assert chosen(tmp_path / "b") == (["b.xmp"], None)


def test_one_that_cannot_be_read_is_not_passed_over(tmp_path: Path) -> None:
    (tmp_path / "a.xmp").write_text("no XMP")
    with pytest.raises(SidecarUnusable):
        chosen(tmp_path / "a.jpg")
