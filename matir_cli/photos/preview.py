"""Previews: the working image as JPEG, as stored in a gallery."""

from __future__ import annotations

import io
from pathlib import Path

from matir_cli.photos.decoder_process import DecoderProcess, shared_decoder
from matir_cli.records import ImageArray

PREVIEW_QUALITY = 85
"""JPEG quality of the stored preview; at 85, a 1024-pixel photo takes some 100 to 200 KB."""


def encode_preview(image: ImageArray) -> bytes:
    """Encode a working image, (height, width, 3) uint8 RGB, as JPEG."""
    # Imported here: most commands that read previews write none.
    from PIL import Image

    stream = io.BytesIO()
    Image.fromarray(image).save(stream, "JPEG", quality=PREVIEW_QUALITY)
    return stream.getvalue()


def decode_preview(jpeg: bytes, decoder: DecoderProcess = shared_decoder) -> ImageArray:
    """Decode a stored preview to the working image, (height, width, 3) uint8 RGB.

    The gallery may be a stranger's: the process that decodes photos does it.

    Raises:
        PhotoUnreadable: the bytes are not a JPEG, are damaged, exceed the working size, or take more time
            or memory to decode than they may.
        DecoderUnavailable: the process that decodes does not start.
    """
    with decoder.ask("preview", Path("preview"), jpeg) as answer:
        return answer.read_image()
