"""Upper bounds on region scores, from the sign codes of all blocks.

Sign codes give an estimate of a region's cosine with the query, and the standard deviation of its error.
The bound is the estimate plus `DEVIATIONS` standard deviations: with normal errors, one cosine in 740 is
higher.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from threading import Lock

import apsw
import numpy as np
from numpy.typing import NDArray

from matir_cli.gallery.database import GalleryFile
from matir_cli.records import FloatArray
from matir_cli.search.sign_codes import SignCodes, SignQuery

THREADS = 2
"""Threads that compare codes. More would wait for one another: a third of the time is reading, which only
one thread does at a time."""

DEVIATIONS = 3.0
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


def compare_blocks(
    gallery: GalleryFile, ids: list[int], counts: list[int], queries: list[SignQuery]
) -> FloatArray:
    """Compute the upper bounds of the regions of all blocks.

    Each thread reads the codes of one block after the other into a buffer of its own and compares them
    while they are in its core's cache; SQLite is used by one thread at a time.

    Args:
        ids: block ids, at least one.
        counts: number of regions in each block.
        queries: the query prepared for each block.

    Returns:
        (sum of counts,) float32, block by block; not finite where a block holds numbers that are not.
    """
    dimensions = queries[0].dimensions
    sizes = [SignCodes.size(count, dimensions) for count in counts]
    ends = np.cumsum(counts)
    upper = np.empty(ends[-1], np.float32)
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
            codes = SignCodes.over(np.frombuffer(buffer, np.uint8), count, dimensions)
            with np.errstate(all="ignore"):  # the caller checks the result
                upper[end - count : end] = query.upper_bounds(codes, DEVIATIONS)

    threads = min(THREADS, len(ids))
    with (
        gallery.connection.blob_open("main", "blocks", "codes", ids[0], False) as blob,
        ThreadPoolExecutor(threads) as pool,
    ):
        for _ in pool.map(compare_some, [blob] * threads):
            pass  # raises what was raised there
    return upper
