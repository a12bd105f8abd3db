"""How well each region in the index can do at most: sign codes of all blocks against one query."""

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
"""That compare codes. More would wait for one another: a third of the time is reading, one at a time."""

DEVIATIONS = 3.0
"""How far, in standard deviations of its error, a region's estimate may be too low and still be scored."""


@dataclass(frozen=True, slots=True)
class UpperBounds:
    """All blocks' runs side by side, and for each region the most that its cosine is likely to be."""

    photo: NDArray[np.int64]
    """(r,) id of the photo that each run was made of."""
    first: NDArray[np.int64]
    """(r,) region id at the start of each run."""
    start: NDArray[np.int64]
    """(r,) index of each run's first region in `upper`."""
    upper: FloatArray
    """(n,) estimate plus `DEVIATIONS` standard deviations of its error; -inf: not to be scored (again)."""

    @classmethod
    def of(cls, runs: NDArray[np.void], upper: FloatArray) -> UpperBounds:
        """The bounds of (r,) runs of photo, first region and count."""
        return cls(runs["photo"], runs["first"], np.cumsum(runs["count"]) - runs["count"], upper)

    def leave_out_all_but(self, photos: NDArray[np.int64]) -> None:
        """Take the runs of all other photos out."""
        counts = np.diff(self.start, append=self.upper.size)
        self.upper[np.repeat(~np.isin(self.photo, photos), counts)] = -np.inf

    def best_of_runs(self, count: int) -> NDArray[np.int64]:
        """The index of the most promising region of each of the `count` most promising runs."""
        if not self.start.size:
            return self.start
        best = np.maximum.reduceat(self.upper, self.start)
        count = min(count, best.size)
        runs = np.argpartition(best, best.size - count)[best.size - count :]
        ends = np.append(self.start[1:], self.upper.size)
        runs = runs[best[runs] > -np.inf]
        found = [self.start[r] + self.upper[self.start[r] : ends[r]].argmax() for r in runs]
        return np.array(found, np.int64)

    def regions(self, at: NDArray[np.int64]) -> NDArray[np.int64]:
        """The region ids at indices of `upper`."""
        run = np.searchsorted(self.start, at, side="right") - 1
        return self.first[run] + (at - self.start[run])


def compare_blocks(
    gallery: GalleryFile, ids: list[int], counts: list[int], queries: list[SignQuery]
) -> FloatArray:
    """The upper bounds of the regions of all blocks: at least one, with these ids and numbers of regions.

    Each thread reads a block's codes into a buffer of its own and compares them while they are
    in its core's cache; SQLite is used by one thread at a time.
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
            upper[end - count : end] = query.upper_bounds(codes, DEVIATIONS)

    threads = min(THREADS, len(ids))
    with (
        gallery.connection.blob_open("main", "blocks", "codes", ids[0], False) as blob,
        ThreadPoolExecutor(threads) as pool,
    ):
        for _ in pool.map(compare_some, [blob] * threads):
            pass  # raises what was raised there
    return upper
