"""Fuzz campaign: mutated photos of every format that is read, through the process that decodes them.

    python -m tests.fuzz.fuzz_photos [--seconds S] [--seed S] [--count N] [--only N]

A trial draws a picture, writes it in some format with EXIF, XMP and a colour profile, mutates the file
and decodes it at both sizes. A picture or `PhotoUnreadable` must come of it, within the limits of time and
memory, and the worker must decode a sound photo afterwards.
"""

import atexit
import io
import random
import struct
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pillow_heif
from PIL import ExifTags, Image, ImageCms

from matir_cli.errors import PhotoUnreadable
from matir_cli.photos.decode import DecodedPhoto, decode_full_size, decode_photo
from matir_cli.photos.decoder_process import DecoderProcess
from matir_cli.photos.discover import stat_file
from matir_cli.photos.preview import decode_preview
from tests.fuzz.campaign import main_of
from tests.photos.dng import dng
from tests.photos.icc import ADOBE_RGB, DISPLAY_P3, cmyk_profile, grey_profile
from tests.photos.packets import packet
from tests.support.pictures import scene

SECONDS = 10.0
"""Time limit of a decoding in the campaign."""

MEMORY = 1 << 30
"""Limit of the worker's address space in the campaign, bytes."""

SLACK = 10.0
"""Seconds beyond the limit that a busy machine may take to notice it."""

FORMATS = (
    *("JPEG", "PNG", "WEBP", "TIFF", "GIF", "BMP", "JPEG2000", "AVIF", "HEIF", "PPM", "TGA", "ICO", "ICNS"),
    *("DDS", "PCX", "SGI", "QOI", "IM", "MSP", "XBM", "SPIDER", "DIB"),
)
"""Formats that Pillow writes and that are read; the others are too rare to matter, or cannot be written."""

MODES = {
    "JPEG": ("RGB", "L", "CMYK"),
    "PNG": ("RGB", "RGBA", "P", "L", "1", "I;16", "LA"),
    "WEBP": ("RGB", "RGBA"),
    "TIFF": ("RGB", "RGBA", "L", "I;16", "F", "CMYK", "1", "LAB"),
    "GIF": ("P", "L"),
    "MSP": ("1",),
    "XBM": ("1",),
    "SPIDER": ("F",),
    "PPM": ("RGB", "L", "1"),
}
"""Modes in which each format is written; RGB for the others."""

OPTIONS: dict[str, tuple[dict[str, object], ...]] = {
    "JPEG": ({}, {"progressive": True}, {"quality": 100, "subsampling": 0}),
    "TIFF": (
        {},
        {"compression": "tiff_lzw"},
        {"compression": "tiff_adobe_deflate"},
        {"compression": "packbits"},
    ),
    "WEBP": ({}, {"lossless": True}),
    "JPEG2000": ({}, {"irreversible": True}, {"tile_size": (32, 32)}),
}


PROFILES = {
    "RGB": (ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes(), DISPLAY_P3, ADOBE_RGB),
    "L": (grey_profile(2.2),),
    "CMYK": (cmyk_profile((50, 0, 0)),),
}
"""Colour profiles by the mode of the pixels."""


def draw_raw(rng: random.Random) -> bytes:
    """Write a drawn picture as a camera's raw file, often with a preview."""
    picture = scene("red", size=(2 * rng.randint(8, 80), 2 * rng.randint(8, 80))).convert("RGB")
    preview = picture if rng.random() < 0.6 else None
    return dng(picture, orientation=rng.choice((1, 3, 6, 8)), preview=preview)


def draw_photo(rng: random.Random, kind: str) -> bytes:
    """Write a drawn picture in one of `FORMATS`, with metadata where the format has room for it."""
    pillow_heif.register_heif_opener()
    picture = scene("red", size=(rng.randint(8, 160), rng.randint(8, 160))).convert("RGB")
    mode = rng.choice(MODES.get(kind, ("RGB",)))
    if mode == "I;16":
        picture = Image.fromarray(np.asarray(picture.convert("L")).astype(np.uint16) * 257)
    elif mode == "LAB":
        srgb, lab = ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB")
        picture = ImageCms.profileToProfile(picture, srgb, lab, outputMode="LAB") or picture
    else:
        picture = picture.convert(mode)
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation], exif[ExifTags.Base.Make] = rng.randint(1, 8), "ACME"
    exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.DateTimeOriginal] = "2024:05:06 07:08:09"
    gps = exif.get_ifd(ExifTags.IFD.GPSInfo)
    gps[ExifTags.GPS.GPSLatitude], gps[ExifTags.GPS.GPSLatitudeRef] = (33.0, 30.0, 0.0), "S"
    options = dict(rng.choice(OPTIONS.get(kind, ({},))))
    if kind in ("JPEG", "PNG", "WEBP", "TIFF", "AVIF", "HEIF"):
        options |= {"exif": exif.tobytes()} if rng.random() < 0.7 and kind != "TIFF" else {}
        profiles = PROFILES.get(mode.removesuffix("A"), ())
        if profiles and rng.random() < 0.5:
            options["icc_profile"] = rng.choice(profiles)
        if kind in ("JPEG", "WEBP", "AVIF", "HEIF") and rng.random() < 0.5:
            options["xmp"] = packet('xmp:CreateDate="2024-05-06T07:08:09"')
    stream = io.BytesIO()
    picture.save(stream, kind, **options)
    return stream.getvalue()


