"""Progress of long steps, as told to whoever asked for the work."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Protocol


class Advance(Protocol):
    """Called when items of a step are done."""

    def __call__(self, count: int = 1, /) -> object:
        """Report that `count` more items are done."""
        ...


class ProgressObserver(Protocol):
    """Told when a step begins; gives the function to call as its items are done."""

    def __call__(
        self, name: str, total: int | None, unit: str, done: int = 0
    ) -> AbstractContextManager[Advance]:
        """Begin a step; leaving the context ends it, whether it was completed or not.

        Args:
            name: of the step, such as "judging".
            total: number of items; None where it is not known.
            unit: one item, such as "photo"; "B" for bytes.
            done: items that were done before.
        """
        ...


def no_progress(name: str, total: int | None, unit: str, done: int = 0) -> AbstractContextManager[Advance]:
    """Observe nothing: the `ProgressObserver` for work that nobody watches."""
    del name, total, unit, done
    return nullcontext(_ignore)


def _ignore(_count: int = 1, /) -> None:
    pass
