"""Stage 1: the photos whose best region is nearest to a query (eq. 1), and the index that makes it quick.

Every region's vector lies in `vectors` as int8, and sqlite-vec's cosine over that plain table
decides; near ties are settled by the query in full. Which rows it has to look at is found from
sign codes, kept apart in `blocks`: one bit a dimension, column-wise, so that a million of them are
read and compared in a few hundredths of a second. A code gives an estimate of the cosine whose
error has a known distribution; so rows are scored from the best estimate down until none that is
left is likely to reach the photos found so far (`bounds.DEVIATIONS`: one photo in thousands is missed).
How many that takes depends on the query and the gallery, not on a setting.

`blocks` is derived and need not be complete. Photos that are in no block yet are `loose` and are
all scored. Codes of regions that are gone stay in their block and find no row. So any state
between two writes, with any number of writers, gives the answer; `seal` makes it a fast one.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter

import apsw
import numpy as np
from numpy.typing import NDArray

from matir_cli import bounds, vectors
from matir_cli.bounds import Bounds
from matir_cli.errors import GalleryDamaged
from matir_cli.gallery import GalleryFile
from matir_cli.records import Candidate, FloatArray
from matir_cli.within import Within

BLOCK_REGIONS = 16_384
"""Regions to a block: its codes, 1.5 MB at 768 dimensions, stay in a core's own cache while they are read."""

SEAL_SHARE = 8
"""Loose regions are left alone below this part of a block: scoring them all takes a few milliseconds."""

SCORED_AT_ONCE = 4096
"""Regions handed to one statement; more only when so many are left that the count doubles."""

FIRST_PHOTOS = 2
"""Photos scored for a first floor, as a multiple of those asked for."""

SAMPLE = 1024
"""Regions that `spreads` looks at: a standard deviation of that many is right to about 2%."""

_SCORED = np.dtype([("region", np.int64), ("photo", np.int64), ("score", np.float64)])
_RUN = np.dtype([("photo", "<i8"), ("first", "<i8"), ("count", "<i8")])

_MOST_IN_RUN = 2**31
"""Regions; far more than a photo has, and sums of it do not overflow."""

ScoredArray = NDArray[np.void]
"""(n,) of `_SCORED`: region id, photo id, cosine."""


# Writing


def store(gallery: GalleryFile, photo_id: int, region_ids: Sequence[int], rows: FloatArray) -> None:
    """Write the vectors of a photo's regions; the caller holds the transaction.

    Args:
        rows: (len(region_ids), d) float32, any length but zero.

    Raises:
        ValueError: a vector is not finite or all zeros, or there are not as many as regions.
    """
    store_quantised(gallery, photo_id, region_ids, vectors.quantise(rows))


def store_quantised(
    gallery: GalleryFile, photo_id: int, region_ids: Sequence[int], stored: vectors.Int8Array
) -> None:
    """As `store`, of (len(region_ids), d) vectors as `vectors.quantise` made them."""
    gallery.connection.executemany(
        "insert into vectors (region_id, photo_id, vector) values (?, ?, ?)",
        [(region, photo_id, row.tobytes()) for region, row in zip(region_ids, stored, strict=True)],
    )
    gallery.connection.execute("insert into loose (photo_id) values (?)", (photo_id,))


def seal(gallery: GalleryFile, block_regions: int = BLOCK_REGIONS) -> None:
    """Put loose photos into blocks, unless they are too few to matter; a transaction of its own.

    Blocks that are less than half full of regions that are still there are made anew with them.
    """
    if _count_loose(gallery.connection) * SEAL_SHARE < block_regions:
        return
    with gallery.atomic():
        _dissolve(gallery, block_regions)
        _make_blocks(gallery, block_regions)


def rebuild(gallery: GalleryFile, block_regions: int = BLOCK_REGIONS) -> None:
    """Make all blocks anew from the vectors alone; a transaction of its own.

    Raises:
        GalleryDamaged: a stored vector cannot be one.
    """
    db = gallery.connection
    with gallery.atomic():
        if db.execute(_IMPOSSIBLE_VECTOR).fetchone() is not None:
            raise GalleryDamaged(gallery.path, "a stored vector is all zeros or has an impossible length")
        db.execute("delete from blocks")
        db.execute("insert or ignore into loose (photo_id) select id from photos")
        if _count_loose(db) * SEAL_SHARE >= block_regions:
            _make_blocks(gallery, block_regions)


