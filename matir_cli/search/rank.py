"""Stage 1: ranking photos by their best region (eq. 1).

Three passes, each over fewer regions than the one before:

1. Codes give an upper bound on each region's cosine with the query (`upper_bounds`).
2. sqlite-vec computes the cosines of the stored int8 vectors with the query rounded to int8, from the highest
   bound down, until no remaining bound reaches the `limit`-th best photo so far.
3. Regions that may be the best of one of the best photos are scored again with the vectors at 12 bits and the
   query at 16, since rounding to int8 misorders near ties.

The bounds hold with high probability, not with certainty (`upper_bounds.DEVIATIONS`): one photo in
thousands is missed. The number of regions scored depends on the query and the gallery, not on a setting.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any

import apsw
import numpy as np
from numpy.typing import NDArray

from matir_cli.errors import GalleryDamaged
from matir_cli.gallery.database import GalleryFile
from matir_cli.gallery.union import GalleryReader, Member, map_members
from matir_cli.records import Candidate, FloatArray
from matir_cli.search.dislike import Dislike
from matir_cli.search.filters import Filters
from matir_cli.search.quantisation import quantise, rounding_error
from matir_cli.search.upper_bounds import UpperBounds, upper_bounds
from matir_cli.search.vectors import exact_cosines

SCORED_AT_ONCE = 4096
"""Regions scored in one statement at first; the number doubles each time that more are left."""

FIRST_PHOTOS = 2
"""Photos scored first, as a multiple of `limit`: the score of the `limit`-th is the first threshold."""

FEW_PHOTOS = 20
SCAN_SHARE = 128
"""All regions of the photos that pass the filters are scored if these are at most so many, or one in so many
of all photos: that costs no more than to compare the codes of all."""

MANY_SHARE = 8
"""Where more than one in so many regions of the index may be among the best, their vectors are read in the
order of the file: no query takes much longer than to compare all codes and to read all vectors."""

REGIONS_AT_ONCE = 16_384
"""Regions scored in the order of the file at once."""

_SCORED = np.dtype([("region", np.int64), ("photo", np.int64), ("score", np.float64)])

ScoredArray = NDArray[np.void]
"""(n,) of `_SCORED`: region id, photo id, cosine."""


def rank_photos(
    gallery: GalleryReader,
    query: FloatArray,
    limit: int,
    filters: Filters | None = None,
    *,
    handicap: float = 0.0,
    unlike: Dislike | None = None,
) -> list[Candidate]:
    """Return the `limit` best photos by the largest score of their regions, best first (eq. 1).

    A region's score is its cosine with `query`; with several vectors, the best of its inner products with
    these, on the scale of the cosine with the longest. Ties go to the lower photo id; within a photo, to a
    region that a person has drawn or confirmed, then to the lower region id.

    Args:
        query: (d,) or (k, d) float32 of any length but zero, in the space of the region vectors.
        filters: photos and regions that do not pass are treated as if they did not exist.
        handicap: amount, 0 or more, that is subtracted from the score of a region that is the whole photo.
        unlike: bad examples, which lower the scores of regions that are nearer to them.

    Raises:
        GalleryDamaged: vectors or blocks are malformed.
    """
    return rank_queries(gallery, [RankQuery(query, limit, filters, handicap, unlike)])[0]


@dataclass(frozen=True, slots=True)
class RankQuery:
    """One of the queries that `rank_queries` answers; see `rank_photos`."""

    vectors: FloatArray
    """(d,) or (k, d)."""
    limit: int
    filters: Filters | None = None
    handicap: float = 0.0
    unlike: Dislike | None = None

    def rows(self) -> Iterator[tuple[_RowQuery, float]]:
        """Yield a query for each vector, with the factor that brings its cosines to the scale of all."""
        vectors = np.atleast_2d(self.vectors)
        lengths = np.linalg.norm(vectors, axis=1)
        for vector, scale in zip(vectors, (lengths / lengths.max()).tolist(), strict=True):
            # What bad examples leave of a score grows with it, so the best row remains the best.
            unlike = None if self.unlike is None else self.unlike.scaled(1.0 / scale)
            yield _RowQuery(vector, self.limit, self.filters, self.handicap / scale, unlike), scale


@dataclass(frozen=True, slots=True)
class _RowQuery:
    """A query of one vector."""

    vector: FloatArray
    """(d,)"""
    limit: int
    filters: Filters | None
    handicap: float
    unlike: Dislike | None


def rank_queries(gallery: GalleryReader, queries: Sequence[RankQuery]) -> list[list[Candidate]]:
    """Return what `rank_photos` does for each of the queries.

    One pass over the codes serves as many vectors as `upper_bounds.vectors_at_once` says.
    """
    rows = [[*query.rows()] for query in queries]
    every = [row for each in rows for row, _ in each]
    with gallery.snapshot():  # all reads must see the same state of the file
        found = map_members(gallery, lambda member: _rank_rows(member, every))
    rankings = (_join(each, row.limit) for row, *each in zip(every, *found, strict=True))
    return [
        _merge([(next(rankings), scale) for _, scale in each], query.limit)
        for query, each in zip(queries, rows, strict=True)
    ]


def _join(rankings: Sequence[list[Candidate]], limit: int) -> list[Candidate]:
    """Join the rankings of different photos for one query."""
    if len(rankings) == 1:
        return rankings[0]
    return sorted(chain.from_iterable(rankings), key=lambda c: (-c.score, c.photo_id))[:limit]


def _merge(rankings: Sequence[tuple[list[Candidate], float]], limit: int) -> list[Candidate]:
    """Merge rankings, each with the factor of its scores, into the `limit` photos with the best scores.

    Photos that are among the best of all are among the `limit` best of the ranking that has their best score.
    """
    if len(rankings) == 1:
        return rankings[0][0]
    best: dict[int, Candidate] = {}
    for ranking, scale in rankings:
        for each in ranking:
            scaled = replace(each, score=each.score * scale)
            known = best.setdefault(each.photo_id, scaled)
            best[each.photo_id] = min(known, scaled, key=lambda c: (-c.score, c.region_id))
    return sorted(best.values(), key=lambda c: (-c.score, c.photo_id))[:limit]


def _rank_rows(member: Member, queries: Sequence[_RowQuery]) -> list[list[Candidate]]:
    """Rank the photos of a member for each query of one vector."""
    gallery = member.file
    passing = {
        each: member.visible(None if each is None else each.photos(gallery))
        for each in {query.filters for query in queries}
    }
    scorers = [_Scorer.of(gallery, query, passing[query.filters]) for query in queries]
    scanning = [scorer for scorer in scorers if not scorer.is_direct]
    bounds = upper_bounds(gallery, [scorer.query.vector for scorer in scanning])
    rankings = (
        scorer.rank(scorer.score_photos(), None)
        if scorer.is_direct
        else scorer.rank(scorer.score_loose(), next(bounds))
        for scorer in scorers
    )
    return [_in_union(member, ranking) for ranking in rankings]


def _in_union(member: Member, ranking: list[Candidate]) -> list[Candidate]:
    """Return candidates of a member with their ids in the union; photos added meanwhile are left out."""
    if member.own_ids is None or not ranking:
        return ranking
    photos = member.to_union(np.array([each.photo_id for each in ranking], np.int64))
    regions = member.regions_to_union(np.array([each.region_id for each in ranking], np.int64))
    numbered = zip(ranking, photos.tolist(), regions.tolist(), strict=True)
    return [
        replace(each, photo_id=photo_id, region_id=region_id)
        for each, photo_id, region_id in numbered
        if photo_id >= 0
    ]


@dataclass(frozen=True, slots=True)
class _Scorer:
    """Scores regions that pass the filters by their cosine with the query rounded to int8."""

    gallery: GalleryFile
    query: _RowQuery
    rounded: bytes
    """The query, quantised."""
    photos: NDArray[np.int64] | None
    """Ids of the photos that pass the filters, ascending; None: all photos."""
    is_direct: bool
    """True if the photos are so few that all their regions are scored, without looking at codes."""

    @classmethod
    def of(cls, gallery: GalleryFile, query: _RowQuery, photos: NDArray[np.int64] | None) -> _Scorer:
        rounded = quantise(query.vector[np.newaxis]).tobytes()
        is_direct = photos is not None and (
            photos.size <= FEW_PHOTOS or photos.size * SCAN_SHARE <= gallery.count_photos()
        )
        return cls(gallery, query, rounded, photos, is_direct)

    def rank(self, scored: ScoredArray, bounds: UpperBounds | None) -> list[Candidate]:
        """Return the best photos: of the regions that are `scored`, and of those that have bounds."""
        limit = self.query.limit
        if bounds is not None:
            if self.photos is not None:
                bounds.keep_photos(self.photos)
            scored, many = _score_promising(self, bounds, scored, limit)
        else:
            many = np.zeros(0, np.int64)
        scored = _rescore_best(self, scored, limit)
        for start in range(0, many.size, REGIONS_AT_ONCE):
            exact = self.score_exactly(many[start : start + REGIONS_AT_ONCE])
            scored = _best_regions(np.concatenate([scored, exact]))
        best = _best_regions(scored)
        best = best[np.lexsort([best["photo"], -best["score"]])][:limit]
        equal = self._equal_human_regions(best)
        return [Candidate(photo, equal.get(photo, region), score) for region, photo, score in best.tolist()]

    def _equal_human_regions(self, best: ScoredArray) -> dict[int, int]:
        """Return, by photo, the region that a person has given and that scores as its best one does."""
        photos = json.dumps(best["photo"].tolist())
        rows = self.gallery.connection.execute(_HUMAN_REGIONS, (photos,))
        regions = np.fromiter((row[0] for row in rows), np.int64)
        if not regions.size:
            return {}
        scored = self.score(regions)
        _set_exact_scores(self, scored)
        scores = dict(zip(best["photo"].tolist(), best["score"].tolist(), strict=True))
        found = scored[np.argsort(-scored["region"])].tolist()
        return {photo: region for region, photo, score in found if scores[photo] == score}

    def score_photos(self) -> ScoredArray:
        """Score the regions of the photos that pass the filters."""
        photos = json.dumps([] if self.photos is None else self.photos.tolist())
        rows = self.gallery.connection.execute(
            "select regions.id from json_each(?) cross join regions on photo_id = value", (photos,)
        )
        return self.score(np.fromiter((row[0] for row in rows), np.int64))

    def score_loose(self) -> ScoredArray:
        """Score the regions of loose photos."""
        # A gallery of an older version that cannot be written has its photos in an index of sign codes, which
        # this version does not read.
        is_old = self.gallery.connection.execute("select exists(select 1 from blocks)").get
        source = "(select id as photo_id from photos)" if is_old else "loose"
        if self.query.filters is not None:
            rows = self.gallery.connection.execute(
                f"select id from {source} cross join regions using (photo_id)"  # noqa: S608 - constants
            )
            return self.score(np.fromiter((row[0] for row in rows), np.int64))
        return self._collect(
            "select region_id, vectors.photo_id, 1.0 - vec_distance_cosine(vec_int8(vector), vec_int8(?)) "  # noqa: S608
            f"from {source} as loose cross join regions on regions.photo_id = loose.photo_id "
            "cross join vectors on region_id = regions.id",
            (self.rounded,),
        )

    def score(self, regions: NDArray[np.int64]) -> ScoredArray:
        """Score those of the (n,) region ids that still exist, in no particular order."""
        if self.query.filters is not None:
            regions = self.query.filters.regions(self.gallery, regions)
        return self._collect(
            "select region_id, photo_id, 1.0 - vec_distance_cosine(vec_int8(vector), vec_int8(?)) "
            "from json_each(?) cross join vectors on region_id = value",
            (self.rounded, json.dumps(np.sort(regions).tolist())),
        )

    def score_exactly(self, regions: NDArray[np.int64]) -> ScoredArray:
        """Score those of the (n,) region ids that still exist as exactly as possible, as `score` does."""
        if self.query.filters is not None:
            regions = self.query.filters.regions(self.gallery, regions)
        rows = self.gallery.connection.execute(
            "select region_id, photo_id, 0.0 from json_each(?) cross join vectors on region_id = value",
            (json.dumps(regions.tolist()),),
        )
        scored = self._select(rows)
        _set_exact_scores(self, scored)
        return scored

    def _collect(self, select: str, bindings: tuple[apsw.SQLiteValue, ...]) -> ScoredArray:
        scored = self._select(self.gallery.connection.execute(select, bindings))
        if np.isnan(scored["score"]).any():
            raise GalleryDamaged(self.gallery.path, "a stored vector is all zeros")
        self.lower(scored)
        return scored

    def _select(self, rows: Iterable[Any]) -> ScoredArray:
        """Return the rows of photos that pass the filters."""
        try:
            scored = np.fromiter(rows, _SCORED)
        except (TypeError, ValueError, OverflowError) as error:
            raise GalleryDamaged(self.gallery.path, f"a vector's photo: {error}") from error
        if self.photos is None:
            return scored
        # A region id in the index may belong to another photo now than when the codes were made.
        return scored[np.isin(scored["photo"], self.photos)]

    def lower(self, scored: ScoredArray) -> None:
        """Subtract from the scores, in place, what bad examples take, and `handicap` from whole photos.

        Where no other region was found, the whole photo is all there is, and loses nothing.
        """
        if self.query.unlike is not None:
            scored["score"] = self.query.unlike.lower(self.gallery, scored["region"], scored["score"])
        if self.query.handicap:
            photos = json.dumps([*{*scored["photo"].tolist()}])
            rows = self.gallery.connection.execute(_WHOLE_PHOTOS, (photos,))
            whole = np.fromiter((row[0] for row in rows), np.int64)
            scored["score"][np.isin(scored["region"], whole)] -= self.query.handicap


_HUMAN_REGIONS = (
    "select regions.id from json_each(?) cross join regions on photo_id = value and ordinal > 0 "
    "cross join region_origins on region_id = regions.id "
    "where origin = 'human' and exists (select 1 from region_origins)"
)

_WHOLE_PHOTOS = (
    "select regions.id from json_each(?) cross join regions on photo_id = value and ordinal = 0 "
    "where exists (select 1 from regions as others where others.photo_id = value and others.ordinal > 0)"
)


def _score_promising(
    scorer: _Scorer, bounds: UpperBounds, scored: ScoredArray, limit: int
) -> tuple[ScoredArray, NDArray[np.int64]]:
    """Add to `scored` the scores of all regions whose bound exceeds the `limit`-th best photo's score.

    Returns:
        What is scored, and the ids of these regions, in the order of the file, where they are so many that to
        read them in this order and at once exactly costs less. They are not scored.
    """
    # One region of each promising photo first, so that many regions of one photo cannot crowd out the others.
    chosen = bounds.best_of_runs(FIRST_PHOTOS * limit)
    at_once = SCORED_AT_ONCE
    upper = bounds.upper
    while chosen.size:
        scored = np.concatenate([scored, scorer.score(bounds.region_ids(chosen))])
        upper[chosen] = -np.inf
        chosen = np.flatnonzero(upper > _threshold(scored, limit))
        if chosen.size * MANY_SHARE > upper.size:
            return scored, np.sort(bounds.region_ids(chosen))
        if chosen.size > at_once:
            best = np.argpartition(upper[chosen], chosen.size - at_once)
            chosen = chosen[best[chosen.size - at_once :]]
            at_once *= 2
    return scored, chosen


def _best_regions(scored: ScoredArray) -> ScoredArray:
    """Return each photo's best region, of equal ones the one with the lowest id."""
    scored = scored[np.lexsort([scored["region"], -scored["score"], scored["photo"]])]
    return scored[np.flatnonzero(np.diff(scored["photo"], prepend=-1))]


