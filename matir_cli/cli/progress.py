"""Progress bars on stderr."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, NoReturn

import click

from matir_cli.model_sets.weights import ByteProgress, NoByteProgress

if TYPE_CHECKING:
    from tqdm import tqdm


@dataclass(frozen=True, slots=True)
class ProgressBar:
    """A bar on stderr, or nothing where stderr is no terminal."""

    advance: Callable[[], object]
    """One photo is done."""
    say: Callable[[str], object]
    """A line above the bar."""


@contextmanager
def progress_bar(total: int | None, name: str | None = None, unit: str = "photo") -> Iterator[ProgressBar]:
    """Photos done of `total`, photos/s and time left, while the block runs; `unit` if it is not photos."""
    if not sys.stderr.isatty():
        yield ProgressBar(lambda: None, partial(click.echo, err=True))
        return
    # Here: only who watches a terminal needs it.
    from tqdm import tqdm

    with tqdm(desc=name, total=total, unit=unit, file=sys.stderr, leave=name is None) as bar:
        yield ProgressBar(bar.update, partial(tqdm.write, file=sys.stderr))


@contextmanager
def observe_step(total: int, name: str, unit: str) -> Iterator[Callable[[], object]]:
    """A bar for one step, where somebody watches; a `matir_cli.watch.Watch`."""
    with progress_bar(total, name, unit) as bar:
        yield bar.advance


class ByteBar:
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
def byte_progress() -> Iterator[ByteProgress]:
    """A bar where stderr is a terminal, nothing elsewhere."""
    if not sys.stderr.isatty():
        yield NoByteProgress()
        return
    bar = ByteBar()
    try:
        yield bar
    finally:
        bar.end()
