"""Stage 1: photos ranked by their best region (eq. 1).

sqlite-vec's cosine over the plain table of int8 vectors decides; near ties are settled by the query
in full precision. The rows to score are found from sign codes, which give an estimate of the cosine
whose error has a known distribution: rows are scored from the best estimate down until none that is
left is likely to reach the photos found so far (`upper_bounds.DEVIATIONS`: one photo in thousands is
missed). How many rows that takes depends on the query and the gallery, not on a setting.
"""

from __future__ import annotations

import json
from dataclasses import dataclass

import apsw
import numpy as np
from numpy.typing import NDArray

from matir_cli.errors import GalleryDamaged
from matir_cli.gallery.database import GalleryFile
from matir_cli.records import Candidate, FloatArray
from matir_cli.search.filters import Filters
from matir_cli.search.index import RUN, read_runs, stored_vectors
from matir_cli.search.quantisation import cosines, quantise, rounding_error
from matir_cli.search.sign_codes import SignCodes, sign_queries
from matir_cli.search.upper_bounds import UpperBounds, compare_blocks

SCORED_AT_ONCE = 4096
"""Regions handed to one statement; more only when so many are left that the count doubles."""

FIRST_PHOTOS = 2
"""Photos scored for a first floor, as a multiple of those asked for."""

SAMPLE = 1024
"""Regions that `spreads` looks at: a standard deviation of that many is right to about 2%."""

_SCORED = np.dtype([("region", np.int64), ("photo", np.int64), ("score", np.float64)])

ScoredArray = NDArray[np.void]
"""(n,) of `_SCORED`: region id, photo id, cosine."""


# Searching
def rank_photos(
    gallery: GalleryFile, query: FloatArray, limit: int, within: Filters | None = None
) -> list[Candidate]:
    """The `limit` best photos by the largest cosine of their regions with `query` (eq. 1), best first.

    Equal scores: the lower photo id first; within a photo, the lower region id.

    Args:
        query: (d,) float32, any length but zero.
        within: photos and regions that do not count are as if they were not there.

    Raises:
        GalleryDamaged: the index does not hold what it must.
    """
    with gallery.connection:  # one state of the file for all that is read
        scoring = _Scoring.of(gallery, query, within)
        scored = scoring.loose()
        index = _read_index(gallery, query)
        if scoring.photos is not None:
            index.leave_out_all_but(scoring.photos)
        scored = _score_promising(scoring, index, scored, limit)
        scored = _score_closely(gallery, query, scored, limit)
    scored = scored[np.lexsort([scored["region"], -scored["score"], scored["photo"]])]
    best = scored[np.flatnonzero(np.diff(scored["photo"], prepend=-1))]
    best = best[np.lexsort([best["photo"], -best["score"]])][:limit]
    return [Candidate(photo, region, score) for region, photo, score in best.tolist()]


def score_spreads(gallery: GalleryFile, queries: FloatArray) -> NDArray[np.float64]:
    """(k,) how far the cosines of each of (k, d) queries with the gallery's regions lie apart.

    Their standard deviation, over regions taken evenly from the whole gallery.
    """
    db = gallery.connection
    # Two statements: each is one look at an end of the table, where both in one would read all of it.
    low = db.execute("select min(region_id) from vectors").get
    high = db.execute("select max(region_id) from vectors").get
    if low is None:
        return np.zeros(len(queries))
    wanted = np.unique(np.linspace(low, high, SAMPLE).astype(np.int64))
    rows = db.execute(
        "select (select region_id from vectors where region_id >= value order by region_id limit 1) "
        "from json_each(?)",
        (json.dumps(wanted.tolist()),),
    )
    regions = np.fromiter((row[0] for row in rows), np.int64)
    stored = stored_vectors(gallery, regions, queries.shape[1])
    return np.array([cosines(stored, query).std() for query in queries])


