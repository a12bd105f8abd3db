"""Masks as COCO run-length encodings (RLE): conversion, validation, boxes, scaling, IoU.

pycocotools does the encoding, so COCO's tools can read the masks of a gallery as they are.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pycocotools import mask as coco

from matir_cli.records import Box, MaskArray, Rle

MAX_SIDE = 16_384
"""Greatest height and width, pixels. Masks of regions have at most 1024; those of annotations are as large
as their photos."""


def encode(mask: MaskArray) -> Rle:
    """Encode a (h, w) bool mask."""
    encoded = coco.encode(np.asfortranarray(mask, dtype=np.uint8))
    return Rle(mask.shape[0], mask.shape[1], encoded["counts"])


def decode(rle: Rle) -> MaskArray:
    """Decode to a (h, w) bool mask; `rle` must be safe to decode (see `check`)."""
    return np.asarray(coco.decode(to_coco(rle)), dtype=np.bool_)


def to_coco(rle: Rle) -> dict[str, object]:
    """Return the dictionary that pycocotools works on; its `counts` are bytes."""
    return {"size": [rle.height, rle.width], "counts": rle.counts}


def whole(height: int, width: int) -> Rle:
    """Return the mask of all ones, the whole photo as a region: no zeros, then height x width ones."""
    return encode(np.ones((height, width), dtype=np.bool_))


def check(rle: Rle) -> None:
    """Check that `rle` is safe to decode: pycocotools trusts its input, and may write beyond the mask.

    Raises:
        ValueError: the size is out of bounds, a run is malformed, or the runs do not fill the mask exactly.
    """
    if not (0 < rle.height <= MAX_SIDE and 0 < rle.width <= MAX_SIDE):
        raise ValueError(f"mask of {rle.width} x {rle.height}")
    runs: list[int] = []
    run = shift = 0
    for byte in rle.counts:
        # Six bits per byte above "0": five bits of value, and one that says that more follow.
        digit = byte - 48
        if not 0 <= digit < 64 or shift > 30:
            raise ValueError("malformed run length")
        run |= (digit & 31) << shift
        shift += 5
        if digit & 32:
            continue
        if digit & 16:  # negative, sign-extended
            run -= 1 << shift
        # From the fourth run on, the number is the difference to the run two before.
        runs.append(run + (runs[-2] if len(runs) > 2 else 0))
        if runs[-1] < 0:
            raise ValueError("negative run length")
        run = shift = 0
    if shift or sum(runs) != rle.height * rle.width:
        raise ValueError("runs do not fill the mask")


def area(rle: Rle) -> int:
    """Return the number of pixels in the mask."""
    return int(coco.area(to_coco(rle)))


def box(rle: Rle) -> Box:
    """Return the tight box, XYXY in the mask's pixels; (0, 0, 0, 0) for an empty mask."""
    x, y, w, h = (float(v) for v in coco.toBbox(to_coco(rle)))
    return Box(x, y, x + w, y + h)


def iou(left: Sequence[Rle], right: Sequence[Rle]) -> NDArray[np.float64]:
    """Return the (len(left), len(right)) IoU of masks that all have the same size, 0..1."""
    if not left or not right:
        return np.zeros((len(left), len(right)))
    crowd = [0] * len(right)
    return np.asarray(coco.iou([to_coco(m) for m in left], [to_coco(m) for m in right], crowd))


def resize(mask: MaskArray, height: int, width: int) -> MaskArray:
    """Scale a bool mask to (height, width), bilinearly and cut at one half, which keeps edges smooth.

    This is the one way from a mask at working size to one at a photo's true size. Only the part where the
    mask is is computed, which is several times faster for a small object. Pillow does the filtering
    (antialiased when it scales down), in 8 bits and with positions in single precision.

    Returns:
        A (height, width) bool mask; `mask` itself if it has this size already.
    """
    if mask.shape == (height, width):
        return mask
    canvas = np.zeros((height, width), dtype=np.bool_, order="F")  # the order of run lengths
    rows, columns = (np.flatnonzero(mask.any(axis=axis)) for axis in (1, 0))
    if not rows.size:
        return canvas
    y, x = _Span.of(rows, mask.shape[0], height), _Span.of(columns, mask.shape[1], width)
    part = Image.fromarray(mask[y.source, x.source].astype(np.uint8) * 255)
    box = (x.low, y.low, x.high, y.high)
    size = x.target.stop - x.target.start, y.target.stop - y.target.start
    scaled = part.resize(size, Image.Resampling.BILINEAR, box)
    canvas[y.target, x.target] = np.asarray(scaled) >= _INSIDE
    return canvas


def scale(rle: Rle, height: int, width: int) -> Rle:
    """Scale a mask as `resize` does; `rle` must be safe to decode (see `check`)."""
    if (rle.height, rle.width) == (height, width):
        return rle
    return encode(resize(decode(rle), height, width))


_INSIDE = 126
"""Level, 0..255, from which on a scaled pixel is inside. It lies just below one half: a pixel that an edge
cuts in half, as many do at scales such as 2.5, is inside however the level was rounded."""


@dataclass(frozen=True, slots=True)
class _Span:
    """The part of one axis that `resize` computes."""

    source: slice
    """Pixels of the mask that are read."""
    target: slice
    """Pixels of the result that are computed: those that the mask reaches through the filter."""
    low: float
    """Where `target` begins, in pixels of the mask from the start of `source`."""
    high: float
    """Where `target` ends, likewise."""

    @classmethod
    def of(cls, inside: NDArray[np.intp], old: int, new: int) -> _Span:
        """Return the span of a mask with pixels at the sorted positions `inside`, scaled to `new` pixels."""
        step = old / new  # old pixels per new one
        reach = max(1.0, step)
        first, last = int(inside[0]) - reach, int(inside[-1]) + 1 + reach
        start, stop = max(0, math.floor(first / step)), min(new, math.ceil(last / step))
        begin = max(0, math.floor(start * step - reach) - 1)
        end = min(old, math.ceil(stop * step + reach) + 1)
        high = min(stop * step, end) - begin
        return cls(slice(begin, end), slice(start, stop), start * step - begin, high)
