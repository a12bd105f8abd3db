"""Stage 1: the photos whose best region is nearest to a query (eq. 1), and the index that makes it quick.

Every region's vector lies in `vectors` as int8, and sqlite-vec's cosine over that plain table
decides; near ties are settled by the query in full. Which rows it has to look at is found from
sign codes, kept apart in `blocks`: one bit a dimension, column-wise, so that a million of them are
read and compared in a few hundredths of a second. A code gives an estimate of the cosine whose
error has a known distribution; so rows are scored from the best estimate down until none that is
left can reach the photos found so far. How many that takes depends on the query and the gallery,
not on a setting.

`blocks` is derived and need not be complete. Photos that are in no block yet are `loose` and are
all scored. Codes of regions that are gone stay in their block and find no row. So any state
between two writes, with any number of writers, gives the right answer; `seal` makes it a fast one.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter
from threading import Lock

import apsw
import numpy as np
from numpy.typing import NDArray

from matir_cli import vectors
from matir_cli.errors import GalleryDamaged
from matir_cli.gallery import GalleryFile
from matir_cli.records import Candidate, FloatArray

BLOCK_REGIONS = 16_384
"""Regions to a block: its codes, 1.5 MB at 768 dimensions, stay in a core's own cache while they are read."""

THREADS = 2
"""That compare codes. More would wait for one another: a third of the time is reading, one at a time."""

SEAL_SHARE = 8
"""Loose regions are left alone below this part of a block: scoring them all takes a few milliseconds."""

DEVIATIONS = 3.0
"""How far, in standard deviations of its error, a region's estimate may be too low and still be scored."""

SCORED_AT_ONCE = 4096
"""Regions handed to one statement; more only when so many are left that the count doubles."""

FIRST_PHOTOS = 2
"""Photos scored for a first floor, as a multiple of those asked for."""

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
    stored = vectors.quantise(rows)
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
        runs = _read_runs(gallery, blob)
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
        "select region_id, vectors.photo_id, vector from loose "
        "cross join regions on regions.photo_id = loose.photo_id "
        "cross join vectors on region_id = regions.id "
        "order by vectors.photo_id, region_id"
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


def _read_runs(gallery: GalleryFile, blob: apsw.SQLiteValue) -> NDArray[np.void]:
    if not isinstance(blob, bytes) or not blob or len(blob) % _RUN.itemsize:
        raise GalleryDamaged(gallery.path, "a block's list of photos has an impossible length")
    runs = np.frombuffer(blob, _RUN)
    if runs["count"].min() < 1 or runs["count"].max() > _MOST_IN_RUN:
        raise GalleryDamaged(gallery.path, "a block counts an impossible number of regions")
    return runs


# Searching


def rank(gallery: GalleryFile, query: FloatArray, limit: int) -> list[Candidate]:
    """The `limit` best photos by the largest cosine of their regions with `query` (eq. 1), best first.

    Equal scores: the lower photo id first; within a photo, the lower region id.

    Args:
        query: (d,) float32, any length but zero.

    Raises:
        GalleryDamaged: the index does not hold what it must.
    """
    asked = vectors.quantise(query[np.newaxis]).tobytes()
    with gallery.connection:  # one state of the file for all that is read
        scored = _score_loose(gallery, asked)
        index = _Index.read(gallery, query)
        scored = _score_promising(gallery, asked, index, scored, limit)
        scored = _score_closely(gallery, query, scored, limit)
    scored = scored[np.lexsort([scored["region"], -scored["score"], scored["photo"]])]
    best = scored[np.flatnonzero(np.diff(scored["photo"], prepend=-1))]
    best = best[np.lexsort([best["photo"], -best["score"]])][:limit]
    return [Candidate(photo, region, score) for region, photo, score in best.tolist()]


def _score_loose(gallery: GalleryFile, asked: bytes) -> ScoredArray:
    rows = gallery.connection.execute(
        "select region_id, vectors.photo_id, 1.0 - vec_distance_cosine(vec_int8(vector), vec_int8(?)) "
        "from loose cross join regions on regions.photo_id = loose.photo_id "
        "cross join vectors on region_id = regions.id",
        (asked,),
    )
    return _collect(gallery, rows)


def _score(gallery: GalleryFile, asked: bytes, regions: NDArray[np.int64]) -> ScoredArray:
    """Cosines of those of the regions that are still there, in no particular order."""
    rows = gallery.connection.execute(
        "select region_id, photo_id, 1.0 - vec_distance_cosine(vec_int8(vector), vec_int8(?)) "
        "from json_each(?) cross join vectors on region_id = value",
        (asked, json.dumps(np.sort(regions).tolist())),
    )
    return _collect(gallery, rows)