_IMPOSSIBLE_VECTOR = """
    select 1 from vectors where typeof(vector) <> 'blob' or vector = zeroblob(octet_length(vector))
    or octet_length(vector) <> (select octet_length(vector) from vectors limit 1) limit 1
"""


def _make_blocks(gallery: GalleryFile, block_regions: int) -> None:
    for regions, photos, stored in _loose_blocks(gallery.connection, block_regions):
        centre, codes = vectors.encode_signs(stored)
        gallery.connection.execute(
            "insert into blocks (runs, centre, codes) values (?, ?, ?)",
            (_runs(regions, photos).tobytes(), centre.astype("<f4").tobytes(), codes.tobytes()),
        )
    gallery.connection.execute("delete from loose")


def _count_loose(db: apsw.Connection) -> int:
    count = db.execute("select count(*) from loose cross join regions using (photo_id)").get
    return int(count)


def _dissolve(gallery: GalleryFile, block_regions: int) -> None:
    """Delete the blocks that are small or mostly of regions gone, and make their photos loose again."""
    db = gallery.connection
    for block_id, blob in db.execute("select id, runs from blocks").fetchall():
        runs = read_runs(gallery, blob)
        firsts = json.dumps(runs["first"].tolist())
        owners = db.execute(
            "select region_id, photo_id from json_each(?) cross join vectors on region_id = value", (firsts,)
        )
        there = set(owners.fetchall())
        alive = [run for run in runs.tolist() if (run[1], run[0]) in there]
        if 2 * sum(count for _, _, count in alive) >= block_regions:
            continue
        db.execute("delete from blocks where id = ?", (block_id,))
        db.executemany("insert or ignore into loose (photo_id) values (?)", {(run[0],) for run in alive})


def _loose_blocks(
    db: apsw.Connection, block_regions: int
) -> Iterator[tuple[list[int], list[int], vectors.Int8Array]]:
    """Region ids, photo ids and vectors of the loose photos, whole photos, a block at a time."""
    rows = db.execute(
        "select region_id, loose.photo_id, vector from loose "
        "cross join regions on regions.photo_id = loose.photo_id "
        "cross join vectors on region_id = regions.id "
        "order by loose.photo_id, ordinal"
    )
    block: list[tuple[int, int, bytes]] = []
    for _, photo in groupby(rows, itemgetter(1)):
        regions = list(photo)
        if block and len(block) + len(regions) > block_regions:
            yield _columns(block)
            block = []
        block += regions
    if block:
        yield _columns(block)


def _columns(rows: list[tuple[int, int, bytes]]) -> tuple[list[int], list[int], vectors.Int8Array]:
    regions, photos, blobs = zip(*rows, strict=True)
    return list(regions), list(photos), np.frombuffer(b"".join(blobs), np.int8).reshape(len(rows), -1)


def _runs(regions: list[int], photos: list[int]) -> NDArray[np.void]:
    """Consecutive region ids of one photo, as (photo, first, count): in practice one run a photo."""
    ids, owners = np.array(regions), np.array(photos)
    breaks = np.flatnonzero((np.diff(ids) != 1) | (np.diff(owners) != 0)) + 1
    starts = np.concatenate([[0], breaks])
    runs = np.empty(starts.size, _RUN)
    runs["photo"], runs["first"] = owners[starts], ids[starts]
    runs["count"] = np.diff(starts, append=ids.size)
    return runs


def read_runs(gallery: GalleryFile, blob: apsw.SQLiteValue) -> NDArray[np.void]:
    """A block's runs, in order of its codes: (r,) of photo, first region, count; GalleryDamaged otherwise."""
    if not isinstance(blob, bytes) or not blob or len(blob) % _RUN.itemsize:
        raise GalleryDamaged(gallery.path, "a block's list of photos has an impossible length")
    runs = np.frombuffer(blob, _RUN)
    if runs["count"].min() < 1 or runs["count"].max() > _MOST_IN_RUN:
        raise GalleryDamaged(gallery.path, "a block counts an impossible number of regions")
    return runs


