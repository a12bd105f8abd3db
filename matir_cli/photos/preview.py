"""Previews: the working image as JPEG, as stored in a gallery."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from PIL import Image

from matir_cli.errors import PhotoUnreadable
from matir_cli.photos.colour import WORKING_SIDE
from matir_cli.photos.formats import DECODE_ERRORS, decode_reason
from matir_cli.records import ImageArray

PREVIEW_QUALITY = 85
"""JPEG quality of the stored preview; at 85, a 1024-pixel photo takes some 100 to 200 KB."""


def encode_preview(image: ImageArray) -> bytes:
    """Encode a working image, (height, width, 3) uint8 RGB, as JPEG."""
    stream = io.BytesIO()
    Image.fromarray(image).save(stream, "JPEG", quality=PREVIEW_QUALITY)
    return stream.getvalue()


def decode_preview(jpeg: bytes) -> ImageArray:
    """Decode a stored preview to the working image, (height, width, 3) uint8 RGB.

    Raises:
        PhotoUnreadable: the bytes are not a JPEG, are damaged, or exceed the working size.
    """
    try:
        with Image.open(io.BytesIO(jpeg), formats=["JPEG"]) as picture:
            if max(picture.size) > WORKING_SIDE:
                raise ValueError(f"{picture.size[0]} x {picture.size[1]} pixels")
            return np.array(picture.convert("RGB"))
    except DECODE_ERRORS as error:
        raise PhotoUnreadable(Path("preview"), decode_reason(error)) from error
