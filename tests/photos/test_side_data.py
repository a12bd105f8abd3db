"""Pictures are read although metadata beside them cannot be, and although their end is missing."""

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import ExifTags, Image

from matir_cli.errors import PhotoUnreadable
from matir_cli.photos.decode import decode_full_size
from matir_cli.photos.image_file import CUT, LEFT_OUT
from matir_cli.photos.side_data import jpeg2000_reductions, jpeg_without_metadata, png_without_broken_chunks
from matir_cli.records import Note, NoteKind
from tests.photos.crafted import COLOURS, chunk, encoded, png, tiff
from tests.photos.decoding import read, reason
from tests.support.pictures import scene

EXIF_LEFT_OUT = Note(NoteKind.METADATA, "its EXIF cannot be read and was left out")
LONG = zlib.compress(bytes(2 << 20))


def with_wrong_sum(kind: bytes, data: bytes) -> bytes:
    return chunk(kind, data)[:-4] + b"\0\0\0\0"


@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize(
    "broken",
    [
        chunk(b"zTXt", b"Comment\0\0" + LONG),
        chunk(b"iTXt", b"Comment\0\1\0\0\0" + LONG),
        chunk(b"iCCP", b"icc\0\0" + LONG),
        chunk(b"iCCP", b"icc\0\7abc"),
        chunk(b"gAMA", b"\0"),
        chunk(b"pHYs", b""),
        with_wrong_sum(b"tEXt", b"Comment\0hello"),
        with_wrong_sum(b"zTXt", b"Comment\0\0hello"),
    ],
)
def test_a_png_is_read_without_broken_chunks(tmp_path: Path, broken: bytes, last: bool) -> None:
    path = tmp_path / "photo.png"
    path.write_bytes(png(broken, last=last))
    photo = read(path)
    assert np.array_equal(photo.image, np.asarray(scene("red")))
    assert set(photo.notes) <= {LEFT_OUT}


def test_other_chunks_are_kept(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation], exif[ExifTags.Base.Model] = 6, "Box"
    path = tmp_path / "photo.png"
    path.write_bytes(png(chunk(b"iCCP", b"icc\0\7abc"), chunk(b"eXIf", exif.tobytes()[6:])))
    photo = read(path)
    assert photo.notes == (LEFT_OUT,)
    assert (photo.record.camera, photo.record.orientation, photo.record.width) == ("Box", 6, 90)


def test_a_png_without_broken_chunks_is_not_copied() -> None:
    assert png_without_broken_chunks(png(chunk(b"tEXt", b"Comment\0hello"))) is None
    assert png_without_broken_chunks(png()[:-20]) is None


@pytest.mark.parametrize("suffix", ["png", "webp", "jpg", "avif", "heic"])
def test_unreadable_exif_is_left_out(tmp_path: Path, suffix: str) -> None:
    import pillow_heif

    pillow_heif.register_heif_opener()
    path = tmp_path / f"photo.{suffix}"
    if suffix == "png":
        path.write_bytes(png(chunk(b"eXIf", b"nonsense" * 4)))
    else:
        exif = Image.Exif()
        exif[ExifTags.Base.Make] = "ACME"
        scene("red").save(path, exif=exif.tobytes())
        content = path.read_bytes()
        assert content.count(b"II*\0\x08\0\0\0") + content.count(b"MM\0*\0\0\0\x08") == 1
        path.write_bytes(
            content.replace(b"II*\0\x08", b"xx*\0\x08").replace(b"MM\0*\0\0\0\x08", b"xx\0*\0\0\0\x08")
        )
    photo = read(path)
    assert photo.image.shape == (90, 120, 3)
    assert photo.image[32, 22].argmax() == 0
    assert photo.notes in ((EXIF_LEFT_OUT,), (LEFT_OUT,))
    assert photo.record.camera is None


