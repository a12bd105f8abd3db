"""Masks as PNG files at the photo's true size."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from matir_cli.output.picture_folder import PictureFolder
from matir_cli.output.result_pixels import ResultPixels
from matir_cli.records import Rle


def write_masks(folder: PictureFolder, pixels: ResultPixels) -> tuple[Path | None, ...]:
    """Write the mask of each object as an 8-bit PNG (0 outside, 255 inside) at the photo's true size.

    Returns:
        The path of each object's mask, in order; None for an object without a mask.

    Raises:
        OutputError: a file cannot be written.
    """

    def write(rle: Rle) -> Path | None:
        return folder.save(
            f"{pixels.file_stem(rle.counts)}.png",
            lambda: Image.fromarray(pixels.result.photo.at_true_size(rle).astype(np.uint8) * 255),
        )

    return tuple(None if each.mask is None else write(each.mask) for each in pixels.objects)
