"""Cut-outs: objects cut out of their photos, as PNG files."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeAlias

import numpy as np

from matir_cli import masks
from matir_cli.output.picture_folder import PictureFolder
from matir_cli.output.result_pixels import ResultPixels
from matir_cli.records import MaskArray, Rle

if TYPE_CHECKING:
    from PIL import Image

Background: TypeAlias = Literal["transparent", "white", "blur"]
"""Background of cut-outs; "blur" is the photo itself, blurred."""

BLUR_SHARE = 40
"""The radius of the blur is the long side of the cut-out divided by this."""


@dataclass(frozen=True, slots=True)
class CutoutLook:
    """Edge and background of cut-outs."""

    feather: int = 0
    """Pixels on either side of the edge over which the object fades; 0 for a hard edge."""
    background: Background = "transparent"


PLAIN = CutoutLook()


class Cutouts:
    """Writes cut-outs, and counts the photos whose original could not be used."""

    def __init__(self, folder: PictureFolder, look: CutoutLook = PLAIN) -> None:
        self.folder = folder
        self.look = look
        self.from_preview = 0
        """Number of photos whose original is missing or changed; their objects are cut from the preview."""

    def write(self, pixels: ResultPixels) -> tuple[Path | None, ...]:
        """Write each object cropped to its mask; without a soft edge or a blurred background,
        pixels outside the mask are not in the file.

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
        facts += [] if self.look == PLAIN else [self.look.background, str(self.look.feather)]

        def cut(rle: Rle) -> Image.Image | None:
            mask = pixels.result.photo.at_true_size(rle) if whole else masks.decode(rle)
            return None if photo is None else cut_out(photo, mask, self.look)

        def write(rle: Rle) -> Path | None:
            return self.folder.save(f"{pixels.file_stem(rle.counts, *facts)}.png", lambda: cut(rle))

        return tuple(None if each.mask is None else write(each.mask) for each in pixels.objects)


def cut_out(photo: Image.Image, mask: MaskArray, look: CutoutLook = PLAIN) -> Image.Image | None:
    """Cut an object out of an RGB photo, cropped to the (height, width) mask and its soft edge.

    Returns:
        RGBA for a transparent background, else RGB; None if the mask is empty.
    """
    # Imported here: results without pictures need no Pillow.
    from PIL import Image, ImageFilter

    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not rows.size:
        return None
    edge = look.feather
    top, bottom = max(0, int(rows[0]) - edge), min(photo.height, int(rows[-1]) + 1 + edge)
    left, right = max(0, int(columns[0]) - edge), min(photo.width, int(columns[-1]) + 1 + edge)
    alpha = Image.fromarray(mask[top:bottom, left:right].astype(np.uint8) * 255)
    if edge:
        alpha = alpha.filter(ImageFilter.GaussianBlur(edge / 3))
    cropped = photo.crop((left, top, right, bottom))
    if look.background == "transparent":
        made = Image.new("RGBA", alpha.size)
        made.paste(cropped, mask=alpha.point(lambda value: 255 if value else 0))
        made.putalpha(alpha)
    else:
        made = _behind(cropped, look.background)
        made.paste(cropped, mask=alpha)
    made.info.update({key: value for key, value in photo.info.items() if key == "icc_profile"})
    return made


def _behind(cropped: Image.Image, background: Background) -> Image.Image:
    """Return a new picture of the size of the cropped photo: white, or the photo blurred."""
    from PIL import Image, ImageFilter

    if background == "white":
        return Image.new("RGB", cropped.size, "white")
    return cropped.filter(ImageFilter.GaussianBlur(max(2, max(cropped.size) / BLUR_SHARE)))