def _collect(gallery: GalleryFile, rows: apsw.Cursor) -> ScoredArray:
    scored = np.fromiter(rows, _SCORED)
    if np.isnan(scored["score"]).any():
        raise GalleryDamaged(gallery.path, "a stored vector is all zeros")
    return scored


@dataclass(frozen=True, slots=True)
class _Index:
    """All blocks' runs side by side, and for each region the most that its cosine is likely to be."""

    first: NDArray[np.int64]
    """(r,) region id at the start of each run."""
    start: NDArray[np.int64]
    """(r,) index of each run's first region in `bounds`."""
    bounds: FloatArray
    """(n,) estimate plus `DEVIATIONS` standard deviations of its error."""

    @classmethod
    def read(cls, gallery: GalleryFile, query: FloatArray) -> _Index:
        ids, counts, per_block, centres = [], [], [], []
        blocks = gallery.connection.execute("select id, octet_length(codes), runs, centre from blocks")
        for block_id, size, runs, centre in blocks:
            if not isinstance(centre, bytes) or len(centre) != 4 * query.size:
                raise GalleryDamaged(gallery.path, "a block's centre has an impossible length")
            per_block.append(_read_runs(gallery, runs))
            counts.append(int(per_block[-1]["count"].sum()))
            if size != vectors.SignCodes.size(counts[-1], query.size):
                raise GalleryDamaged(gallery.path, "a block's codes have an impossible length")
            ids.append(int(block_id))
            centres.append(np.frombuffer(centre, "<f4"))
        if not ids:
            empty = np.zeros(0, np.int64)
            return cls(empty, empty, np.zeros(0, np.float32))
        bounds = _bounds(gallery, ids, counts, vectors.sign_queries(query, np.stack(centres)))
        runs = np.concatenate(per_block)
        return cls(runs["first"], np.cumsum(runs["count"]) - runs["count"], bounds)

    def best_of_runs(self, count: int) -> NDArray[np.int64]:
        """The index of the most promising region of each of the `count` most promising runs."""
        best = np.maximum.reduceat(self.bounds, self.start)
        count = min(count, best.size)
        runs = np.argpartition(best, best.size - count)[best.size - count :]
        ends = np.append(self.start[1:], self.bounds.size)
        return np.array([self.start[r] + self.bounds[self.start[r] : ends[r]].argmax() for r in runs])

    def regions(self, at: NDArray[np.int64]) -> NDArray[np.int64]:
        """The region ids at indices of `bounds`."""
        run = np.searchsorted(self.start, at, side="right") - 1
        return self.first[run] + (at - self.start[run])


def _bounds(
    gallery: GalleryFile, ids: list[int], counts: list[int], queries: list[vectors.SignQuery]
) -> FloatArray:
    """The upper bounds of all blocks' regions.

    Each thread reads a block's codes into a buffer of its own and compares them while they are
    in its core's cache; SQLite is used by one thread at a time.
    """
    dimensions = queries[0].dimensions
    sizes = [vectors.SignCodes.size(count, dimensions) for count in counts]
    ends = np.cumsum(counts)
    bounds = np.empty(ends[-1], np.float32)
    blocks = zip(ids, counts, sizes, ends, queries, strict=True)
    reading = Lock()

    def compare_some(blob: apsw.Blob) -> None:
        buffer = bytearray(max(sizes))
        while True:
            with reading:
                if (block := next(blocks, None)) is None:
                    return
                row, count, size, end, query = block
                blob.reopen(row)
                blob.read_into(buffer, 0, size)
            codes = vectors.SignCodes.over(np.frombuffer(buffer, np.uint8), count, dimensions)
            bounds[end - count : end] = query.upper_bounds(codes, DEVIATIONS)

    threads = min(THREADS, len(ids))
    with (
        gallery.connection.blob_open("main", "blocks", "codes", ids[0], False) as blob,
        ThreadPoolExecutor(threads) as pool,
    ):
        for _ in pool.map(compare_some, [blob] * threads):
            pass  # raises what was raised there
    return bounds


def _score_promising(
    gallery: GalleryFile, asked: bytes, index: _Index, scored: ScoredArray, limit: int
) -> ScoredArray:
    """`scored` and the scores of all regions whose bound reaches the `limit`-th best photo."""
    if not index.bounds.size:
        return scored
    # One region of each of the best photos first: many regions of one photo cannot crowd out the others.
    chosen = index.best_of_runs(FIRST_PHOTOS * limit)
    at_once = SCORED_AT_ONCE
    bounds = index.bounds
    while chosen.size:
        scored = np.concatenate([scored, _score(gallery, asked, index.regions(chosen))])
        bounds[chosen] = -np.inf
        chosen = np.flatnonzero(bounds > _floor(scored, limit))
        if chosen.size > at_once:
            best = np.argpartition(bounds[chosen], chosen.size - at_once)
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