def flip_bytes(content: bytearray, rng: random.Random) -> bytearray:
    """Change some bytes, more of them near the beginning."""
    for _ in range(rng.choice((1, 1, 3, 10, 100))):
        end = min(len(content), rng.choice((64, 512, len(content))))
        content[rng.randrange(end)] = rng.randrange(256)
    return content


def cut(content: bytearray, rng: random.Random) -> bytearray:
    """Leave out the end."""
    return content[: rng.randrange(len(content))]


def cut_out(content: bytearray, rng: random.Random) -> bytearray:
    """Leave out, double or exchange a stretch."""
    first, last = sorted(rng.randrange(len(content)) for _ in range(2))
    del content[first : min(last, first + 500)]
    return content


def change_number(content: bytearray, rng: random.Random) -> bytearray:
    """Write an extreme number over two or four bytes, as sizes, offsets and counts are."""
    numbers = (0, 1, 0x7FFF, 0xFFFF, 0x10000, 0x7FFFFFFF, 0xFFFFFFFF, rng.randrange(1 << 32), 20_000)
    number, order = rng.choice(numbers), rng.choice("<>")
    field = (
        struct.pack(order + "I", number) if rng.random() < 0.6 else struct.pack(order + "H", number & 0xFFFF)
    )
    place = rng.randrange(max(1, min(len(content), rng.choice((64, 512, len(content)))) - 4))
    content[place : place + len(field)] = field
    return content


def change_metadata(content: bytearray, rng: random.Random) -> bytearray:
    """Change bytes in and behind a mark of metadata."""
    marks = [
        mark
        for mark in (b"Exif", b"eXIf", b"EXIF", b"<rdf", b"acsp", b"iCCP", b"ICC_PROFILE")
        if mark in content
    ]
    if not marks:
        return flip_bytes(content, rng)
    place = content.index(rng.choice(marks))
    for _ in range(rng.randint(1, 20)):
        target = place + rng.randrange(200)
        if target < len(content):
            content[target] = rng.randrange(256)
    return content


MUTATIONS: tuple[Callable[[bytearray, random.Random], bytearray], ...] = (
    *(flip_bytes, cut, cut_out, change_number, change_metadata),
)

SOUND = scene("green", size=(40, 30))

DECODER = DecoderProcess(SECONDS, MEMORY)
"""The decoder of all trials."""

atexit.register(DECODER.close)


def check_sound(folder: Path) -> str | None:
    """Return what is wrong with the decoding of a sound photo, None if nothing."""
    path = folder / "sound.png"
    SOUND.save(path)
    image = decode_photo(stat_file(path), bytes(32), DECODER).image
    return None if np.array_equal(image, np.asarray(SOUND)) else "a sound photo is decoded wrongly"


def check_photo(photo: DecodedPhoto) -> str | None:
    """Return what is wrong with the result of a mutated photo, None if nothing."""
    record = photo.record
    if photo.image.shape != (record.mask_height, record.mask_width, 3):
        return f"an image of {photo.image.shape} for a record of {record}"
    if min(record.width, record.height) < 8 or not 1 <= record.orientation <= 8:
        return f"an impossible record: {record}"
    return None


def trial(rng: random.Random, folder: Path) -> str | None:
    """Decode one mutated photo."""
    kind = rng.choice((*FORMATS, "DNG"))
    content = bytearray(draw_raw(rng) if kind == "DNG" else draw_photo(rng, kind))
    for _ in range(rng.randint(1, 3)):
        content = rng.choice(MUTATIONS)(content, rng) if content else content
    path = folder / ("photo.dng" if kind == "DNG" else "photo.jpg")
    path.write_bytes(content)
    for decode in (_at_working_size, _at_full_size, _as_preview):
        begun = time.monotonic()
        try:
            finding = decode(path)
        except PhotoUnreadable as error:
            is_named = error.reason == error.reason.strip() != "" and "ended (exit code" not in error.reason
            finding = None if is_named else f"the reason {error.reason!r}"
        if finding is None and time.monotonic() - begun > SECONDS + SLACK:
            finding = f"{time.monotonic() - begun:.0f} s"
        if finding is not None:
            return f"{decode.__name__}: {finding}"
    return check_sound(folder)


def _at_working_size(path: Path) -> str | None:
    return check_photo(decode_photo(stat_file(path), bytes(32), DECODER))


def _at_full_size(path: Path) -> str | None:
    picture = decode_full_size(path, DECODER)
    return None if min(picture.size) >= 8 else f"a picture of {picture.size}"


def _as_preview(path: Path) -> str | None:
    shape = decode_preview(path.read_bytes(), DECODER).shape
    return None if len(shape) == 3 else f"a preview of {shape}"


if __name__ == "__main__":
    main_of("photos", trial, count=3000)
