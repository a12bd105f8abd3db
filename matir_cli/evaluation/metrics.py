"""Retrieval metrics mAP@50 and mAP@50@50, with bootstrap intervals.

The average precision of a query over its first 50 ranks is the sum of precision(i) x rel(i),
divided by a normaliser. Dividing by all R relevant images would limit the figure of a query
with thousands of them to almost zero, so two normalisers are in use, and both are computed:
min(50, R), the default, and the number of hits among the first 50. Means are over the queries that
have at least one relevant image. At object level (mAP@50@50), rel(i) also requires that the image's
one predicted mask overlaps one of its instances of the query with an IoU of at least 0.5.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from matir_cli import masks
from matir_cli.evaluation.datasets.dataset import Dataset
from matir_cli.records import Rle

DEPTH = 50
"""Number of ranks that count."""

MIN_IOU = 0.5
"""Least IoU at which a predicted mask is a hit."""

BOOTSTRAP_SAMPLES = 2000
"""Number of bootstrap samples behind an interval."""

CONFIDENCE = 0.95
"""Share of the bootstrap means that lie within an interval."""


@dataclass(frozen=True, slots=True)
class AveragePrecision:
    """Average precision of one query, 0..1, with both normalisers."""

    by_relevant: float
    """Divided by min(depth, relevant images); the default of the tables."""
    by_hits: float
    """Divided by the number of hits within the depth; 0 without hits."""


@dataclass(frozen=True, slots=True)
class Interval:
    """Confidence interval of a mean."""

    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Difference:
    """Difference of two methods' mean average precision, -1..1, divided by min(depth, relevant images)."""

    mean: float
    interval: Interval
    """Interval of the mean, over resampled queries."""


@dataclass(frozen=True, slots=True)
class Summary:
    """Mean average precision over queries, 0..1, with both normalisers."""

    mean_by_relevant: float
    mean_by_hits: float
    interval: Interval
    """Interval of `mean_by_relevant`, over resampled queries."""
    interval_by_hits: Interval
    """Interval of `mean_by_hits`, over the same samples."""
    queries: int
    """Number of queries in the mean."""


def rank_images(image_ids: ArrayLike, *scores: ArrayLike, depth: int | None = None) -> NDArray[np.int64]:
    """Sort image ids, best first: by the first of `scores`, ties by the next one, last ties by smaller id.

    Args:
        image_ids: (n,) ints.
        scores: (n,) each, compared in float64, higher is better.
        depth: number of ids to return; None for all.
    """
    ids = np.asarray(image_ids, np.int64)
    keys = [-np.asarray(values, np.float64) for values in reversed(scores)]
    return ids[np.lexsort((ids, *keys))][:depth]


def image_hits(dataset: Dataset, query_id: int, ranking: Sequence[int]) -> NDArray[np.bool_]:
    """(len(ranking),) bool: True where the image at that rank is relevant."""
    relevant = dataset.relevant_images(query_id)
    return np.fromiter((image in relevant for image in ranking), np.bool_, len(ranking))


def object_hits(
    dataset: Dataset, query_id: int, ranking: Sequence[int], predicted: Sequence[Rle | None]
) -> NDArray[np.bool_]:
    """(len(ranking),) bool: True where the image is relevant and its predicted mask matches an instance."""
    pairs = zip(ranking, predicted, strict=True)
    hits = (is_mask_hit(mask, dataset.instances(query_id, image)) for image, mask in pairs)
    return np.fromiter(hits, np.bool_, len(ranking))


def is_mask_hit(predicted: Rle | None, truth: Sequence[Rle], threshold: float = MIN_IOU) -> bool:
    """Return whether the mask has an IoU of at least `threshold` with any mask of `truth`.

    All masks of `truth` have one size, and masks are compared at that size: a mask made at working size
    is scaled to it. Run lengths that come from a file must be safe to decode (`masks.check`).
    """
    if predicted is None or not truth:
        return False
    predicted = masks.scale(predicted, truth[0].height, truth[0].width)
    return bool((masks.iou([predicted], truth) >= threshold).any())


def average_precision(hits: NDArray[np.bool_], relevant: int, depth: int = DEPTH) -> AveragePrecision:
    """Compute the average precision of one ranked list.

    Args:
        hits: (n,) rel(i) by rank; ranks beyond `depth` do not count, missing ranks are misses.
        relevant: R, the number of relevant images in the whole data set.

    Raises:
        ValueError: no image is relevant (such a query has no average precision), or fewer are than were hit.
    """
    counted = np.asarray(hits[:depth], np.float64)
    hit_count = int(counted.sum())
    if relevant < max(1, hit_count):
        raise ValueError(f"{hit_count} hits of {relevant} relevant images")
    precision = np.cumsum(counted) / np.arange(1, counted.size + 1)
    total = float(precision @ counted)
    return AveragePrecision(total / min(depth, relevant), total / hit_count if hit_count else 0.0)


def summarise(values: Sequence[AveragePrecision], *, seed: int = 0) -> Summary:
    """Compute the means over queries, with percentile bootstrap intervals (Efron 1979) over the queries.

    Raises:
        ValueError: `values` is empty.
    """
    if not values:
        raise ValueError("no query with a relevant image")
    table = np.array([(value.by_relevant, value.by_hits) for value in values])
    low, high = _bootstrap(table, seed)  # (2,) each
    by_relevant, by_hits = table.mean(axis=0)
    return Summary(
        float(by_relevant),
        float(by_hits),
        Interval(float(low[0]), float(high[0])),
        Interval(float(low[1]), float(high[1])),
        len(table),
    )


def paired_difference(
    values: Sequence[AveragePrecision], others: Sequence[AveragePrecision], *, seed: int = 0
) -> Difference:
    """Compute the mean of values less others over the same queries, with its percentile bootstrap interval.

    The differences per query are resampled, so that queries that are hard for both methods widen the
    interval less than two separate intervals would suggest.

    Args:
        values: average precision of each query.
        others: the same queries with another method.

    Raises:
        ValueError: there is no query, or the numbers of queries differ.
    """
    if not values:
        raise ValueError("no query with a relevant image")
    pairs = zip(values, others, strict=True)
    table = np.array([[value.by_relevant - other.by_relevant] for value, other in pairs])
    low, high = _bootstrap(table, seed)
    return Difference(float(table.mean()), Interval(float(low[0]), float(high[0])))


def _bootstrap(table: NDArray[np.float64], seed: int) -> NDArray[np.float64]:
    """(2, k): the low and high ends of the intervals of the means of an (n, k) table over its rows."""
    drawn = np.random.default_rng(seed).integers(0, len(table), (BOOTSTRAP_SAMPLES, len(table)))
    tails = 50 * (1 - CONFIDENCE), 50 * (1 + CONFIDENCE)
    ends: NDArray[np.float64] = np.percentile(table[drawn].mean(axis=1), tails, axis=0)
    return ends
