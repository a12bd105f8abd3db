"""Ratings and keywords in EXIF, IPTC and XMP: as programs write them, and as hostile files do."""

import struct
import unicodedata
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from matir_cli.photos.decode import read_metadata
from matir_cli.photos.descriptive import (
    EXIF_KEYWORDS,
    EXIF_PERCENT,
    EXIF_RATING,
    LONGEST_KEYWORD,
    MOST_KEYWORDS,
    clean_keywords,
    exif_keywords,
    exif_rating,
    folded,
    iptc_keywords,
    xmp_keywords,
    xmp_rating,
)
from matir_cli.photos.xmp_packet import read_packet
from matir_cli.records import FileMetadata
from tests.photos.decoding import read
from tests.photos.dng import dng
from tests.photos.packets import bag, described
from tests.support.pictures import scene

UTF8 = b"\x1c\x01\x5a\x00\x03\x1b%G"


def iptc(*keywords: bytes, mark: bytes = b"") -> bytes:
    """Data sets of IPTC with keywords, among others."""
    sets = [struct.pack(">BBBH", 0x1C, 2, 25, len(each)) + each for each in keywords]
    return mark + b"\x1c\x02\x78\x00\x04text" + b"".join(sets)


@pytest.mark.parametrize(
    ("attributes", "rating"),
    [
        ('xmp:Rating="3"', 3),
        ('xmp:Rating="3.0"', 3),
        ('xmp:Rating=" 4.9 "', 4),
        ('xmp:Rating="-1"', -1),
        ('xmp:Rating="-7.5"', -1),
        ('xmp:Rating="0"', 0),
        ('xmp:Rating="5"', 5),
        ('xmp:Rating="6"', None),
        ('xmp:Rating="NaN"', None),
        ('xmp:Rating="inf"', None),
        ('xmp:Rating="five"', None),
        ('MicrosoftPhoto:Rating="75"', 4),
        ('MicrosoftPhoto:Rating="75" xmp:Rating="2"', 2),
        ('MicrosoftPhoto:Rating="175"', None),
        ("", None),
    ],
)
def test_ratings_in_xmp(attributes: str, rating: int | None) -> None:
    assert xmp_rating(read_packet(described(attributes))) == rating
    if attributes.startswith("xmp:Rating"):
        value = attributes.split('"')[1]
        assert xmp_rating(read_packet(described("", f"<xmp:Rating>{value}</xmp:Rating>"))) == rating


def test_ratings_in_exif() -> None:
    assert [exif_rating({EXIF_RATING: value}) for value in (0, 3, 5, 6, "2", b"2", (3,))] == [
        *(0, 3, 5, None, 2, None, None),
    ]
    assert [exif_rating({EXIF_PERCENT: value}) for value in (0, 1, 25, 50, 75, 99, 100, 101)] == [
        *(0, 1, 2, 3, 4, 5, 5, None),
    ]
    assert exif_rating({EXIF_RATING: 1, EXIF_PERCENT: 99}) == 1
    assert exif_rating({}) is None


def test_keywords_of_windows_are_utf_16() -> None:
    content = "Élan;two words; ;日本\0rest".encode("utf-16-le")
    for value in (content, tuple(content)):
        assert clean_keywords(exif_keywords({EXIF_KEYWORDS: value})) == ("Élan", "two words", "日本")
    others: tuple[object, ...] = (None, "text", (300,), 7, b"a")
    for other in others:
        assert clean_keywords(exif_keywords({EXIF_KEYWORDS: other})) == ()


def test_keywords_of_iptc_are_utf_8_or_latin_1() -> None:
    assert iptc_keywords(iptc("Élan".encode(), b"b", mark=UTF8)) == ["Élan", "b"]
    assert iptc_keywords(iptc("Élan".encode())) == ["Élan"]
    assert iptc_keywords(iptc("Élan".encode("latin-1"))) == ["Élan"]
    assert iptc_keywords(iptc(b"\xc9lan", mark=UTF8)) == ["\ufffdlan"]
    assert iptc_keywords(iptc(b"a") + b"\x1c\x02\x19\x80\x04\0\0\0\1b") == ["a"]  # an extended length
    assert iptc_keywords(b"") == iptc_keywords(b"nonsense") == []


def test_keywords_of_xmp_are_of_all_lists() -> None:
    lists = (
        bag("dc:subject", "Paris", "a & b"),
        bag("lr:hierarchicalSubject", "Places|France|Paris", kind="Seq"),
        bag("digiKam:TagsList", "Places/France", kind="Seq"),
        bag("MicrosoftPhoto:LastKeywordXMP", "x/y"),
    )
    packet = read_packet(described("", "".join(lists)))
    assert xmp_keywords(packet) == ["Paris", "a & b", "Places|France|Paris", "Places|France", "x|y"]
    assert xmp_keywords(read_packet(described('dc:subject="one"'))) == ["one"]
    assert xmp_keywords(read_packet(described("", bag("dc:subject")))) == []
    assert xmp_keywords(read_packet(described('xmp:Rating="3"'))) is None


