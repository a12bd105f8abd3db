"""Photo files decoded to working size or true size, upright, in RGB.

The files are untrusted. Only formats that Pillow decodes by itself are read (EPS would start
Ghostscript), and sizes are checked before a pixel is decoded.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from matir_cli.errors import PhotoUnreadable
from matir_cli.photos.colour import WORKING_SIDE, to_rgb, to_working_rgb
from matir_cli.photos.exif import UPRIGHT, read_camera, read_orientation, read_position, read_taken_at
from matir_cli.photos.formats import (
    DECODE_ERRORS,
    HEIF_SUFFIXES,
    decode_reason,
    readable_formats,
    register_heif,
)
from matir_cli.records import MAX_PIXELS, FileRecord, ImageArray, PhotoRecord

MIN_SIDE = 8
"""Pixels: shortest side of a photo that can show an object."""


@dataclass(frozen=True, slots=True)
class DecodedPhoto:
    """A photo decoded to working size, ready for the models."""

    file: FileRecord
    record: PhotoRecord
    image: ImageArray
    """(mask_height, mask_width, 3) uint8 RGB, working pixels, upright."""


def decode_photo(file: FileRecord, digest: bytes) -> DecodedPhoto:
    """Decode a photo to working size, upright, RGB; the first frame of an animation.

    Args:
        digest: SHA-256 of the file, 32 bytes.

    Raises:
        PhotoUnreadable: the file is not an image, damaged, too large or too small.
    """
    register_heif()
    try:
        with file.path.open("rb") as stream, _open(file.path, stream) as picture:
            orientation, remaining = _orientations(picture)
            width, height = picture.size
            # A JPEG can be decoded at a half, a quarter or an eighth of its size with far less work.
            picture.draft("RGB", (WORKING_SIDE, WORKING_SIDE))
            working = to_working_rgb(picture, width, height)
            if remaining > 1:
                working = working.transpose(UPRIGHT[remaining])
            if remaining >= 5:  # on its side
                width, height = height, width
            image = np.array(working)  # a copy, since torch does not accept read-only arrays
            record = _record(digest, width, height, image, orientation, picture.getexif())
    except PhotoUnreadable:
        raise
    except DECODE_ERRORS as error:
        raise PhotoUnreadable(file.path, decode_reason(error)) from error
    return DecodedPhoto(file, record, image)


def decode_full_size(path: Path) -> Image.Image:
    """Decode a photo at true size, upright, RGB; the first frame of an animation.

    The colour profile is kept if the file's pixels are RGB, since it describes them.

    Raises:
        PhotoUnreadable: the file is not an image, damaged, too large or too small.
    """
    register_heif()
    try:
        with path.open("rb") as stream, _open(path, stream) as picture:
            _, remaining = _orientations(picture)
            profile = picture.info.get("icc_profile") if picture.mode in ("RGB", "RGBA") else None
            rgb = to_rgb(picture)
            rgb.load()
    except PhotoUnreadable:
        raise
    except DECODE_ERRORS as error:
        raise PhotoUnreadable(path, decode_reason(error)) from error
    rgb = rgb.transpose(UPRIGHT[remaining]) if remaining > 1 else rgb
    rgb.info = {} if profile is None else {"icc_profile": profile}
    return rgb


def _orientations(picture: Image.Image) -> tuple[int, int]:
    """Return the EXIF orientation of the file, and the one that still has to be undone (1: upright)."""
    orientation = read_orientation(picture)
    if picture.format == "TIFF":
        picture.load()  # Pillow turns this format upright itself, and removes the tag
    return orientation, read_orientation(picture)


def _record(
    digest: bytes, width: int, height: int, image: ImageArray, orientation: int, exif: Image.Exif
) -> PhotoRecord:
    """Make the record of a photo of `width` x `height` photo pixels; `orientation` is the file's."""
    return PhotoRecord(
        *(digest, width, height, image.shape[1], image.shape[0], orientation),
        *(read_taken_at(exif), read_camera(exif), *read_position(exif)),
    )


def _open(path: Path, stream: io.BufferedReader) -> Image.Image:
    """Open the image without decoding it.

    Raises:
        PhotoUnreadable: the format is unknown or not readable, or the size is out of bounds.
    """
    try:
        picture = Image.open(stream, formats=readable_formats())
    except UnidentifiedImageError as error:
        heic_unreadable = path.suffix.lower() in HEIF_SUFFIXES and not register_heif()
        reason = "HEIC: needs pip install 'matir-cli[heic]'" if heic_unreadable else "not an image"
        raise PhotoUnreadable(path, reason) from error
    width, height = picture.size
    if width * height > MAX_PIXELS:
        raise PhotoUnreadable(path, f"{width} x {height} pixels, more than {MAX_PIXELS // 10**6} million")
    if min(width, height) < MIN_SIDE:
        raise PhotoUnreadable(path, f"{width} x {height} pixels, too small to show an object")
    return picture
