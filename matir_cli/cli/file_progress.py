"""A bar on stderr for files that are fetched or read through."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, NoReturn

from matir_cli.weights import Progress, Quiet

if TYPE_CHECKING:
    from tqdm import tqdm


class Bar:
    """A Progress drawn on stderr."""

    def __init__(self) -> None:
        self._bar: tqdm[NoReturn] | None = None

    def begin(self, name: str, total: int | None, done: int) -> None:
        """Draw a new bar."""
        # Here: only who watches a terminal needs it.
        from tqdm import tqdm

        self.end()
        self._bar = tqdm(
            desc=name, total=total, initial=done, unit="B", unit_scale=True, leave=False, file=sys.stderr
        )

    def advance(self, count: int) -> None:
        """Move the bar."""
        if self._bar is not None:
            self._bar.update(count)

    def end(self) -> None:
        """Wipe the bar away."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None


@contextmanager
def watched() -> Iterator[Progress]:
    """A bar where stderr is a terminal, nothing elsewhere."""
    if not sys.stderr.isatty():
        yield Quiet()
        return
    bar = Bar()
    try:
        yield bar
    finally:
        bar.end()