def test_broken_segments_of_a_jpeg_are_left_out(tmp_path: Path) -> None:
    path = tmp_path / "photo.jpg"
    exif = Image.Exif()
    exif[ExifTags.Base.Model] = "Box"
    content = encoded(scene("red"), "JPEG", exif=exif.tobytes())
    profile = b"\xff\xe2" + struct.pack(">H", 15) + b"ICC_PROFILE\0\1"  # its count is missing
    path.write_bytes(content[:2] + profile + content[2:])
    photo = read(path)
    assert photo.image[32, 22].argmax() == 0
    assert (photo.notes, photo.record.camera) == ((LEFT_OUT,), "Box")


def test_a_broken_directory_of_a_tiff_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "photo.tif"
    path.write_bytes(tiff(np.asarray(scene("red")), COLOURS, gps=1 << 30))
    photo = read(path)
    assert np.array_equal(photo.image, np.asarray(scene("red")))
    assert photo.notes == (EXIF_LEFT_OUT,)


@pytest.mark.parametrize("progressive", [False, True])
def test_a_cut_jpeg_is_read_if_half_is_left(tmp_path: Path, progressive: bool) -> None:
    rng = np.random.default_rng(0)
    picture = Image.fromarray(rng.integers(0, 255, (256, 256, 3), np.uint8))
    whole = encoded(picture, "JPEG", progressive=progressive)
    path = tmp_path / "photo.jpg"
    path.write_bytes(whole)
    complete = read(path).image
    path.write_bytes(whole[:-2])
    photo = read(path)
    assert np.array_equal(photo.image, complete)
    assert photo.notes == (CUT,)
    path.write_bytes(whole[: len(whole) * 7 // 10])
    photo = read(path)
    assert photo.notes == (CUT,)
    if not progressive:
        assert np.array_equal(photo.image[:128], complete[:128])
        path.write_bytes(whole[: len(whole) * 3 // 10])
        assert reason(path).startswith("damaged: image file is truncated")


def test_a_cut_png_is_damaged(tmp_path: Path) -> None:
    (tmp_path / "photo.png").write_bytes(png()[:-300])
    assert reason(tmp_path / "photo.png").startswith("damaged: ")


def test_segments_that_run_out_of_the_file_are_no_jpeg() -> None:
    assert jpeg_without_metadata(b"\xff\xd8\xff\xe0\xff\xff", keep_exif=True) is None


@pytest.mark.parametrize("size", [(2100, 1204), (2099, 1201)])
def test_a_jpeg_2000_is_decoded_at_a_lower_size(tmp_path: Path, size: tuple[int, int]) -> None:
    picture = scene("red", size=size)
    content = encoded(picture, "JPEG2000", num_resolutions=3)
    assert jpeg2000_reductions(content) == 2
    (tmp_path / "photo.jp2").write_bytes(content)
    photo = read(tmp_path / "photo.jp2")
    assert (photo.record.width, photo.record.height, photo.image.shape[1]) == (*size, 1024)
    small, plain = (
        np.asarray(each.resize((64, 36), Image.Resampling.BOX)).astype(float)
        for each in (Image.fromarray(photo.image), picture)
    )
    assert np.abs(small - plain).max() < 12


def test_other_files_say_nothing_about_reductions() -> None:
    assert jpeg2000_reductions(b"nothing") == 0
    assert jpeg2000_reductions(b"\xff\x4f\xff\x51\xff\x52") == 0


@pytest.mark.parametrize(
    "start", [b"\0\0", b"BM", b"GIF8", b"II*\0", b"\x89PNG\r\n\x1a\n", b"RIFF\0\0\0\0WEBP", b""]
)
def test_a_file_that_ends_within_its_signature_is_one_clear_reason(tmp_path: Path, start: bytes) -> None:
    path = tmp_path / "photo.jpg"
    path.write_bytes(start)
    with pytest.raises(PhotoUnreadable) as caught:
        decode_full_size(path)
    assert "its decoder" not in caught.value.reason
