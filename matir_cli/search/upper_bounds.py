"""Upper bounds on region scores, from the codes of all blocks.

Codes give an estimate of a region's cosine with a query, and the standard deviation of its error. The bound
is the estimate plus `DEVIATIONS` standard deviations: with normal errors, one cosine in 4,000 is higher.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from threading import Lock
from typing import Any

import apsw
import numpy as np
from numpy.typing import NDArray

from matir_cli.errors import IndexDamaged
from matir_cli.gallery.database import GalleryFile
from matir_cli.gallery.union import GalleryReader, members_of
from matir_cli.records import FloatArray
from matir_cli.search.codes import (
    LAYOUT,
    BlockQueries,
    CodeQuery,
    Codes,
    prepare_query,
    read_scales,
    row_bytes,
    scales_bytes,
)
from matir_cli.search.index import RUN, read_runs
from matir_cli.search.quantisation import rounding_error

THREADS = 2
"""Threads that compare codes, each with a connection of its own, if there can be two: half of the time is
reading, which one thread at a time does on a connection."""

ROWS_AT_ONCE = 4096
"""Codes read and compared at once: few enough for a core's cache, and many enough that calls cost little."""

DEVIATIONS = 3.5
"""Standard deviations of the estimate's error that an upper bound lies above the estimate."""

BOUNDS_BYTES = 1 << 27
"""Bytes of upper bounds in memory at once, unless one vector's are more: four per vector and region."""

VECTORS_AT_ONCE = 32
"""Vectors compared with the codes in one pass at most: with more, a vector's share of the time hardly falls.
"""


