"""Cut-outs: objects cut out of their photos, as RGBA PNG files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from matir_cli import masks
from matir_cli.output.picture_folder import PictureFolder
from matir_cli.output.result_pixels import ResultPixels
from matir_cli.records import MaskArray, Rle


class Cutouts:
    """Writes cut-outs, and counts the photos whose original could not be used."""

    def __init__(self, folder: PictureFolder) -> None:
        self.folder = folder
        self.from_preview = 0
        """Number of photos whose original is missing or changed; their objects are cut from the preview."""

    def write(self, pixels: ResultPixels) -> tuple[Path | None, ...]:
        """Write each object cropped to its mask; pixels outside the mask are not in the file.

        Objects are cut from the original at the photo's true size if it exists unchanged, otherwise from
        the preview at working size.

        Returns:
            The path of each object's file, in order; None for an object without a mask, or if the photo's
            pixels are unavailable.

        Raises:
            OutputError: a file cannot be written.
        """
        if not pixels.masked_objects:
            return (None,) * len(pixels.objects)
        photo = pixels.original()
        if whole := photo is not None:
            facts = ["original"]
        else:
            photo, facts = pixels.working, ["preview"]
            self.from_preview += photo is not None

        def cut(rle: Rle) -> Image.Image | None:
            mask = pixels.result.photo.at_true_size(rle) if whole else masks.decode(rle)
            return None if photo is None else cut_out(photo, mask)

        def write(rle: Rle) -> Path | None:
            return self.folder.save(f"{pixels.file_stem(rle.counts, *facts)}.png", lambda: cut(rle))

        return tuple(None if each.mask is None else write(each.mask) for each in pixels.objects)


def cut_out(photo: Image.Image, mask: MaskArray) -> Image.Image | None:
    """Cut an object out of an RGB photo: RGBA, cropped to the (height, width) mask; None if that is empty."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not rows.size:
        return None
    top, bottom, left, right = int(rows[0]), int(rows[-1]) + 1, int(columns[0]), int(columns[-1]) + 1
    part = Image.fromarray(mask[top:bottom, left:right].astype(np.uint8) * 255)
    made = Image.new("RGBA", part.size)
    made.paste(photo.crop((left, top, right, bottom)), mask=part)
    made.putalpha(part)
    made.info.update({key: value for key, value in photo.info.items() if key == "icc_profile"})
    return made
