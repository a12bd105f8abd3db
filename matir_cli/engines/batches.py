"""Batches of a torch engine, halved when the device has no memory left for one."""

import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch

from matir_cli.errors import EngineFailed

_Result = TypeVar("_Result")


@dataclass(frozen=True, slots=True)
class BatchPart:
    """The items of a batch that belong to one group, such as the masks of one photo."""

    group: int
    """Number of the group."""
    items: slice
    """Place of the items in the group."""
    rows: slice
    """Place of the items in the batch."""


def split_batch(counts: Sequence[int], batch: slice) -> Iterator[BatchPart]:
    """Yield the parts of a batch of items that belong to groups, in order.

    Args:
        counts: number of items of each group; the items of all groups are numbered one after the other.
        batch: place of the batch among all items.
    """
    begin = 0
    for group, count in enumerate(counts):
        first, last = max(batch.start, begin), min(batch.stop, begin + count)
        if first < last:
            rows = slice(first - batch.start, last - batch.start)
            yield BatchPart(group, slice(first - begin, last - begin), rows)
        begin += count


class BatchRunner:
    """Runs work batch by batch; the size that the device can hold is kept for the next run.

    Several threads may use it at a time.
    """

    def __init__(self, size: int) -> None:
        """Start with batches of `size` items, or of items that cost as much together."""
        self.size = max(1, size)
        """Size of a batch."""
        self._shrinking = threading.Lock()

    def run(self, count: int, work: Callable[[slice], _Result], *, cost: int = 1) -> Iterator[_Result]:
        """Yield the results of `work` for slices that cover `count` items in order.

        Args:
            work: computes one batch; called again for half of it if the device runs out of memory.
            cost: cost of an item, in the unit of `size`.

        Raises:
            EngineFailed: the device has not enough memory for a single item.
        """
        start = 0
        while start < count:
            batch = slice(start, min(count, start + max(1, self.size // cost)))
            try:
                result = work(batch)
            except (RuntimeError, EngineFailed) as error:
                if not _is_out_of_memory(error):
                    raise
                if batch.stop - start == 1:
                    raise EngineFailed("the device has not enough memory for one item at a time") from error
                with self._shrinking:  # another thread may have found less room meanwhile
                    self.size = min(self.size, (batch.stop - start) // 2 * cost)
            else:
                yield result
                start = batch.stop
                continue
            # Not in the handler, whose traceback keeps the tensors of the failed batch alive.
            torch.cuda.empty_cache()


def _is_out_of_memory(error: BaseException | None) -> bool:
    """Return True for torch's error on CUDA, for MPS's, which has no type, and for those of a run within."""
    if isinstance(error, EngineFailed):
        return _is_out_of_memory(error.__cause__)
    return isinstance(error, torch.OutOfMemoryError) or "MPS backend out of memory" in str(error)
