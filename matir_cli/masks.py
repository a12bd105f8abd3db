"""Masks as COCO run-length encodings (RLE): conversion, validation, boxes, scaling, turning, IoU.

pycocotools does the encoding, so COCO's tools can read the masks of a gallery as they are.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import msgspec
import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco

from matir_cli.records import Box, MaskArray, Rle

MAX_SIDE = 16_384
"""Greatest height and width, pixels. Masks of regions have at most 1024; those of annotations are as large
as their photos."""


_MAX_OUTLINE = 4_000_000
"""Longest outline of the polygons of a mask, in pixels; pycocotools allocates 40 bytes per pixel."""


class RunLengths(msgspec.Struct):
    """A mask as run lengths, not checked yet."""

    size: tuple[int, int]
    """Height and width, pixels."""
    counts: str | list[int]


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
    # Imported here: most commands scale no mask.
    from PIL import Image

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


def turn_upright(mask: MaskArray, orientation: int) -> MaskArray:
    """Turn the mask of a photo as its file stores it upright; the inverse of `turn_back`.

    Args:
        mask: (h, w) bool.
        orientation: the file's EXIF orientation, 1 to 8.
    """
    return turn_back(mask, {6: 8, 8: 6}.get(orientation, orientation))


def turn_box_upright(box: Box, orientation: int, width: int, height: int) -> Box:
    """Turn a box in a photo of `width` x `height` pixels, as its file stores it, as `turn_upright` does."""
    x0, y0, x1, y1 = box.x0, box.y0, box.x1, box.y1
    if orientation in (2, 3, 7, 8):
        x0, x1 = width - x1, width - x0
    if orientation in (3, 4, 6, 7):
        y0, y1 = height - y1, height - y0
    return Box(y0, x0, y1, x1) if orientation >= 5 else Box(x0, y0, x1, y1)


def turn_back(mask: MaskArray, orientation: int) -> MaskArray:
    """Turn the (h, w) bool mask of an upright photo back to how its file stores it."""
    match orientation:
        case 1:
            turned = mask
        case 2:
            turned = mask[:, ::-1]
        case 3:
            turned = mask[::-1, ::-1]
        case 4:
            turned = mask[::-1]
        case 5:
            turned = mask.T
        case 6:
            turned = np.rot90(mask)
        case 7:
            turned = mask[::-1, ::-1].T
        case _:
            turned = np.rot90(mask, -1)
    return np.ascontiguousarray(turned)


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


# Segmentations of COCO files


def segmentation_to_rle(segmentation: RunLengths | Sequence[Sequence[float]], height: int, width: int) -> Rle:
    """Convert COCO's `segmentation` to a mask of the image's height x width, safe to decode.

    Raises:
        ValueError: it has another size, is empty or malformed, or exceeds the size limit of masks.
    """
    if max(height, width) > MAX_SIDE:
        raise ValueError(f"a mask of {width} x {height} pixels, more than {MAX_SIDE} on a side")
    if not isinstance(segmentation, RunLengths):
        rle = _polygons_to_rle(segmentation, height, width)
    elif segmentation.size != (height, width):
        rows, columns = segmentation.size
        raise ValueError(f"a mask of {columns} x {rows} pixels for an image of {width} x {height}")
    elif isinstance(segmentation.counts, list):
        rle = _compress(segmentation.counts, height, width)
    else:
        rle = Rle(height, width, segmentation.counts.encode())
    check(rle)
    return rle


def _compress(counts: list[int], height: int, width: int) -> Rle:
    """Compress a list of run lengths."""
    if min(counts, default=0) < 0 or sum(counts) != height * width:
        raise ValueError("runs do not fill the mask")
    compressed = coco.frPyObjects({"size": [height, width], "counts": counts}, height, width)
    return Rle(height, width, compressed["counts"])


def _polygons_to_rle(polygons: Sequence[Sequence[float]], height: int, width: int) -> Rle:
    """Return the union of polygons, each x0, y0, x1, y1, ...; they may reach a little out of the image."""
    if not polygons:
        raise ValueError("it has no mask")  # pycocotools would access the first polygon
    side = max(height, width)
    outline = 0.0
    for polygon in polygons:
        # pycocotools takes four numbers for a box, and reads past the end of an odd count.
        if len(polygon) < 6 or len(polygon) % 2:
            raise ValueError(f"a polygon of {len(polygon)} numbers")
        points = np.array(polygon).reshape(-1, 2)
        if not ((-side <= points) & (points <= 2 * side)).all():
            raise ValueError("a polygon far outside its image")
        outline += float(np.abs(np.diff(points, axis=0, append=points[:1])).max(axis=1).sum())
        if outline > _MAX_OUTLINE:
            raise ValueError(f"a polygon with an outline of more than {_MAX_OUTLINE:,} pixels")
    parts = coco.frPyObjects(polygons, height, width)
    return merge_masks([Rle(height, width, part["counts"]) for part in parts])


def merge_masks(parts: Sequence[Rle]) -> Rle:
    """Return the union of masks of the same size; ValueError if there is none."""
    if not parts:
        raise ValueError("it has no mask")
    if len(parts) == 1:
        return parts[0]
    merged = coco.merge([to_coco(part) for part in parts])
    return Rle(parts[0].height, parts[0].width, merged["counts"])
