"""Which photo the judge is asked about next, and when enough is known: adaptive reranking.

The judge is slow, so it is not asked about photos whose answer is foreseeable. After each few verdicts, the
chance that it says True of an unjudged candidate is estimated from stage 1's score and the verdicts so far:

    P(True | score)  =  sigmoid(a + b z)        z: the score, standardised over the candidates

a Bayesian logistic regression with a normal prior on a and b (MacKay, "The evidence framework applied to
classification networks", 1992). Photos are ranked by the judge's margin zTrue - zFalse, and unjudged ones by
the estimate of it, log(P / (1 - P)). An unjudged photo is misplaced with the chance min(P, 1 - P), if it
matters: if fewer than about `limit` photos before it show the object. Judging ends when

    the expected number of misplaced photos  <  (1 - certainty) x the expected number found among the first

and every one of the first places has a verdict. Until then, the photos likeliest to show the object are
asked about. All functions are deterministic, and pure functions of arrays.

`next_photos` and `rank_estimated` are used while judging; `replay` runs both over verdicts that are all known
already, as an evaluation does.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

CERTAINTY = 0.65
"""Default certainty, chosen on the validation split of the drawn world."""

FIRST_PLACES = 10
"""Places that have a verdict at the end, however certain the estimate is."""

BATCH = 4
"""Photos asked about before the estimate is made anew."""

SLACK = 1.5
"""A photo matters while fewer than this multiple of `limit` photos before it show the object: the order among
these is the judge's, so that a later one may come before an earlier one."""

PRIOR_MEAN = np.array([-0.7, 1.8])
"""Mean of a and b over the queries of the validation split of the drawn world."""

PRIOR_COVARIANCE = np.array([[4.4, -1.5], [-1.5, 1.0]])
"""Half of their covariance over these queries, since the rest is noise of single fits: queries differ in how
many photos answer them."""

NEWTON_STEPS = 20
"""Steps of Newton's method for the regression; it ends earlier when the steps become small."""

Floats = NDArray[np.float64]
Indices = NDArray[np.intp]


def next_photos(
    scores: Floats,
    margins: Floats,
    limit: int,
    certainty: float,
    *,
    refused: NDArray[np.bool_] | None = None,
    first_places: int = FIRST_PLACES,
    bonus: Floats | None = None,
) -> Indices:
    """Return which candidates to ask the judge about next.

    Args:
        scores: (n,) stage-1 scores of the candidates, best first.
        margins: (n,) zTrue - zFalse of the verdicts so far, NaN where there is none.
        limit: number of photos wanted, 1 or more.
        certainty: 0..1; 1 asks about all candidates.
        refused: (n,) True for candidates that the judge has no answer for; they are not asked about again.
        first_places: number of places that must have a verdict, at most `limit` of them.
        bonus: (n,) what is added to margins, given or estimated, before they are compared; None: nothing.

    Returns:
        (k,) indices of candidates without a verdict, most wanted first; empty if enough is known.
    """
    is_open = np.isnan(margins) if refused is None else np.isnan(margins) & ~refused
    waiting = np.flatnonzero(is_open)
    if not waiting.size:
        return waiting
    if certainty >= 1:
        return waiting[:BATCH]
    chances = estimate_chances(scores, margins)
    order = _order(margins, chances, refused, bonus)
    shows = np.where(np.isnan(margins), chances, margins > 0)[order]
    # The number of photos before each place that show the object, as a normal distribution.
    before = np.cumsum(shows) - shows
    variance = np.cumsum(shows * (1 - shows)) - shows * (1 - shows)
    matters = np.empty(scores.size)
    matters[order] = _normal_cdf((SLACK * limit - 0.5 - before) / np.sqrt(np.maximum(variance, 1e-9)))
    leading = order[: min(first_places, limit)]
    urgent = leading[is_open[leading]]
    misplaced = float((np.minimum(chances, 1 - chances) * matters)[waiting].sum())
    if not urgent.size and misplaced < (1 - certainty) * max(1.0, float(shows[:limit].sum())):
        return urgent
    wanted = waiting[np.argsort(-(chances * matters)[waiting], kind="stable")]
    return np.concatenate([urgent, wanted[~np.isin(wanted, urgent)]])[:BATCH]


