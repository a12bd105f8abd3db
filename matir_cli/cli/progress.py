"""Progress bars on standard error."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

import click

from matir_cli.cli.boundary import is_dumb
from matir_cli.progress import Advance, no_progress

LEAST_ROWS, LEAST_COLUMNS = 6, 30
"""Rows and columns that a terminal must have for lines on it to be replaced."""


def can_redraw() -> bool:
    """Return True if stdout and stderr are terminals, large enough, on which lines can be replaced."""
    if not (sys.stdout.isatty() and sys.stderr.isatty()) or is_dumb():
        return False
    size = os.get_terminal_size(sys.stderr.fileno())
    return size.lines >= LEAST_ROWS and size.columns >= LEAST_COLUMNS


@dataclass(frozen=True, slots=True)
class ProgressBar:
    """A progress bar on stderr; it shows nothing if stderr is not a terminal."""

    advance: Advance
    say: Callable[[str], object]
    """Prints a line above the bar."""


@contextmanager
def progress_bar(
    total: int | None, name: str | None = None, unit: str = "photo", done: int = 0
) -> Iterator[ProgressBar]:
    """Show items done of `total`, items per second and the time left, while the block runs.

    A bar without a name stays on the terminal when it ends. A bar with a name is one step of many and
    is removed.
    """
    if not sys.stderr.isatty():
        with no_progress(name or "", total, unit) as ignore:
            yield ProgressBar(ignore, partial(click.echo, err=True))
        return
    # Imported only if a terminal shows the bar.
    from tqdm import tqdm

    with tqdm(
        desc=name,
        total=total,
        initial=done,
        unit=unit,
        unit_scale=unit == "B",
        file=sys.stderr,
        leave=name is None,
    ) as bar:
        yield ProgressBar(bar.update, partial(tqdm.write, file=sys.stderr))


@contextmanager
def show_progress(name: str, total: int | None, unit: str, done: int = 0) -> Iterator[Advance]:
    """Show one step as a bar: the `matir_cli.progress.ProgressObserver` of the command line."""
    with progress_bar(total, name, unit, done) as bar:
        yield bar.advance
