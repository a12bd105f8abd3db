"""Upper bounds on region scores, from the codes of all blocks.

Codes give an estimate of a region's cosine with a query, and the standard deviation of its error. The bound
is the estimate plus `DEVIATIONS` standard deviations: with normal errors, one cosine in 4,000 is higher.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from threading import Lock

import apsw
import numpy as np
from numpy.typing import NDArray

from matir_cli.gallery.database import GalleryFile
from matir_cli.records import FloatArray
from matir_cli.search.codes import BlockQueries, CodeQuery, read_scales, row_bytes, scales_bytes
from matir_cli.search.quantisation import rounding_error

THREADS = 2
"""Threads that compare codes. More would wait for one another: half of the time is reading, which only one
thread does at a time."""

ROWS_AT_ONCE = 4096
"""Codes read and compared at once: few enough for a core's cache, and many enough that calls cost little."""

DEVIATIONS = 3.5
"""Standard deviations of the estimate's error that an upper bound lies above the estimate."""


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


@dataclass(frozen=True, slots=True)
class BlockQuery:
    """A block of codes, and the queries to compare it with."""

    id: int
    count: int
    """Number of its codes."""
    end: int
    """Number of codes in this block and all before it."""
    queries: Sequence[CodeQuery]


def compare_blocks(gallery: GalleryFile, blocks: Sequence[BlockQuery], dimensions: int) -> FloatArray:
    """Compute the upper bounds of the regions of all blocks for k queries, in one pass over the codes.

    Each thread reads a part of a block after the other into a buffer of its own, and compares it while it is
    in its core's cache; SQLite is used by one thread at a time.

    Args:
        blocks: at least one, each with codes of its `count`'s size.

    Returns:
        (k, number of codes) float32, block by block; not finite where a block holds numbers that are not.
    """
    upper = np.empty((len(blocks[0].queries), blocks[-1].end), np.float32)
    remaining = iter(blocks)
    reading = Lock()
    # Scores are rounded as well: where vectors are alike, by more than the error of codes.
    least_error = rounding_error(dimensions)

    def compare_some(blob: apsw.Blob) -> None:
        buffer = np.empty((ROWS_AT_ONCE, row_bytes(dimensions)), np.uint8)
        while True:
            with reading:
                if (block := next(remaining, None)) is None:
                    return
                blob.reopen(block.id)
                scales = read_scales(blob.read(scales_bytes(block.count)))
            with np.errstate(all="ignore"):  # the caller checks the result
                queries = BlockQueries(block.queries, scales, DEVIATIONS, least_error)
                for at in range(0, block.count, ROWS_AT_ONCE):
                    part = slice(at, min(at + ROWS_AT_ONCE, block.count))
                    levels = buffer[: part.stop - at]
                    with reading:
                        blob.read_into(levels.data)
                    start = block.end - block.count + at
                    queries.upper_bounds(part, levels, upper[:, start : start + len(levels)])

    threads = min(THREADS, len(blocks))
    with ExitStack() as stack:
        blobs = [
            stack.enter_context(gallery.connection.blob_open("main", "codes", "codes", blocks[0].id, False))
            for _ in range(threads)
        ]
        for _ in stack.enter_context(ThreadPoolExecutor(threads)).map(compare_some, blobs):
            pass  # raises what was raised there
    return upper
