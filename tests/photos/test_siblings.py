"""Sidecars beside photos, by the names that programs use, and what they say beside the file itself."""

import os
from pathlib import Path

import pytest

from matir_cli.photos.discover import stat_file
from matir_cli.photos.siblings import Siblings, describe_file
from matir_cli.photos.xmp_packet import TOOLKIT
from matir_cli.records import FileMetadata, Note, NoteKind
from tests.photos.packets import bag, described

EMPTY = described("")


def write(folder: Path, *names: str, content: bytes = EMPTY) -> None:
    for name in names:
        (folder / name).write_bytes(content)


def sidecar(folder: Path, name: str) -> str | None:
    found = Siblings().sidecar(folder / name)
    return None if found is None else found.path.name


def of_extension(extension: str) -> bytes:
    return described(f'photoshop:SidecarForExtension="{extension}"')


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"a.jpg"}, None),
        ({"a.jpg", "a.jpg.xmp"}, "a.jpg.xmp"),
        ({"a.jpg", "a.jpg.XMP"}, "a.jpg.XMP"),
        ({"a.jpg", "a.xmp"}, "a.xmp"),
        ({"a.jpg", "a.XMP"}, "a.XMP"),
        ({"a.jpg", "a.xmp", "a.jpg.xmp"}, "a.jpg.xmp"),
        ({"a.jpg", "a.png", "a.xmp"}, None),
        ({"a.jpg", "a.tif", "a.jpg.xmp", "a.xmp"}, "a.jpg.xmp"),
        ({"a.jpg", "a.CR2", "a.xmp"}, "a.xmp"),
        ({"a.jpg", "a.CR2", "a.dng", "a.xmp"}, "a.xmp"),
        ({"a.jpg", "a.CR2", "a.png", "a.xmp"}, None),
        ({"a.jpg", "a.txt", "a.xmp"}, "a.xmp"),
        ({"a.jpg", "b.xmp", "b.jpg.xmp"}, None),
    ],
)
def test_the_sidecar_is_chosen_by_name(tmp_path: Path, files: set[str], expected: str | None) -> None:
    write(tmp_path, *files)
    assert sidecar(tmp_path, "a.jpg") == expected


def test_a_sidecar_says_whose_it_is(tmp_path: Path) -> None:
    write(tmp_path, "a.jpg", "a.png", "a.cr2", "a.nef")
    for extension, names in (
        ("JPG", ["a.cr2", "a.jpg", "a.nef"]),
        ("png", ["a.png"]),
        ("cr2", ["a.cr2", "a.jpg"]),
        ("gif", []),
    ):
        write(tmp_path, "a.xmp", content=of_extension(extension))
        photos = ("a.cr2", "a.jpg", "a.nef", "a.png")
        assert [name for name in photos if sidecar(tmp_path, name)] == names


def test_several_raw_files_without_a_picture_share_no_sidecar(tmp_path: Path) -> None:
    write(tmp_path, "a.cr2", "a.dng", "a.xmp")
    assert sidecar(tmp_path, "a.cr2") is None
    write(tmp_path, "a.xmp", content=of_extension("CR2"))
    assert (sidecar(tmp_path, "a.cr2"), sidecar(tmp_path, "a.dng")) == ("a.xmp", None)


def test_what_is_no_plain_file_is_no_sidecar(tmp_path: Path) -> None:
    write(tmp_path, "a.jpg")
    os.mkfifo(tmp_path / "a.jpg.xmp")
    (tmp_path / "a.xmp").mkdir()
    assert sidecar(tmp_path, "a.jpg") is None
    assert Siblings().sidecar(tmp_path / "nowhere" / "a.jpg") is None


def test_the_picture_of_a_raw_file(tmp_path: Path) -> None:
    write(tmp_path, "a.CR2", "a.HEIC", "a.JPG", "a.png", "b.nef", "b.heif", "c.dng", "c.tif", "d.jpg")
    siblings = Siblings()
    assert siblings.picture_of(tmp_path / "a.CR2") == tmp_path / "a.JPG"
    assert siblings.picture_of(tmp_path / "b.nef") == tmp_path / "b.heif"
    for name in ("c.dng", "d.jpg", "a.JPG"):
        assert siblings.picture_of(tmp_path / name) is None


FILE = FileMetadata(2, ("holiday", "draft"))


def merged(folder: Path, content: bytes) -> FileMetadata:
    write(folder, "a.xmp", content=content)
    return describe_file(FILE, stat_file(folder / "a.xmp")).metadata


def test_what_a_sidecar_states_takes_the_place_of_what_the_file_states(tmp_path: Path) -> None:
    assert merged(tmp_path, EMPTY) == FILE
    assert merged(tmp_path, described('xmp:Rating="0"')) == FileMetadata(0, FILE.keywords)
    assert merged(tmp_path, described("", bag("dc:subject", "new"))) == FileMetadata(2, ("new",))
    assert merged(tmp_path, described("", bag("dc:subject"))) == FileMetadata(2)
    place = 'exif:GPSLatitude="48,30.0N" exif:GPSLongitude="3,0.0W"'
    assert merged(tmp_path, described(place)) == FileMetadata(2, FILE.keywords, 48.5, -3.0)


def test_keywords_of_a_sidecar_made_here_are_added_to_those_of_the_file(tmp_path: Path) -> None:
    own = described("", bag("dc:subject", "a dog", "HOLIDAY"), toolkit=TOOLKIT)
    assert merged(tmp_path, own) == FileMetadata(2, ("holiday", "draft", "a dog"))
    other = described("", bag("dc:subject", "a dog"), toolkit="XMP Core 4.4.0-Exiv2")
    assert merged(tmp_path, other) == FileMetadata(2, ("a dog",))


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "is not well-formed"),
        (b"no XML", "is not well-formed"),
        (b'<!DOCTYPE a [<!ENTITY b "c">]><a>&b;</a>', "declares a document type"),
        (b"<a>" * 5000, "is not well-formed"),
        (b"\0" * (17 << 20), "is too large"),
    ],
)
def test_a_sidecar_that_cannot_be_read_is_left_out_and_named(
    tmp_path: Path, content: bytes, reason: str
) -> None:
    write(tmp_path, "a.xmp", content=content)
    found = describe_file(FILE, stat_file(tmp_path / "a.xmp"))
    assert found.metadata == FILE
    assert found.sidecar == stat_file(tmp_path / "a.xmp")
    left_out = f"its sidecar a.xmp cannot be read and was left out: the XMP packet {reason}"
    assert found.notes == (Note(NoteKind.METADATA, left_out),)
