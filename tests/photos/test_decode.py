import io
import os
import struct
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import ExifTags, Image

from matir_cli.errors import PhotoUnreadable
from matir_cli.photos.decode import DecodedPhoto, decode_full_size, decode_photo
from matir_cli.photos.discover import find_photo_files, hash_file, stat_file
from matir_cli.photos.preview import encode_preview
from tests.support.pictures import scene


def read(path: Path) -> DecodedPhoto:
    file = stat_file(path)
    return decode_photo(file, hash_file(file))


def reason(path: Path) -> str:
    with pytest.raises(PhotoUnreadable) as caught:
        read(path)
    assert caught.value.path == path
    return caught.value.reason


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "tiff", "bmp", "gif", "jp2", "avif", "ppm"])
def test_reads_every_usual_format(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"photo.{suffix}"
    scene("red", "blue").save(path)
    image = read(path).image
    assert image.shape == (90, 120, 3)
    red, green, blue = image[32, 22].astype(int)
    assert red > 150
    assert max(green, blue) < 110


def test_reads_heic(tmp_path: Path) -> None:
    import pillow_heif

    path = tmp_path / "photo.heic"
    pillow_heif.from_pillow(scene("green")).save(path)
    assert read(path).image[32, 22].argmax() == 1


@pytest.mark.parametrize("mode", ["L", "1", "P", "CMYK", "LA", "YCbCr", "LAB", "I", "F", "HSV"])
def test_reads_every_mode(tmp_path: Path, mode: str) -> None:
    picture = (
        scene("red", size=(64, 48)).convert("LAB" if mode == "LAB" else "RGB")
        if mode == "LAB"
        else (scene("red", size=(64, 48)).convert(mode))
    )
    path = tmp_path / "photo.tiff"
    if mode == "HSV":
        picture = picture.convert("RGB")
    picture.save(path)
    image = read(path).image
    assert image.shape == (48, 64, 3)
    assert image.std() > 5


def test_sixteen_bits_keep_their_brightness(tmp_path: Path) -> None:
    values = np.linspace(0, 65535, 64 * 64).reshape(64, 64).astype(np.uint16)
    Image.fromarray(values).save(tmp_path / "photo.png")
    image = read(tmp_path / "photo.png").image
    assert np.abs(image[:, :, 0].astype(float) - values / 257).max() <= 1


def test_large_greys_have_one_range(tmp_path: Path) -> None:
    values = np.linspace(-3.0, 5.0, 1100 * 2000, dtype=np.float32).reshape(1100, 2000)  # several strips
    Image.fromarray(values).save(tmp_path / "photo.tiff")
    image = np.asarray(decode_full_size(tmp_path / "photo.tiff"))[:, :, 0].astype(float)
    assert np.abs(image - (values + 3) * 255 / 8).max() <= 1


def test_transparency_lies_over_white(tmp_path: Path) -> None:
    Image.new("RGBA", (32, 32), (0, 0, 0, 0)).save(tmp_path / "photo.png")
    assert (read(tmp_path / "photo.png").image == 255).all()


def test_an_animation_gives_its_first_frame(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (32, 32), colour) for colour in ("red", "blue")]
    frames[0].save(tmp_path / "photo.gif", save_all=True, append_images=frames[1:])
    assert tuple(read(tmp_path / "photo.gif").image[5, 5]) == (255, 0, 0)


@pytest.mark.parametrize("suffix", ["png", "tif"])  # Pillow turns a TIFF by itself
@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_is_applied(tmp_path: Path, orientation: int, suffix: str) -> None:
    upright = scene("red", size=(120, 80))
    turn = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}  # the transposition that undoes each orientation
    stored = upright.transpose(Image.Transpose(turn[orientation])) if orientation > 1 else upright
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    path = tmp_path / f"photo.{suffix}"
    stored.save(path, exif=exif)
    photo = read(path)
    assert (photo.record.width, photo.record.height, photo.record.orientation) == (120, 80, orientation)
    assert np.array_equal(photo.image, np.asarray(upright))
    assert np.array_equal(np.asarray(decode_full_size(path)), np.asarray(upright))


def test_large_photos_are_scaled_and_keep_their_true_size(tmp_path: Path) -> None:
    scene("red", size=(3000, 1500)).save(tmp_path / "photo.jpg")
    record = read(tmp_path / "photo.jpg").record
    assert (record.width, record.height, record.mask_width, record.mask_height) == (3000, 1500, 1024, 512)


def test_exif_facts(tmp_path: Path) -> None:
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
    assert (record.latitude, record.longitude) == (-33.5, pytest.approx(-70.6))


def test_nonsense_in_exif_is_no_reason_to_skip(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 77
    exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.DateTimeOriginal] = "yesterday"
    exif.get_ifd(ExifTags.IFD.GPSInfo)[ExifTags.GPS.GPSLatitude] = (999.0, 0.0, 0.0)
    scene("red").save(tmp_path / "photo.jpg", exif=exif)
    record = read(tmp_path / "photo.jpg").record
    assert (record.orientation, record.taken_at, record.latitude) == (1, None, None)