@dataclass(frozen=True, slots=True)
class UpperBounds:
    """The runs of all blocks, one after the other, and an upper bound on each region's cosine."""

    photo: NDArray[np.int64]
    """(r,) id of the photo that each run was made from."""
    first: NDArray[np.int64]
    """(r,) region id at the start of each run."""
    start: NDArray[np.int64]
    """(r,) index of each run's first region in `upper`."""
    upper: FloatArray
    """(n,) estimate plus `DEVIATIONS` standard deviations of its error; -inf: not to be scored, or scored
    already."""

    @classmethod
    def of(cls, runs: NDArray[np.void], upper: FloatArray) -> UpperBounds:
        """Combine (r,) `RUN`s with the (n,) bounds of their regions."""
        return cls(runs["photo"], runs["first"], np.cumsum(runs["count"]) - runs["count"], upper)

    def keep_photos(self, photos: NDArray[np.int64]) -> None:
        """Exclude the regions of all photos but those with these ids."""
        counts = np.diff(self.start, append=self.upper.size)
        self.upper[np.repeat(~np.isin(self.photo, photos), counts)] = -np.inf

    def best_of_runs(self, count: int) -> NDArray[np.int64]:
        """Return indices in `upper`: the best region of each of the `count` best runs, by their bounds."""
        if not self.start.size:
            return self.start
        best = np.maximum.reduceat(self.upper, self.start)
        count = min(count, best.size)
        runs = np.argpartition(best, best.size - count)[best.size - count :]
        ends = np.append(self.start[1:], self.upper.size)
        runs = runs[best[runs] > -np.inf]
        indices = [self.start[r] + self.upper[self.start[r] : ends[r]].argmax() for r in runs]
        return np.array(indices, np.int64)

    def region_ids(self, indices: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the ids of the regions at (m,) indices of `upper`."""
        run = np.searchsorted(self.start, indices, side="right") - 1
        return self.first[run] + (indices - self.start[run])


def upper_bounds(gallery: GalleryFile, queries: Sequence[FloatArray]) -> Iterator[UpperBounds]:
    """Yield, for each query, upper bounds on the scores of all regions in blocks.

    They are computed for as many queries at once as `vectors_at_once` says, when the first of these is due.

    Raises:
        IndexDamaged: a block is malformed.
    """
    if not queries:
        return
    index = _read_index(gallery, queries[0].size)
    at_once = vectors_at_once(gallery)
    for start in range(0, len(queries), at_once):
        yield from _bounds_in_one_pass(gallery, index, queries[start : start + at_once])


def vectors_at_once(gallery: GalleryReader) -> int:
    """Return the number of vectors whose bounds may be in memory at once: the fewer, the larger the index."""
    regions = 0.0
    for member in members_of(gallery):
        db = member.file.connection
        bytes_of_codes = db.execute("select total(octet_length(codes)) from codes").get
        centre = db.execute("select octet_length(centre) from codes limit 1").get
        regions += bytes_of_codes / Codes.size(1, (centre or 0) // 4)
    return max(1, min(VECTORS_AT_ONCE, int(BOUNDS_BYTES // max(1.0, 4 * regions))))


_BLOCKS = "select id, octet_length(codes), runs, centre from codes order by id"
"""SQL: all that is known of the blocks, but for their codes."""


@dataclass(frozen=True, slots=True)
class _Index:
    """All blocks, without their codes."""

    ids: list[int]
    counts: list[int]
    """Number of codes of each."""
    runs: NDArray[np.void]
    """(r,) `RUN`s of all blocks, one after the other."""
    centres: FloatArray
    """(b, d)"""
    rows: Sequence[tuple[Any, ...]]
    """Rows of `_BLOCKS`, by which a second connection is compared."""


def _read_index(gallery: GalleryFile, dimensions: int) -> _Index:
    """Read what is known of the blocks; IndexDamaged if one is malformed."""
    ids, counts, runs, centres = [], [], [], []
    rows: list[tuple[Any, ...]] = gallery.connection.execute(_BLOCKS).fetchall()
    for block_id, size, blob, centre in rows:
        if not isinstance(centre, bytes) or len(centre) != 4 * dimensions:
            raise IndexDamaged(gallery.path, "a block's centre has an impossible length")
        if not np.isfinite(np.frombuffer(centre, "<f4")).all():
            raise IndexDamaged(gallery.path, "a block's centre is not finite")
        runs.append(read_runs(gallery, blob))
        counts.append(int(runs[-1]["count"].sum()))
        if size != Codes.size(counts[-1], dimensions):
            raise IndexDamaged(gallery.path, "a block's codes have an impossible length")
        ids.append(int(block_id))
        centres.append(np.frombuffer(centre, "<f4"))
    if not ids:
        return _Index([], [], np.zeros(0, RUN), np.zeros((0, dimensions), np.float32), rows)
    return _Index(ids, counts, np.concatenate(runs), np.stack(centres), rows)


def _bounds_in_one_pass(
    gallery: GalleryFile, index: _Index, queries: Sequence[FloatArray]
) -> list[UpperBounds]:
    """Compute the bounds of k queries; IndexDamaged if the codes of a block are malformed."""
    if not index.ids:
        return [UpperBounds.of(index.runs, np.zeros(0, np.float32)) for _ in queries]
    with np.errstate(all="ignore"):  # crafted numbers may be too large: the result is checked
        prepared = zip(*(prepare_query(query, index.centres) for query in queries), strict=True)
        ends = np.cumsum(index.counts).tolist()
        blocks = [BlockQuery(*each) for each in zip(index.ids, index.counts, ends, prepared, strict=True)]
        with ExitStack() as stack:
            second = _second_reader(gallery, index, stack)
            bounds = compare_blocks(gallery, blocks, queries[0].size, second)
    if not all(np.isfinite(row).all() for row in bounds):
        raise IndexDamaged(gallery.path, "a block's codes are not finite")
    return [UpperBounds.of(index.runs, row) for row in bounds]


@dataclass(frozen=True, slots=True)
class BlockQuery:
    """A block of codes, and the queries to compare it with."""

    id: int
    count: int
    """Number of its codes."""
    end: int
    """Number of codes in this block and all before it."""
    queries: Sequence[CodeQuery]


def compare_blocks(
    gallery: GalleryFile,
    blocks: Sequence[BlockQuery],
    dimensions: int,
    second: apsw.Connection | None = None,
) -> FloatArray:
    """Compute the upper bounds of the regions of all blocks for k queries, in one pass over the codes.

    Each thread reads a part of a block after the other into a buffer of its own, and multiplies it while it
    is in its core's cache.

    Args:
        blocks: at least one, each with codes of its `count`'s size.
        second: another connection that sees the same blocks; without it, threads read in turn.

    Returns:
        (k, number of codes) float32, block by block; not finite where a block holds numbers that are not.

    Raises:
        IndexDamaged: the codes of a block have another layout.
    """
    upper = np.empty((len(blocks[0].queries), blocks[-1].end), np.float32)
    remaining = iter(blocks)
    taking = Lock()
    # Scores are rounded as well: where vectors are alike, by more than the error of codes.
    least_error = rounding_error(dimensions)

    def compare_some(blob: apsw.Blob, reading: Lock) -> None:
        buffer = np.empty((ROWS_AT_ONCE, row_bytes(dimensions)), np.uint8)
        while True:
            with taking:
                if (block := next(remaining, None)) is None:
                    return
            with reading:
                blob.reopen(block.id)
                start_of_codes = blob.read(scales_bytes(block.count))
            if not start_of_codes.startswith(LAYOUT):
                raise IndexDamaged(gallery.path, "another version has laid out its codes")
            with np.errstate(all="ignore"):  # the caller checks the result
                queries = BlockQueries(block.queries, read_scales(start_of_codes), DEVIATIONS, least_error)
                products = np.empty((block.count, queries.rows), np.uint32)
                for at in range(0, block.count, ROWS_AT_ONCE):
                    levels = buffer[: min(ROWS_AT_ONCE, block.count - at)]
                    with reading:
                        blob.read_into(levels.data)
                    products[at : at + len(levels)] = queries.multiply(levels)
                queries.bound(products, upper[:, block.end - block.count : block.end])

    threads = min(THREADS, len(blocks))
    with ExitStack() as stack:
        connections = [gallery.connection] if second is None else [gallery.connection, second][:threads]
        locks = [Lock() for _ in connections]
        readers = [number % len(connections) for number in range(threads)]
        blobs = [
            stack.enter_context(connections[reader].blob_open("main", "codes", "codes", blocks[0].id, False))
            for reader in readers
        ]
        pool = stack.enter_context(ThreadPoolExecutor(threads))
        for _ in pool.map(compare_some, blobs, [locks[reader] for reader in readers]):
            pass  # raises what was raised there
    return upper


def _second_reader(gallery: GalleryFile, index: _Index, stack: ExitStack) -> apsw.Connection | None:
    """Return a second connection that sees the same codes until `stack` is left; None if there can be none.

    Blocks with the same ids, regions and centres have the same codes, which follow from the vectors whose
    mean the centre is.
    """
    second = gallery.second_connection()
    if second is not None:
        with suppress(apsw.Error):
            stack.enter_context(second)
            if second.execute(_BLOCKS).fetchall() == index.rows:
                return second
    return None
