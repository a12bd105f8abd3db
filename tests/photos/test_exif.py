"""EXIF fields, right and wrong ones."""

import struct
from datetime import datetime
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import ExifTags, Image

from matir_cli.photos.exif import LONGEST_CAMERA, Metadata, MetadataReader, read_camera
from tests.photos.crafted import chunk, png
from tests.photos.decoding import read
from tests.photos.packets import packet
from tests.support.pictures import scene


def test_exif_fields_are_recorded(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Make] = "ACME"
    exif[ExifTags.Base.Model] = "ACME Box 3"
    exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.DateTimeOriginal] = "2024:05:06 07:08:09"
    gps = exif.get_ifd(ExifTags.IFD.GPSInfo)
    gps[ExifTags.GPS.GPSLatitude], gps[ExifTags.GPS.GPSLatitudeRef] = (33.0, 30.0, 0.0), "S"
    gps[ExifTags.GPS.GPSLongitude], gps[ExifTags.GPS.GPSLongitudeRef] = (70.0, 36.0, 0.0), "W"
    scene("red").save(tmp_path / "photo.jpg", exif=exif)
    record = read(tmp_path / "photo.jpg").record
    assert record.taken_at == "2024-05-06T07:08:09"
    assert record.camera == "ACME Box 3"
    assert record.latitude == -33.5
    assert record.longitude == pytest.approx(-70.6)


def test_invalid_exif_fields_are_ignored(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 77
    exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.DateTimeOriginal] = "yesterday"
    exif.get_ifd(ExifTags.IFD.GPSInfo)[ExifTags.GPS.GPSLatitude] = (999.0, 0.0, 0.0)
    scene("red").save(tmp_path / "photo.jpg", exif=exif)
    record = read(tmp_path / "photo.jpg").record
    assert (record.orientation, record.taken_at, record.latitude) == (1, None, None)


def test_an_orientation_of_another_type_is_ignored(tmp_path: Path) -> None:
    entry = struct.pack(">HHII", ExifTags.Base.Orientation, 5, 1, 26)  # a rational: 6/1
    exif = b"Exif\0\0MM\0*" + struct.pack(">IH", 8, 1) + entry + struct.pack(">III", 0, 6, 1)
    scene("red", size=(60, 40)).save(tmp_path / "photo.jpg", exif=exif)
    with Image.open(tmp_path / "photo.jpg") as picture:
        assert picture.getexif()[ExifTags.Base.Orientation] == 6
    record = read(tmp_path / "photo.jpg").record
    assert (type(record.orientation), record.orientation, record.width) == (int, 1, 60)


def test_an_image_without_exif_has_no_fields() -> None:
    reader = MetadataReader(Image.new("RGB", (8, 8)))
    assert reader.orientation() == 1
    assert reader.metadata() == Metadata()


def test_a_camera_is_named_in_one_short_line() -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Make], exif[ExifTags.Base.Model] = "ACME\0\n Corp", "Box"
    assert read_camera(exif) == "ACME Corp Box"
    exif[ExifTags.Base.Model] = "x" * 5000
    camera = read_camera(exif)
    assert camera is not None
    assert len(camera) == LONGEST_CAMERA


def dated(exif: Image.Exif, xmp: bytes = b"") -> str | None:
    picture = Image.new("RGB", (8, 8))
    picture.info["exif"] = exif.tobytes()
    if xmp:
        picture.info["xmp"] = xmp
    return MetadataReader(picture).metadata().taken_at


def test_dates_are_taken_in_order() -> None:
    exif = Image.Exif()
    fields, gps = exif.get_ifd(ExifTags.IFD.Exif), exif.get_ifd(ExifTags.IFD.GPSInfo)
    exif[ExifTags.Base.DateTime] = "2008:01:01 00:00:00"
    assert dated(exif) == "2008-01-01T00:00:00"
    gps[ExifTags.GPS.GPSDateStamp] = "2007:01:01"
    assert dated(exif) == "2007-01-01T00:00:00"
    gps[ExifTags.GPS.GPSTimeStamp] = (7.0, 8.0, 9.5)
    assert dated(exif) == "2007-01-01T07:08:09"
    attributes = ""
    for year, name in (
        (2006, "exif:DateTimeDigitized"),
        (2005, "xmp:CreateDate"),
        (2004, "photoshop:DateCreated"),
        (2003, "exif:DateTimeOriginal"),
    ):
        attributes += f' {name}="{year}-01-01T00:00:00"'
        assert dated(exif, packet(attributes)) == f"{year}-01-01T00:00:00"
    fields[ExifTags.Base.DateTimeDigitized] = "2002:01:01 00:00:00"
    assert dated(exif, packet(attributes)) == "2002-01-01T00:00:00"
    fields[ExifTags.Base.DateTimeOriginal] = "    :  :     :  :  "
    assert dated(exif, packet(attributes)) == "2002-01-01T00:00:00"
    fields[ExifTags.Base.DateTimeOriginal] = "2001:01:01 00:00:00"
    assert dated(exif, packet(attributes)) == "2001-01-01T00:00:00"


def test_a_position_in_xmp_alone_is_read() -> None:
    picture = Image.new("RGB", (8, 8))
    picture.info["xmp"] = packet('exif:GPSLatitude="33,30.0S" exif:GPSLongitude="70,36,0W"')
    metadata = MetadataReader(picture).metadata()
    assert metadata.latitude == -33.5
    assert metadata.longitude == pytest.approx(-70.6)


@pytest.mark.parametrize("suffix", ["jpg", "webp", "png"])
def test_an_orientation_in_xmp_alone_is_applied(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"photo.{suffix}"
    content = packet('tiff:Orientation="6"')
    if suffix == "png":
        path.write_bytes(png(chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + content)))
    else:
        scene("red").save(path, xmp=content)
    record = read(path).record
    assert (record.orientation, record.width, record.height) == (6, 90, 120)


def test_a_heic_is_turned_by_its_own_transformations_alone(tmp_path: Path) -> None:
    import pillow_heif

    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    heif = pillow_heif.from_pillow(scene("red"))
    heif.save(tmp_path / "turned.heic", exif=exif.tobytes())  # writes irot
    turned = (tmp_path / "turned.heic").read_bytes()
    assert b"irot" in turned
    record = read(tmp_path / "turned.heic").record
    assert (record.orientation, record.width, record.height) == (1, 90, 120)
    (tmp_path / "plain.heic").write_bytes(turned.replace(b"irot", b"free"))
    record = read(tmp_path / "plain.heic").record
    assert (record.orientation, record.width, record.height) == (1, 120, 90)


@settings(derandomize=True, deadline=None, max_examples=300)
@given(st.data())
def test_mutated_exif_is_read_or_left_out(data: st.DataObject) -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Make], exif[ExifTags.Base.Orientation] = "ACME", 6
    exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.DateTimeOriginal] = "2024:05:06 07:08:09"
    gps = exif.get_ifd(ExifTags.IFD.GPSInfo)
    gps[ExifTags.GPS.GPSLatitude], gps[ExifTags.GPS.GPSLatitudeRef] = (33.0, 30.0, 0.0), "S"
    content = bytearray(exif.tobytes())
    for _ in range(data.draw(st.integers(1, 6))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    picture = Image.new("RGB", (8, 8))
    picture.info["exif"] = bytes(content[: data.draw(st.integers(0, len(content)))])
    reader = MetadataReader(picture)
    assert 1 <= reader.orientation() <= 8
    metadata = reader.metadata()
    assert set(metadata.unreadable) <= {"EXIF"}
    assert metadata.taken_at is None or datetime.fromisoformat(metadata.taken_at)
