"""Masks as COCO run-length encodings: to and from arrays, whole photos, scaling, IoU.

pycocotools does the encoding, so what lies in a gallery is what COCO's tools read.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pycocotools import mask as coco

from matir_cli.records import Box, MaskArray, Rle

MAX_SIDE = 16_384
"""Pixels. Masks made here have at most 1024; those of annotations are as large as their photos."""


def encode(mask: MaskArray) -> Rle:
    """The RLE of a (h, w) bool mask."""
    made = coco.encode(np.asfortranarray(mask, dtype=np.uint8))
    return Rle(mask.shape[0], mask.shape[1], made["counts"])


def decode(rle: Rle) -> MaskArray:
    """The (h, w) bool mask of `rle`."""
    return np.asarray(coco.decode(to_coco(rle)), dtype=np.bool_)


def to_coco(rle: Rle) -> dict[str, object]:
    """The dictionary that pycocotools works on; its counts are bytes."""
    return {"size": [rle.height, rle.width], "counts": rle.counts}


def whole(height: int, width: int) -> Rle:
    """The mask of all ones: the photo as one region. Zero zeros, then height x width ones."""
    return encode(np.ones((height, width), dtype=np.bool_))


def check(rle: Rle) -> None:
    """Make sure that `rle` is safe to decode: pycocotools trusts its input and writes where it says.

    Raises:
        ValueError: a size out of bounds, a malformed run, or runs that do not fill the mask.
    """
    if not (0 < rle.height <= MAX_SIDE and 0 < rle.width <= MAX_SIDE):
        raise ValueError(f"mask of {rle.width} x {rle.height}")
    runs: list[int] = []
    run = shift = 0
    for byte in rle.counts:
        # Six bits a byte above "0": five of value, the sixth says that more follow.
        digit = byte - 48
        if not 0 <= digit < 64 or shift > 30:
            raise ValueError("malformed run length")
        run |= (digit & 31) << shift
        shift += 5
        if digit & 32:
            continue
        if digit & 16:  # negative, sign-extended
            run -= 1 << shift
        # From the fourth run on, what stands there is the difference to the run before the last.
        runs.append(run + (runs[-2] if len(runs) > 2 else 0))
        if runs[-1] < 0:
            raise ValueError("negative run length")
        run = shift = 0
    if shift or sum(runs) != rle.height * rle.width:
        raise ValueError("runs do not fill the mask")


def area(rle: Rle) -> int:
    """Number of pixels in the mask."""
    return int(coco.area(to_coco(rle)))


def box(rle: Rle) -> Box:
    """Tight box, XYXY in the mask's pixels; (0, 0, 0, 0) for an empty mask."""
    x, y, w, h = (float(v) for v in coco.toBbox(to_coco(rle)))
    return Box(x, y, x + w, y + h)


def iou(left: Sequence[Rle], right: Sequence[Rle]) -> NDArray[np.float64]:
    """(len(left), len(right)) IoU of masks of one size."""
    if not left or not right:
        return np.zeros((len(left), len(right)))
    crowd = [0] * len(right)
    return np.asarray(coco.iou([to_coco(m) for m in left], [to_coco(m) for m in right], crowd))


def resize(mask: MaskArray, height: int, width: int) -> MaskArray:
    """The mask at another size: bilinear, cut at one half, so that scaled-up edges stay smooth."""
    if mask.shape == (height, width):
        return mask
    picture = Image.fromarray(mask.astype(np.uint8) * 255)
    scaled = picture.resize((width, height), Image.Resampling.BILINEAR)
    return np.asarray(scaled) >= 128
