"""Progress reporting for long steps, through an observer that the caller passes in."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from time import monotonic
from typing import Protocol


class Advance(Protocol):
    """Function to call when items of a step are done."""

    def __call__(self, count: int = 1, /) -> object:
        """Report that `count` more items are done."""
        ...


class ProgressObserver(Protocol):
    """Observer of steps: called when one begins, it returns the function to call as items are done."""

    def __call__(
        self, name: str, total: int | None, unit: str, done: int = 0
    ) -> AbstractContextManager[Advance]:
        """Begin a step; leaving the context ends it, completed or not.

        Args:
            name: name of the step, such as "judging".
            total: number of items; None if unknown.
            unit: name of one item, such as "photo"; "B" for bytes.
            done: number of items that were done before.
        """
        ...


def no_progress(name: str, total: int | None, unit: str, done: int = 0) -> AbstractContextManager[Advance]:
    """Ignore all progress: the default `ProgressObserver`."""
    del name, total, unit, done
    return nullcontext(_ignore)


def _ignore(_count: int = 1, /) -> None:
    pass


class TimeLeft:
    """Estimate of the time that a step still needs: the mean time of an item, times the items to come.

    The mean is over all items but the first, with which models are loaded. A mean over the last few would
    follow each large photo. Items that take no time, such as files that have not changed, are not to be
    counted.
    """

    def __init__(self, items: int | None, clock: Callable[[], float] = monotonic) -> None:
        """Start with nothing done.

        Args:
            items: number of items that take time; None if it is not known yet, and so is the time.
            clock: returns the time in seconds.
        """
        self._items = items
        self._clock = clock
        self._done = self._first_done = 0
        self._first = self._last = 0.0

    def expect(self, items: int) -> None:
        """Set the number of items that take time, those that are done included."""
        self._items = items

    def advance(self, count: int = 1, /) -> None:
        """Report that `count` more items are done."""
        if not count:
            return
        self._last = self._clock()
        if not self._done:
            self._first, self._first_done = self._last, count
        self._done += count

    def estimate(self) -> float | None:
        """Return the seconds that are left; None if that is not known, or not yet."""
        if self._items is None:
            return None
        left = max(0, self._items - self._done)
        if not left:
            return 0.0
        since_first = self._done - self._first_done
        if not since_first:
            return None
        mean = (self._last - self._first) / since_first
        # The item in progress has used up some of its time, but no more than all of it.
        return mean * (left - 1) + max(0.0, mean - (self._clock() - self._last))
