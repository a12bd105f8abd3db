"""Masks as PNG files at the photo's true size."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from matir_cli.output.picture_folder import PictureFolder
from matir_cli.output.result_pixels import ResultPixels
from matir_cli.records import Rle


def write_masks(folder: PictureFolder, subject: ResultPixels) -> tuple[Path | None, ...]:
    """Write the mask of each answer as 8-bit PNG (0 outside, 255 inside) at true size.

    Returns:
        Where each mask lies, in order; None for an answer without one.

    Raises:
        OutputError: one cannot be written.
    """

    def write(rle: Rle) -> Path | None:
        return folder.save(
            f"{subject.file_stem(rle.counts)}.png",
            lambda: Image.fromarray(subject.found.photo.at_true_size(rle).astype(np.uint8) * 255),
        )

    return tuple(None if answer.mask is None else write(answer.mask) for answer in subject.answers)