def _best_of_photos(scored: ScoredArray) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Return (n,) the index of each row's photo among the p distinct photos, and (p,) their best scores."""
    photos, number = np.unique(scored["photo"], return_inverse=True)
    best = np.full(photos.size, -np.inf)
    np.maximum.at(best, number, scored["score"])
    return number, best


def _threshold(scored: ScoredArray, limit: int) -> float:
    """Return the score of the `limit`-th best photo so far; -inf while there are fewer photos."""
    _, best = _best_of_photos(scored)
    return float(np.partition(best, best.size - limit)[best.size - limit]) if best.size >= limit else -np.inf


def _rescore_best(scorer: _Scorer, scored: ScoredArray, limit: int) -> ScoredArray:
    """Return the regions that may be the best of one of the best photos, scored as exactly as possible.

    `scored` was computed with query and vectors rounded to int8, which may have misordered near ties.
    """
    query = scorer.query.vector
    number, best = _best_of_photos(scored)
    margin = 6.0 * rounding_error(query.size)
    if scorer.query.unlike is not None:  # an error is larger where a bad example is nearer
        margin *= 1.0 + scorer.query.unlike.weight
    least = np.maximum(best, _threshold(scored, limit)) - margin
    close = scored[scored["score"] >= least[number]]
    _set_exact_scores(scorer, close)
    return close


def _set_exact_scores(scorer: _Scorer, scored: ScoredArray) -> None:
    """Set the scores of regions, in place, with vectors at 12 bits and the query at 16."""
    vector = scorer.query.vector[np.newaxis]
    scored["score"] = exact_cosines(scorer.gallery, scored["region"], vector)[0]
    scorer.lower(scored)
