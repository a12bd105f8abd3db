"""EXIF fields, right and wrong ones."""

import struct
from pathlib import Path

import pytest
from PIL import ExifTags, Image

from matir_cli.photos.exif import LONGEST_CAMERA, read_camera, read_orientation, read_position, read_taken_at
from tests.photos.decoding import read
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
    picture = Image.new("RGB", (8, 8))
    exif = picture.getexif()
    assert read_orientation(picture) == 1
    assert (read_taken_at(exif), read_camera(exif), read_position(exif)) == (None, None, (None, None))


def test_a_camera_is_named_in_one_short_line() -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Make], exif[ExifTags.Base.Model] = "ACME\0\n Corp", "Box"
    assert read_camera(exif) == "ACME Corp Box"
    exif[ExifTags.Base.Model] = "x" * 5000
    camera = read_camera(exif)
    assert camera is not None
    assert len(camera) == LONGEST_CAMERA


def test_half_a_position_is_none() -> None:
    exif = Image.Exif()
    gps = exif.get_ifd(ExifTags.IFD.GPSInfo)
    gps[ExifTags.GPS.GPSLatitude] = (1.0, 2.0, 3.0)
    assert read_position(exif) == (None, None)
