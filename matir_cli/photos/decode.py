"""Photo files decoded to working size or full size, upright, in RGB.

Files come from strangers. Only formats that Pillow decodes by itself are read (EPS
would start Ghostscript), and sizes are bounded before a pixel is decoded.
"""

from __future__ import annotations

import io
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from matir_cli.errors import PhotoUnreadable
from matir_cli.photos.colour import WORKING_SIDE, to_rgb, working_rgb
from matir_cli.photos.exif import UPRIGHT, camera, position, stated_turn, taken_at
from matir_cli.photos.formats import (
    DECODE_ERRORS,
    HEIF_SUFFIXES,
    decode_reason,
    readable_formats,
    register_heif,
)
from matir_cli.records import MAX_PIXELS, FileRecord, ImageArray, PhotoRecord

MIN_SIDE = 8
"""Pixels: anything with a shorter side shows no object."""

# `_open` checks first, but a format may hold another picture inside, which only Pillow sees. Its limit
# is one global, at which it warns; it refuses from twice that on.
Image.MAX_IMAGE_PIXELS = MAX_PIXELS // 2

warnings.simplefilter("ignore", Image.DecompressionBombWarning)


@dataclass(frozen=True, slots=True)
class DecodedPhoto:
    """A photo ready for the models."""

    file: FileRecord
    record: PhotoRecord
    image: ImageArray
    """(mask_height, mask_width, 3) uint8 RGB, working pixels, upright."""


def decode_photo(file: FileRecord, digest: bytes) -> DecodedPhoto:
    """Decode to working size, upright, RGB; of an animation, the first frame.

    Raises:
        PhotoUnreadable: not a picture, damaged, too large or too small.
    """
    register_heif()
    try:
        with file.path.open("rb") as stream, _open(file.path, stream) as picture:
            orientation, turned = _orientation(picture)
            width, height = picture.size
            # A JPEG decodes to a half, a quarter or an eighth for a fraction of the work.
            picture.draft("RGB", (WORKING_SIDE, WORKING_SIDE))
            working = working_rgb(picture, width, height)
            if turned > 1:
                working = working.transpose(UPRIGHT[turned])
            if turned >= 5:  # on its side
                width, height = height, width
            image = np.array(working)  # a copy: torch takes no read-only array
            record = _record(digest, width, height, image, orientation, picture.getexif())
    except PhotoUnreadable:
        raise
    except DECODE_ERRORS as error:
        raise PhotoUnreadable(file.path, decode_reason(error)) from error
    return DecodedPhoto(file, record, image)


def decode_full_size(path: Path) -> Image.Image:
    """Decode at true size, upright, RGB, with the colour profile where it still fits; of an
    animation, the first frame.

    Raises:
        PhotoUnreadable: not a picture, damaged, too large or too small.
    """
    register_heif()
    try:
        with path.open("rb") as stream, _open(path, stream) as picture:
            _, turned = _orientation(picture)
            profile = picture.info.get("icc_profile") if picture.mode in ("RGB", "RGBA") else None
            whole = to_rgb(picture)
            whole.load()
    except PhotoUnreadable:
        raise
    except DECODE_ERRORS as error:
        raise PhotoUnreadable(path, decode_reason(error)) from error
    whole = whole.transpose(UPRIGHT[turned]) if turned > 1 else whole
    whole.info = {} if profile is None else {"icc_profile": profile}
    return whole


def _orientation(picture: Image.Image) -> tuple[int, int]:
    """How EXIF says the file's pixels are turned (1: not at all), and which of that is left to undo."""
    stated = stated_turn(picture)
    if picture.format == "TIFF":
        picture.load()  # Pillow turns this format upright itself, and takes the tag away
    return stated, stated_turn(picture)


def _record(
    digest: bytes, width: int, height: int, image: ImageArray, orientation: int, exif: Image.Exif
) -> PhotoRecord:
    """What to store of a photo of `width` x `height` pixels upright; `orientation` is its file's."""
    return PhotoRecord(
        *(digest, width, height, image.shape[1], image.shape[0], orientation),
        *(taken_at(exif), camera(exif), *position(exif)),
    )


def _open(path: Path, stream: io.BufferedReader) -> Image.Image:
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