def rank_estimated(
    scores: Floats,
    margins: Floats,
    *,
    refused: NDArray[np.bool_] | None = None,
    bonus: Floats | None = None,
) -> Indices:
    """Rank the candidates by the judge's margin, or its estimate where there is none; ties in stage-1 order.

    Args:
        scores, margins, refused, bonus: as for `next_photos`. Candidates that the judge refused come last.

    Returns:
        (n,) indices of all candidates, best first.
    """
    return _order(margins, estimate_chances(scores, margins), refused, bonus)


def estimate_chances(scores: Floats, margins: Floats) -> Floats:
    """Return (n,) the chance that the judge says True of each candidate, strictly between 0 and 1."""
    if not scores.size:
        return np.zeros(0)
    spread = float(scores.std())
    standardised = (scores - scores.mean()) / spread if spread > 0 else np.zeros(scores.size)
    features = np.stack([np.ones(scores.size), standardised], axis=1)
    judged = ~np.isnan(margins)
    weights, covariance = _fit(features[judged], margins[judged] > 0)
    logits = features @ weights
    variance = np.einsum("ij,jk,ik->i", features, covariance, features)
    # The mean of a sigmoid over a normal distribution (MacKay 1992, eq. 10).
    return np.clip(_sigmoid(logits / np.sqrt(1 + np.pi * variance / 8)), 1e-6, 1 - 1e-6)


def _fit(features: Floats, labels: NDArray[np.bool_]) -> tuple[Floats, Floats]:
    """Return the most probable (2,) weights and their (2, 2) covariance (Laplace's approximation)."""
    precision = np.linalg.inv(PRIOR_COVARIANCE)
    weights = PRIOR_MEAN.copy()
    for _ in range(NEWTON_STEPS):
        chances = _sigmoid(features @ weights)
        gradient = features.T @ (labels - chances) - precision @ (weights - PRIOR_MEAN)
        curvature = (features.T * (chances * (1 - chances))) @ features + precision
        step = np.linalg.solve(curvature, gradient)
        weights = weights + step
        if np.abs(step).max() < 1e-9:
            break
    return weights, np.asarray(np.linalg.inv(curvature), np.float64)


def _order(
    margins: Floats, chances: Floats, refused: NDArray[np.bool_] | None, bonus: Floats | None
) -> Indices:
    keys = np.where(np.isnan(margins), np.log(chances / (1 - chances)), margins)
    if bonus is not None:
        keys = keys + bonus
    if refused is not None:
        keys = np.where(refused, -np.inf, keys)
    return np.argsort(-keys, kind="stable")


def _sigmoid(values: Floats) -> Floats:
    return np.asarray(0.5 * (1 + np.tanh(values / 2)))


def _normal_cdf(values: Floats) -> Floats:
    return np.array([0.5 * math.erfc(-value / math.sqrt(2)) for value in values.tolist()])


@dataclass(frozen=True, slots=True)
class Replay:
    """What judging with early stopping would have done."""

    ranking: Indices
    """(n,) indices of all candidates, best first."""
    asked: Indices
    """(m,) indices of the candidates that the judge is asked about, in this order."""


def replay(
    scores: Floats,
    margins: Floats,
    limit: int,
    certainty: float = CERTAINTY,
    *,
    bonus: Floats | None = None,
) -> Replay:
    """Judge the candidates with early stopping, where all verdicts are known already.

    Args:
        scores: (n,) stage-1 scores of the candidates, best first.
        margins: (n,) zTrue - zFalse of each, NaN where the judge has no answer.
        limit: number of photos wanted, 1 or more: in an evaluation, the ranks that count.
        certainty: 0..1; 1 asks about all candidates.
        bonus: as for `next_photos`.
    """
    known = np.full(scores.size, np.nan)
    refused = np.zeros(scores.size, np.bool_)
    asked: list[Indices] = []
    while (batch := next_photos(scores, known, limit, certainty, refused=refused, bonus=bonus)).size:
        asked.append(batch)
        known[batch] = margins[batch]
        refused[batch] = np.isnan(margins[batch])
    ranking = rank_estimated(scores, known, refused=refused, bonus=bonus)
    return Replay(ranking, np.concatenate([np.zeros(0, np.intp), *asked]))
