"""Progress on standard error: bars for people, lines of JSON for programs."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from time import monotonic
from typing import Literal

import click

from matir_cli.cli.boundary import PROGRAM, is_dumb
from matir_cli.output.json_encoding import to_json
from matir_cli.progress import Advance, TimeLeft, no_progress

LEAST_ROWS, LEAST_COLUMNS = 6, 30
"""Rows and columns that a terminal must have for lines on it to be replaced."""

SECONDS_BETWEEN = 0.5
"""Seconds that pass at least between two lines of JSON within a step."""


class ProgressForm(StrEnum):
    """Form in which progress is shown."""

    AUTO = "auto"
    """Bars on a terminal, otherwise nothing."""
    JSON = "json"
    NONE = "none"


@dataclass(frozen=True, slots=True)
class ProgressRecord:
    """Progress of one step of a command, as `--progress json` prints it on standard error."""

    event: Literal["progress"]
    step: str
    """Name of the step, such as "judging", or of the command."""
    unit: str
    """Name of one item, such as "photo"; "B" for bytes."""
    done: int
    """Number of items done so far."""
    total: int | None
    """Number of items; left out if it is not known."""
    seconds: float
    """Seconds since the step began."""
    seconds_left: float | None
    """Seconds that the step will still take, estimated; left out while that is not known."""
    ended: bool
    """True in the last line of a step, completed or not."""


_form = ProgressForm.AUTO


def set_progress_form(form: ProgressForm) -> None:
    """Choose how this process shows progress."""
    global _form  # noqa: PLW0603 - one standard error per process
    _form = form


def progress_form() -> ProgressForm:
    """Return the form in which this process shows progress."""
    return _form


def shows_progress() -> bool:
    """Return True if somebody sees progress, so that a total is worth counting."""
    return _form is ProgressForm.JSON or (_form is ProgressForm.AUTO and sys.stderr.isatty())


def can_redraw() -> bool:
    """Return True if stdout and stderr are terminals, large enough, on which lines can be replaced."""
    if _form is not ProgressForm.AUTO:
        return False
    if not (sys.stdout.isatty() and sys.stderr.isatty()) or is_dumb():
        return False
    size = os.get_terminal_size(sys.stderr.fileno())
    return size.lines >= LEAST_ROWS and size.columns >= LEAST_COLUMNS


@dataclass(frozen=True, slots=True)
class ProgressBar:
    """Progress of a step on stderr, in the form that was chosen."""

    advance: Advance
    say: Callable[[str], object]
    """Prints a line above the bar."""
    pass_over: Advance
    """Reports that items are done that took no time, such as files that have not changed."""
    expect: Callable[[int, int | None], object]
    """Sets the number of items, and of those among them that take time (None: all), once they are known."""


@dataclass(slots=True)
class _Count:
    """Number of items of a step, and of those that are done."""

    total: int | None
    done: int

    def expect(self, total: int) -> None:
        """Set the total, which is at least what is done."""
        self.total = max(total, self.done)

    def add(self, count: int) -> None:
        """Count items that are done, perhaps more than were expected."""
        self.done += count
        if self.total is not None:
            self.expect(self.total)


@contextmanager
def progress_bar(
    total: int | None, name: str | None = None, unit: str = "photo", done: int = 0, work: int | None = None
) -> Iterator[ProgressBar]:
    """Show items done of `total`, items per second and the time left, while the block runs.

    A bar without a name stays on the terminal when it ends. A bar with a name is one step of many and
    is removed.

    Args:
        total: number of items; None if unknown.
        name: name of the step.
        unit: name of one item.
        done: number of items that were done before.
        work: number of items to come that take time; None: all.
    """
    count = _Count(total, done)
    left = TimeLeft(total - done if work is None and total is not None else work)

    def expect(items: int, pending: int | None) -> None:
        count.expect(items)
        left.expect(items if pending is None else pending)

    if _form is ProgressForm.JSON:
        step = name or click.get_current_context().info_name or PROGRAM
        with _json_lines(count, step, unit, left) as pass_over:
            yield ProgressBar(_counting(left, pass_over), partial(click.echo, err=True), pass_over, expect)
        return
    if not shows_progress():
        with no_progress(name or "", total, unit) as ignore:
            yield ProgressBar(ignore, partial(click.echo, err=True), ignore, expect)
        return
    # Imported only if a terminal shows the bar.
    from tqdm import tqdm

    with tqdm(
        desc=name,
        bar_format=None if total is None else bar_format(left),
        total=total,
        initial=done,
        unit=unit,
        unit_scale=unit == "B",
        file=sys.stderr,
        leave=name is None,
    ) as bar:

        def prepare() -> None:
            if count.total is not None:
                bar.total, bar.bar_format = count.total, bar_format(left)

        def update(number: int = 1, /) -> None:
            count.add(number)
            prepare()
            bar.update(number)

        def expect_and_show(items: int, pending: int | None) -> None:
            expect(items, pending)
            prepare()
            bar.refresh()

        say = partial(tqdm.write, file=sys.stderr)
        yield ProgressBar(_counting(left, update), say, update, expect_and_show)


def bar_format(left: TimeLeft) -> str:
    """Return tqdm's `bar_format` with the estimate in place of its own, which goes by the last few items."""
    seconds = left.estimate()
    time_left = "?"
    if seconds is not None:
        minutes, second = divmod(round(seconds), 60)
        hours, minute = divmod(minutes, 60)
        time_left = f"{hours}:{minute:02}:{second:02}" if hours else f"{minute:02}:{second:02}"
    return "{l_bar}{bar}| {n_fmt}/{total_fmt} [{elapsed}<" + time_left + ", {rate_fmt}]"


def _counting(left: TimeLeft, advance: Advance) -> Advance:
    """Return `advance`, which also tells `left`."""

    def advance_both(count: int = 1, /) -> None:
        left.advance(count)
        advance(count)

    return advance_both


@contextmanager
def _json_lines(count: _Count, step: str, unit: str, left: TimeLeft) -> Iterator[Advance]:
    """Print a line when the step begins, one in `SECONDS_BETWEEN` while it runs, and one when it ends."""
    begun = last = monotonic()

    def write(*, ended: bool) -> None:
        seconds, estimate = round(monotonic() - begun, 3), left.estimate()
        seconds_left = None if estimate is None or ended else round(estimate, 1)
        numbers = count.done, count.total
        record = ProgressRecord("progress", step, unit, *numbers, seconds, seconds_left, ended)
        click.echo(to_json(record), err=True)

    def advance(number: int = 1, /) -> None:
        nonlocal last
        count.add(number)
        if monotonic() - last >= SECONDS_BETWEEN:
            last = monotonic()
            write(ended=False)

    write(ended=False)
    try:
        yield advance
    finally:
        write(ended=True)


@contextmanager
def show_progress(name: str, total: int | None, unit: str, done: int = 0) -> Iterator[Advance]:
    """Show one step: the `matir_cli.progress.ProgressObserver` of the command line."""
    with progress_bar(total, name, unit, done) as bar:
        yield bar.advance
