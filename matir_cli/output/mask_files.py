"""Masks as files of one object each: PNG, PFM for darktable, or NumPy's arrays."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

import numpy as np

from matir_cli import masks
from matir_cli.output.picture_folder import Picture, PictureFolder
from matir_cli.output.result_pixels import ResultPixels
from matir_cli.records import Box, MaskArray, Rle

MaskForm: TypeAlias = Literal["png", "darktable", "npz"]
"""Form of a mask file.

png: 8 bits, 0 outside and 255 inside, upright, at the photo's true size.
darktable: for its module "external raster masks": a grey PFM, 0.0 outside and 1.0 inside. The module works
    before the picture is turned, so the mask is turned as the file stores the photo.
npz: the arrays `mask`, (height, width) bool, upright, at the photo's true size; `box`, (4,) float64, x0, y0,
    x1, y1 in photo pixels; `score`, () float64.
"""

_SUFFIXES: dict[MaskForm, str] = {"png": "png", "darktable": "pfm", "npz": "npz"}


def write_masks(
    folder: PictureFolder, pixels: ResultPixels, form: MaskForm = "png"
) -> tuple[Path | None, ...]:
    """Write the mask of each object to a file.

    Returns:
        The path of each object's mask, in order; None for an object without a mask.

    Raises:
        OutputError: a file cannot be written.
    """

    def write(rle: Rle, box: Box) -> Path | None:
        # Arrays also depend on box and score; pictures on the mask alone.
        facts = [rle.counts] if form != "npz" else [rle.counts, repr((box, pixels.result.score))]
        return folder.save(
            f"{pixels.file_stem(*facts)}.{_SUFFIXES[form]}", lambda: _picture(pixels, rle, box, form)
        )

    return tuple(None if each.mask is None else write(each.mask, each.box) for each in pixels.objects)


def _picture(pixels: ResultPixels, rle: Rle, box: Box, form: MaskForm) -> Picture:
    # Imported here: results without pictures need no Pillow.
    from PIL import Image

    photo = pixels.result.photo
    mask = photo.at_true_size(rle)
    match form:
        case "png":
            return Image.fromarray(mask.astype(np.uint8) * 255)
        case "darktable":
            return Image.fromarray(masks.turn_back(mask, photo.record.orientation).astype(np.float32))
        case "npz":
            return _Arrays(mask, box, pixels.result.score)


@dataclass(frozen=True, slots=True)
class _Arrays:
    """Arrays that are saved like a picture."""

    mask: MaskArray
    box: Box
    score: float

    def save(self, fp: Path, format: str | None = None, **_settings: int) -> None:  # noqa: A002, ARG002 - Pillow's
        """Write the arrays, compressed; `format` is not used."""
        box = np.array([self.box.x0, self.box.y0, self.box.x1, self.box.y1], np.float64)
        with fp.open("wb") as file:
            np.savez_compressed(file, mask=self.mask, box=box, score=np.float64(self.score))