@settings(derandomize=True, deadline=None)
@given(st.lists(st.text(max_size=12)), st.lists(st.text(max_size=12)))
def test_cleaned_keywords_are_bounded_and_each_is_there_once(first: list[str], second: list[str]) -> None:
    cleaned = clean_keywords([*first, *second])
    assert clean_keywords(cleaned) == cleaned
    assert len({folded(keyword) for keyword in cleaned}) == len(cleaned)
    for keyword in cleaned:
        assert keyword == unicodedata.normalize("NFC", keyword).strip() != ""
        assert not any(unicodedata.category(c) in ("Cc", "Cs") for c in keyword)
    assert {folded(keyword) for keyword in cleaned} == {
        folded(keyword) for each in (*first, *second) for keyword in clean_keywords([each])
    }


def test_many_and_long_keywords_are_cut() -> None:
    assert len(clean_keywords(str(number) for number in range(10**4))) == MOST_KEYWORDS
    assert clean_keywords(["x" * 10**6]) == ("x" * LONGEST_KEYWORD,)
    assert clean_keywords(["\x1b[31mred\n", "\ud800", "e\u0301", "É"]) == ("[31mred", "é")
    assert clean_keywords(["Strasse", "STRAßE"]) == ("Strasse",)


VALUES = (
    st.none()
    | st.text(max_size=12)
    | st.binary(max_size=12)
    | st.floats()
    | st.integers()
    | st.lists(st.integers(), max_size=4).map(tuple)
)


@settings(derandomize=True, deadline=None)
@given(VALUES, VALUES, VALUES, st.binary(max_size=60))
def test_any_value_is_a_rating_or_none(
    rating: object, percent: object, keywords: object, sets: bytes
) -> None:
    exif = {EXIF_RATING: rating, EXIF_PERCENT: percent, EXIF_KEYWORDS: keywords}
    assert exif_rating(exif) in (None, *range(-1, 6))
    assert all(isinstance(each, str) for each in exif_keywords(exif))
    mutated = bytearray(iptc(b"keyword", "Élan".encode(), mark=UTF8))
    mutated[len(sets) % len(mutated) :] = sets
    assert all(isinstance(each, str) for each in iptc_keywords(bytes(mutated)))


def jpeg(path: Path, picture: Image.Image, exif: Image.Exif, packet: bytes, sets: bytes) -> None:
    """A JPEG with all three kinds of metadata."""
    picture.save(path, exif=exif, xmp=packet)
    content = path.read_bytes()
    block = b"8BIM" + struct.pack(">H2xI", 0x0404, len(sets)) + sets + b"\0" * (len(sets) % 2)
    segment = b"Photoshop 3.0\0" + block
    path.write_bytes(content[:2] + b"\xff\xed" + struct.pack(">H", len(segment) + 2) + segment + content[2:])


def tiff(path: Path, picture: Image.Image, exif: Image.Exif, packet: bytes, sets: bytes) -> None:
    """A TIFF with all three kinds of metadata."""
    exif[700], exif[33723] = packet, sets
    picture.save(path, tiffinfo=exif)


@pytest.mark.parametrize("write", [jpeg, tiff])
def test_a_file_has_the_keywords_of_all_and_the_rating_of_xmp(
    tmp_path: Path, write: Callable[[Path, Image.Image, Image.Exif, bytes, bytes], None]
) -> None:
    exif = Image.Exif()
    exif[EXIF_RATING] = 2
    exif[EXIF_KEYWORDS] = "from exif".encode("utf-16-le")
    path = tmp_path / f"photo.{write.__name__}"
    write(path, scene("red"), exif, described('xmp:Rating="4"', bag("dc:subject", "x")), iptc(b"from iptc"))
    expected = FileMetadata(4, ("x", "from iptc", "from exif"))
    assert read(path).metadata == expected
    assert read_metadata(path) == expected


@pytest.mark.parametrize("suffix", ["png", "webp", "avif"])
def test_metadata_in_other_formats(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"photo.{suffix}"
    packet = described('xmp:Rating="-1"', bag("dc:subject", "x"))
    if suffix == "png":
        from PIL.PngImagePlugin import PngInfo

        info = PngInfo()
        info.add_itxt("XML:com.adobe.xmp", packet.decode())
        scene("red").save(path, pnginfo=info)
    else:
        scene("red").save(path, xmp=packet)
    assert read_metadata(path) == read(path).metadata == FileMetadata(-1, ("x",))


def test_a_raw_file_is_read_without_its_pixels(tmp_path: Path) -> None:
    path = tmp_path / "photo.dng"
    path.write_bytes(dng(scene("red", size=(120, 80))))
    assert read_metadata(path) == FileMetadata()
    path.write_bytes(b"no raw file")
    assert read_metadata(path) == FileMetadata()


def test_a_broken_packet_is_noted_and_the_rest_is_read(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[EXIF_RATING] = 2
    scene("red").save(tmp_path / "photo.jpg", exif=exif, xmp=b"<x:xmpmeta")
    photo = read(tmp_path / "photo.jpg")
    assert photo.metadata == FileMetadata(2)
    assert [note.text for note in photo.notes] == ["its XMP cannot be read and was left out"]