def test_bad_files_say_why(tmp_path: Path) -> None:
    whole = io.BytesIO()
    scene("red").save(whole, "JPEG")
    contents = {
        "zero.jpg": (b"", "zero bytes"),
        "text.jpg": (b"hello " * 50, "not an image"),
        "cut.jpg": (whole.getvalue()[:800], "damaged"),
    }
    for name, (content, expected) in contents.items():
        (tmp_path / name).write_bytes(content)
        assert expected in reason(tmp_path / name)
    Image.new("RGB", (1, 1)).save(tmp_path / "one.png")
    assert "too small" in reason(tmp_path / "one.png")
    assert "no such file" in reason(tmp_path / "nothing.png")
    os.mkfifo(tmp_path / "pipe.jpg")
    assert "not a plain file" in reason(tmp_path / "pipe.jpg")


def test_a_decompression_bomb_is_refused_before_it_is_decoded(tmp_path: Path) -> None:
    # A PNG header that claims 60000 x 60000 pixels, over a few bytes of data.
    path = tmp_path / "bomb.png"
    Image.new("1", (60_000, 7_000)).save(path)
    assert "more than 400 million" in reason(path)


def test_a_bomb_within_an_icon_is_refused_too(tmp_path: Path) -> None:
    inner = io.BytesIO()
    Image.new("1", (60_000, 7_000)).save(inner, "PNG")
    entry = struct.pack("<BBBBHHII", 32, 32, 0, 0, 1, 32, len(inner.getvalue()), 22)
    (tmp_path / "bomb.ico").write_bytes(struct.pack("<HHH", 0, 1, 1) + entry + inner.getvalue())
    assert "more than 400 million" in reason(tmp_path / "bomb.ico")


def test_whatever_a_damaged_file_makes_a_decoder_raise_is_its_own_fault(tmp_path: Path) -> None:
    whole = io.BytesIO()
    Image.new("RGB", (64, 64), "red").save(whole, "AVIF")
    damaged = bytearray(whole.getvalue())
    damaged[81] = 0  # libavif's errors come as RuntimeError
    (tmp_path / "photo.avif").write_bytes(damaged)
    assert "damaged" in reason(tmp_path / "photo.avif")


def test_an_orientation_of_another_type_is_none(tmp_path: Path) -> None:
    entry = struct.pack(">HHII", ExifTags.Base.Orientation, 5, 1, 26)  # a rational: 6/1
    exif = b"Exif\0\0MM\0*" + struct.pack(">IH", 8, 1) + entry + struct.pack(">III", 0, 6, 1)
    scene("red", size=(60, 40)).save(tmp_path / "photo.jpg", exif=exif)
    with Image.open(tmp_path / "photo.jpg") as picture:
        assert picture.getexif()[ExifTags.Base.Orientation] == 6
    record = read(tmp_path / "photo.jpg").record
    assert (type(record.orientation), record.orientation, record.width) == (int, 1, 60)


def test_a_wrong_clock_is_no_reason_to_stop(tmp_path: Path) -> None:
    scene("red").save(tmp_path / "photo.png")
    os.utime(tmp_path / "photo.png", (1e10, 1e10))
    assert -(2**63) < stat_file(tmp_path / "photo.png").mtime_ns < 2**63


def test_eps_is_not_handed_to_another_program(tmp_path: Path) -> None:
    path = tmp_path / "photo.eps"
    scene("red").save(path)
    assert reason(path) == "not an image"


def test_the_preview_is_the_working_image(tmp_path: Path) -> None:
    scene("red").save(tmp_path / "photo.png")
    photo = read(tmp_path / "photo.png")
    preview = np.asarray(Image.open(io.BytesIO(encode_preview(photo.image))))
    assert preview.shape == photo.image.shape
    assert np.abs(preview.astype(int) - photo.image).mean() < 6


def test_walking(tmp_path: Path) -> None:
    kept = ["b.jpg", "a/x.PNG", "a/y.heic", "c/deep/z.webp"]
    ignored = ["notes.txt", ".hidden.jpg", ".git/x.jpg", "a/@eaDir/x.jpg", "noext"]
    for name in kept + ignored:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / "a" / "loop").symlink_to(tmp_path)
    (tmp_path / "again").symlink_to(tmp_path / "c")
    found = [path.relative_to(tmp_path).as_posix() for path in find_photo_files([tmp_path])]
    assert found == ["a/x.PNG", "a/y.heic", "again/deep/z.webp", "b.jpg"]
    named = tmp_path / ".hidden.jpg"
    assert list(find_photo_files([named])) == [named]


def test_raw_files_in_folders_are_passed_over_and_counted(tmp_path: Path) -> None:
    names = ["a.jpg", "a.CR2", "b.nef", "deep/c.cr2", ".hidden.cr2", "clip.mp4", "a.heic"]
    (tmp_path / "deep").mkdir()
    for name in names:
        (tmp_path / name).write_bytes(b"x")
    passed_over = Counter[str]()
    found = list(find_photo_files([tmp_path], passed_over))
    assert found == [tmp_path / "a.heic", tmp_path / "a.jpg"]
    assert passed_over == {".cr2": 2, ".nef": 1}
    assert list(find_photo_files([tmp_path / "b.nef"], passed_over)) == [tmp_path / "b.nef"]
    assert passed_over.total() == 3