# Searching


def rank(
    gallery: GalleryFile, query: FloatArray, limit: int, within: Within | None = None
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


def spreads(gallery: GalleryFile, queries: FloatArray) -> NDArray[np.float64]:
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
    stored = _stored(gallery, regions, queries.shape[1])
    return np.array([vectors.cosines(stored, query).std() for query in queries])


def vector(gallery: GalleryFile, region_id: int) -> FloatArray:
    """(d,) float32 of unit length: a region's vector, as near as eight bits keep it.

    Raises:
        GalleryDamaged: there is none for this region, or it is no vector.
    """
    row = gallery.connection.execute(
        "select vector from vectors where region_id = ?", (region_id,)
    ).fetchone()
    if row is None or not isinstance(row[0], bytes) or not any(row[0]):
        raise GalleryDamaged(gallery.path, f"region {region_id} has no vector")
    (restored,) = vectors.restore(np.frombuffer(row[0], np.int8)[np.newaxis])
    return np.asarray(restored)


@dataclass(frozen=True, slots=True)
class _Scoring:
    """Exact scores of a query, the query rounded to int8; of regions that count, and of no others."""

    gallery: GalleryFile
    asked: bytes
    """The query, quantised."""
    within: Within | None
    photos: NDArray[np.int64] | None
    """The ids of the photos that count, ascending; None: all."""

    @classmethod
    def of(cls, gallery: GalleryFile, query: FloatArray, within: Within | None) -> _Scoring:
        asked = vectors.quantise(query[np.newaxis]).tobytes()
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


def _read_index(gallery: GalleryFile, query: FloatArray) -> Bounds:
    """How well each region in a block may do at most."""
    ids, counts, runs, centres = [], [], [], []
    blocks = gallery.connection.execute("select id, octet_length(codes), runs, centre from blocks")
    for block_id, size, blob, centre in blocks:
        if not isinstance(centre, bytes) or len(centre) != 4 * query.size:
            raise GalleryDamaged(gallery.path, "a block's centre has an impossible length")
        runs.append(read_runs(gallery, blob))
        counts.append(int(runs[-1]["count"].sum()))
        if size != vectors.SignCodes.size(counts[-1], query.size):
            raise GalleryDamaged(gallery.path, "a block's codes have an impossible length")
        ids.append(int(block_id))
        centres.append(np.frombuffer(centre, "<f4"))
    if not ids:
        return Bounds.of(np.zeros(0, _RUN), np.zeros(0, np.float32))
    queries = vectors.sign_queries(query, np.stack(centres))
    return Bounds.of(np.concatenate(runs), bounds.compare(gallery, ids, counts, queries))


def _score_promising(scoring: _Scoring, index: Bounds, scored: ScoredArray, limit: int) -> ScoredArray:
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
    margin = 6.0 * vectors.rounding_error(query)
    least = np.maximum(best, _floor(scored, limit)) - margin
    close = scored[scored["score"] >= least[number]]
    for start in range(0, close.size, SCORED_AT_ONCE):
        part = close[start : start + SCORED_AT_ONCE]
        part["score"] = vectors.cosines(_stored(gallery, part["region"], query.size), query)
    return close


def _stored(gallery: GalleryFile, regions: NDArray[np.int64], dimensions: int) -> vectors.Int8Array:
    """(n, d) stored vectors of the regions, in their order."""
    rows = gallery.connection.execute(
        "select cast(vector as blob) from json_each(?) cross join vectors on region_id = value order by key",
        (json.dumps(regions.tolist()),),
    )
    blob = b"".join(vector for (vector,) in rows)
    if len(blob) != regions.size * dimensions:
        raise GalleryDamaged(gallery.path, "a stored vector has an impossible length")
    return np.frombuffer(blob, np.int8).reshape(-1, dimensions)
