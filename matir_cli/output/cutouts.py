"""Objects cut out of their photos, as RGBA PNG files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from matir_cli import masks
from matir_cli.output.picture_folder import PictureFolder
from matir_cli.output.result_pixels import ResultPixels
from matir_cli.records import MaskArray, Rle


class Cutouts:
    """Writes cut-outs, and counts those that could not be made from the original."""

    def __init__(self, folder: PictureFolder) -> None:
        self.folder = folder
        self.from_preview = 0
        """Photos whose original is away or changed: their objects come at working size."""

    def write(self, subject: ResultPixels) -> tuple[Path | None, ...]:
        """Write each answer's object, cropped to its mask; what is outside the mask is not in the file.

        At the photo's true size from the original when that is there and unchanged, else at
        working size from the preview.

        Returns:
            Where each lies, in order; None for an answer without a mask or a photo without pixels.

        Raises:
            OutputError: one cannot be written.
        """
        if not subject.masked:
            return (None,) * len(subject.answers)
        photo = subject.original()
        if whole := photo is not None:
            facts = ["original"]
        else:
            photo, facts = subject.working, ["preview"]
            self.from_preview += photo is not None

        def cut(rle: Rle) -> Image.Image | None:
            mask = subject.found.photo.at_true_size(rle) if whole else masks.decode(rle)
            return None if photo is None else cut_out(photo, mask)

        def write(rle: Rle) -> Path | None:
            return self.folder.save(f"{subject.file_stem(rle.counts, *facts)}.png", lambda: cut(rle))

        return tuple(None if answer.mask is None else write(answer.mask) for answer in subject.answers)


def cut_out(photo: Image.Image, mask: MaskArray) -> Image.Image | None:
    """The part of an RGB photo that its (height, width) mask covers, RGBA; None for an empty mask."""
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
