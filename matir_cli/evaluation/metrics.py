"""mAP@50 and mAP@50@50: from ranked lists and predicted masks to figures with their intervals.

The average precision of a query over its first 50 ranks is the sum of precision(i) x rel(i),
divided by a normaliser. Dividing by all R relevant images would bound the figure of a query
with thousands of them near zero, so two normalisers are in use, and both are computed:
min(50, R), the default, and the hits among the first 50. A mean is over the queries that
have a relevant image. Object level (mAP@50@50): rel(i) also wants the image's one predicted
mask to overlap one of its instances of the query by an IoU of at least 0.5.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image

from matir_cli import masks
from matir_cli.evaluation.datasets.dataset import Dataset
from matir_cli.records import Rle

DEPTH = 50
"""Ranks that count."""

IOU = 0.5
"""The least overlap that makes a predicted mask a hit."""

SAMPLES = 2000
"""Bootstrap samples behind an interval."""

LEVEL = 0.95
"""Share of the bootstrap's means that lie within an interval."""


@dataclass(frozen=True, slots=True)
class AveragePrecision:
    """One query's average precision, 0..1, with either normaliser."""

    by_relevant: float
    """Divided by min(depth, relevant images): what the tables rank by."""
    by_hits: float
    """Divided by the hits within the depth; 0 without any."""


@dataclass(frozen=True, slots=True)
class Interval:
    """A confidence interval of a mean."""

    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Summary:
    """The mean over queries, 0..1, with either normaliser."""

    mean_by_relevant: float
    mean_by_hits: float
    interval: Interval
    """Of `mean_by_relevant`, over the choice of queries."""
    interval_by_hits: Interval
    """Of `mean_by_hits`, over the same choices."""
    queries: int
    """How many the mean is over."""


def ranked(image_ids: ArrayLike, *scores: ArrayLike, depth: int | None = None) -> NDArray[np.int64]:
    """Image ids, best first: by the first of `scores`, its ties by the next, the last ties by smaller id.

    Args:
        image_ids: (n,) ints.
        scores: (n,) each, compared in float64, higher is better.
        depth: how many to return; all without it.
    """
    ids = np.asarray(image_ids, np.int64)
    keys = [-np.asarray(values, np.float64) for values in reversed(scores)]
    return ids[np.lexsort((ids, *keys))][:depth]


def image_hits(dataset: Dataset, query_id: int, ranking: Sequence[int]) -> NDArray[np.bool_]:
    """(len(ranking),) whether the image at each rank is relevant."""
    relevant = dataset.relevant(query_id)
    return np.fromiter((image in relevant for image in ranking), np.bool_, len(ranking))


def object_hits(
    dataset: Dataset, query_id: int, ranking: Sequence[int], predicted: Sequence[Rle | None]
) -> NDArray[np.bool_]:
    """(len(ranking),) whether each image is relevant and its predicted mask lies on an instance."""
    pairs = zip(ranking, predicted, strict=True)
    found = (mask_hit(mask, dataset.instances(query_id, image)) for image, mask in pairs)
    return np.fromiter(found, np.bool_, len(ranking))


def mask_hit(predicted: Rle | None, truth: Sequence[Rle], threshold: float = IOU) -> bool:
    """Whether the mask has an IoU of at least `threshold` with any of `truth`, all of one size.

    They are compared at the size of `truth`: a mask made at working size is scaled to it.
    The run lengths must be safe (`masks.check`) if they come from a file.
    """
    if predicted is None or not truth:
        return False
    height, width = truth[0].height, truth[0].width
    if (predicted.height, predicted.width) != (height, width):
        predicted = scaled(predicted, height, width)
    return bool((masks.iou([predicted], truth) >= threshold).any())


def scaled(rle: Rle, height: int, width: int) -> Rle:
    """The mask at another size, as `masks.resize` makes it, but only where the mask is: several times faster.

    Pillow takes the part's position in single precision, so a pixel that lies on the very threshold may
    come out on the other side of it: some 0.1% of a mask at most.
    """
    box, (down, across) = masks.box(rle), (rle.height / height, rle.width / width)  # old pixels a new one
    if box.area == 0:
        return masks.encode(np.zeros((height, width), dtype=np.bool_))
    columns = _span(box.x0, box.x1, across, width)
    rows = _span(box.y0, box.y1, down, height)
    left, right = _span(columns[0] * across - across, columns[1] * across + across, 1.0, rle.width)
    top, bottom = _span(rows[0] * down - down, rows[1] * down + down, 1.0, rle.height)
    part = Image.fromarray(masks.decode(rle)[top:bottom, left:right].astype(np.uint8) * 255)
    source = (
        *(columns[0] * across - left, rows[0] * down - top),
        *(min(columns[1] * across - left, right - left), min(rows[1] * down - top, bottom - top)),
    )
    size = columns[1] - columns[0], rows[1] - rows[0]
    drawn = np.zeros((height, width), dtype=np.bool_, order="F")  # the order of run lengths
    cut = np.asarray(part.resize(size, Image.Resampling.BILINEAR, source)) >= 128
    drawn[rows[0] : rows[1], columns[0] : columns[1]] = cut
    return masks.encode(drawn)


def _span(low: float, high: float, step: float, end: int) -> tuple[int, int]:
    """Pixels of `step` each that cover low..high and what a bilinear filter reaches beyond, in 0..end."""
    reach = max(1.0, step)
    return max(0, math.floor((low - reach) / step)), min(end, math.ceil((high + reach) / step))


def average_precision(hits: NDArray[np.bool_], relevant: int, depth: int = DEPTH) -> AveragePrecision:
    """The average precision of one ranked list.

    Args:
        hits: (n,) rel(i) by rank; ranks beyond `depth` do not count, missing ones are misses.
        relevant: R, the relevant images of the whole data set.

    Raises:
        ValueError: nothing is relevant (such a query has no average precision), or less than is hit.
    """
    counted = np.asarray(hits[:depth], np.float64)
    found = int(counted.sum())
    if relevant < max(1, found):
        raise ValueError(f"{found} hits of {relevant} relevant images")
    precision = np.cumsum(counted) / np.arange(1, counted.size + 1)
    total = float(precision @ counted)
    return AveragePrecision(total / min(depth, relevant), total / found if found else 0.0)


def summarise(values: Sequence[AveragePrecision], *, seed: int = 0) -> Summary:
    """The means over queries, with percentile bootstrap intervals (Efron 1979) over the choice of queries.

    Raises:
        ValueError: there is no query.
    """
    if not values:
        raise ValueError("no query with a relevant image")
    table = np.array([(value.by_relevant, value.by_hits) for value in values])
    drawn = np.random.default_rng(seed).integers(0, len(table), (SAMPLES, len(table)))
    tails = 50 * (1 - LEVEL), 50 * (1 + LEVEL)
    low, high = np.percentile(table[drawn].mean(axis=1), tails, axis=0)  # (2,) each
    by_relevant, by_hits = table.mean(axis=0)
    return Summary(
        float(by_relevant),
        float(by_hits),
        Interval(float(low[0]), float(high[0])),
        Interval(float(low[1]), float(high[1])),
        len(table),
    )
