"""Progress reporting for long steps, through an observer that the caller passes in."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
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