@dataclass(frozen=True, slots=True)
class _Scoring:
    """Exact scores of a query, the query rounded to int8; of regions that count, and of no others."""

    gallery: GalleryFile
    asked: bytes
    """The query, quantised."""
    within: Filters | None
    photos: NDArray[np.int64] | None
    """The ids of the photos that count, ascending; None: all."""

    @classmethod
    def of(cls, gallery: GalleryFile, query: FloatArray, within: Filters | None) -> _Scoring:
        asked = quantise(query[np.newaxis]).tobytes()
        return cls(gallery, asked, within, None if within is None else within.photos(gallery))

    def loose(self) -> ScoredArray:
        """Of the loose photos' regions."""
        if self.within is not None:
            rows = self.gallery.connection.execute("select id from loose cross join regions using (photo_id)")
            return self.regions(np.fromiter((row[0] for row in rows), np.int64))
        return self._collect(
            "select region_id, vectors.photo_id, 1.0 - vec_distance_cosine(vec_int8(vector), vec_int8(?)) "
            "from loose cross join regions on regions.photo_id = loose.photo_id "
            "cross join vectors on region_id = regions.id",
            (self.asked,),
        )

    def regions(self, regions: NDArray[np.int64]) -> ScoredArray:
        """Of those of the regions that are still there, in no particular order."""
        if self.within is not None:
            regions = self.within.regions(self.gallery, regions)
        return self._collect(
            "select region_id, photo_id, 1.0 - vec_distance_cosine(vec_int8(vector), vec_int8(?)) "
            "from json_each(?) cross join vectors on region_id = value",
            (self.asked, json.dumps(np.sort(regions).tolist())),
        )

    def _collect(self, select: str, bindings: tuple[apsw.SQLiteValue, ...]) -> ScoredArray:
        try:
            scored = np.fromiter(self.gallery.connection.execute(select, bindings), _SCORED)
        except (TypeError, ValueError) as error:
            raise GalleryDamaged(self.gallery.path, f"a vector's photo: {error}") from error
        if np.isnan(scored["score"]).any():
            raise GalleryDamaged(self.gallery.path, "a stored vector is all zeros")
        if self.photos is None:
            return scored
        # An id in the index may belong to another photo by now than it did when the codes were made.
        return scored[np.isin(scored["photo"], self.photos)]


def _read_index(gallery: GalleryFile, query: FloatArray) -> UpperBounds:
    """How well each region in a block may do at most."""
    ids, counts, runs, centres = [], [], [], []
    blocks = gallery.connection.execute("select id, octet_length(codes), runs, centre from blocks")
    for block_id, size, blob, centre in blocks:
        if not isinstance(centre, bytes) or len(centre) != 4 * query.size:
            raise GalleryDamaged(gallery.path, "a block's centre has an impossible length")
        runs.append(read_runs(gallery, blob))
        counts.append(int(runs[-1]["count"].sum()))
        if size != SignCodes.size(counts[-1], query.size):
            raise GalleryDamaged(gallery.path, "a block's codes have an impossible length")
        ids.append(int(block_id))
        centres.append(np.frombuffer(centre, "<f4"))
    if not ids:
        return UpperBounds.of(np.zeros(0, RUN), np.zeros(0, np.float32))
    queries = sign_queries(query, np.stack(centres))
    return UpperBounds.of(np.concatenate(runs), compare_blocks(gallery, ids, counts, queries))


def _score_promising(scoring: _Scoring, index: UpperBounds, scored: ScoredArray, limit: int) -> ScoredArray:
    """`scored` and the scores of all regions whose bound reaches the `limit`-th best photo."""
    # One region of each of the best photos first: many regions of one photo cannot crowd out the others.
    chosen = index.best_of_runs(FIRST_PHOTOS * limit)
    at_once = SCORED_AT_ONCE
    upper = index.upper
    while chosen.size:
        scored = np.concatenate([scored, scoring.regions(index.regions(chosen))])
        upper[chosen] = -np.inf
        chosen = np.flatnonzero(upper > _floor(scored, limit))
        if chosen.size > at_once:
            best = np.argpartition(upper[chosen], chosen.size - at_once)
            chosen = chosen[best[chosen.size - at_once :]]
            at_once *= 2
    return scored


def _best_of_photos(scored: ScoredArray) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """For each row of `scored` the number of its photo, and for each such number the best score."""
    photos, number = np.unique(scored["photo"], return_inverse=True)
    best = np.full(photos.size, -np.inf)
    np.maximum.at(best, number, scored["score"])
    return number, best


def _floor(scored: ScoredArray, limit: int) -> float:
    """Score of the `limit`-th best photo so far; -inf while there are fewer."""
    _, best = _best_of_photos(scored)
    return float(np.partition(best, best.size - limit)[best.size - limit]) if best.size >= limit else -np.inf


def _score_closely(gallery: GalleryFile, query: FloatArray, scored: ScoredArray, limit: int) -> ScoredArray:
    """The regions that may be the best of the best photos, scored again by the query as it was asked.

    In the file the query was rounded to int8, which may have put near ties in the wrong order.
    """
    number, best = _best_of_photos(scored)
    margin = 6.0 * rounding_error(query)
    least = np.maximum(best, _floor(scored, limit)) - margin
    close = scored[scored["score"] >= least[number]]
    for start in range(0, close.size, SCORED_AT_ONCE):
        part = close[start : start + SCORED_AT_ONCE]
        part["score"] = cosines(stored_vectors(gallery, part["region"], query.size), query)
    return close
