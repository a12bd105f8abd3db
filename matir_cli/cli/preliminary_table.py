"""A table of preliminary results on a terminal, which grows better in place while the judge is at work.

It is drawn on stderr, as progress bars are, and removed before the results are printed. This module is
imported only if a terminal shows the table.
"""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

import click
from tqdm.utils import disp_len, disp_trim

from matir_cli.cli.boundary import say
from matir_cli.gallery.union import GalleryReader
from matir_cli.output.terminal import HEADER, table_rows
from matir_cli.progress import Advance
from matir_cli.search.events import GroundedEvent, SearchEvent, Stage1Event, VerdictEvent
from matir_cli.search.grounding import results_by_region
from matir_cli.search.rerank import JudgedCandidate, order_by_verdict
from matir_cli.search.results import SearchResult

REDRAWN_AFTER = 0.1
"""Seconds for which a drawn table stays, so that a fast judge does not make it flicker."""


@dataclass
class PreliminaryTable:
    """The first photos of a search as far as they are known, and how far the search is."""

    gallery: GalleryReader
    limit: int
    """Number of photos wanted."""
    _results: dict[int, SearchResult] = field(default_factory=dict)
    """By photo id, those that have been shown or judged."""
    _items: dict[int, JudgedCandidate] = field(default_factory=dict)
    """All candidates by photo id, in stage-1 order."""
    _fusion: float = 0.0
    """As in `Stage1Event`."""
    _progress: str = ""
    _drawn: list[str] = field(default_factory=list)
    """Lines on the screen, without styles."""
    _next: float = 0.0
    """Time before which nothing is drawn."""

    def observe(self, event: SearchEvent) -> None:
        """Take in what is known now."""
        match event:
            case Stage1Event():
                self._items = {item.photo_id: JudgedCandidate(item, None) for item in event.candidates}
                self._results = {result.photo.id: result for result in event.results}
                self._fusion = event.fusion
                self._draw()  # other events are followed by progress
            case VerdictEvent(item=item):
                self._items[item.candidate.photo_id] = item
                self._results.pop(item.candidate.photo_id, None)
            case GroundedEvent(result=result):
                self._results[result.photo.id] = result

    @contextmanager
    def progress(self, name: str, total: int | None, unit: str, done: int = 0) -> Iterator[Advance]:
        """Show a step in the last line: a `matir_cli.progress.ProgressObserver`."""
        count = done

        def advance(more: int = 1, /) -> None:
            nonlocal count
            count += more
            self._progress = f"{name}: {count}/{total} {unit}s"
            self._draw()

        self._next = 0.0
        advance(0)
        yield advance

    def clear(self) -> None:
        """Remove the table from the screen."""
        _write(self._erasing(*shutil.get_terminal_size()))
        self._drawn = []

    def say_above(self, text: str) -> None:
        """Print a message on stderr; the table is drawn below it again."""
        self.clear()
        say(text)
        self._next = 0.0

    def _draw(self) -> None:
        now = time.monotonic()
        if now < self._next:
            return
        columns, rows = shutil.get_terminal_size()
        lines = [_Line(HEADER, is_dim=True), *self._lines(rows - 3), _Line(self._progress, is_dim=True)]
        has_colours = click.get_current_context().color is not False
        shown = [line.trimmed(columns - 1) for line in lines]
        _write(self._erasing(columns, rows) + "\n".join(line.styled(has_colours) for line in shown))
        self._drawn = [line.text for line in shown]
        self._next = now + REDRAWN_AFTER

    def _lines(self, most: int) -> list[_Line]:
        """Return at most so many lines of the table: what was judged True, what is unknown, what is False."""
        ranked = sorted(order_by_verdict([*self._items.values()], self._fusion), key=_group)
        lines: list[_Line] = []
        for item in ranked[: min(self.limit, most)]:
            result = self._result(item)
            if result is not None:
                row, *_ = table_rows(
                    replace(result, rank=len(lines) + 1), all_instances=False, link_host=None
                )
                lines.append(_Line(row, is_dim=item.verdict is None))
        return lines

    def _result(self, item: JudgedCandidate) -> SearchResult | None:
        """Return a candidate's result as far as it is known; None if the photo has been removed meanwhile."""
        photo_id = item.candidate.photo_id
        if photo_id not in self._results:
            for result in results_by_region(self.gallery, [item]):
                self._results[photo_id] = result
        return self._results.get(photo_id)

    def _erasing(self, columns: int, rows: int) -> str:
        """Return the control sequences that remove what is drawn, also if the terminal was resized since."""
        if not self._drawn:
            return ""
        # A terminal that became narrower has wrapped the lines.
        above = sum(max(1, -(-disp_len(line) // columns)) for line in self._drawn) - 1
        up = f"\x1b[{min(above, rows - 1)}A" if above else ""
        return f"\r{up}\x1b[J"


@dataclass(frozen=True, slots=True)
class _Line:
    """One line of the screen."""

    text: str
    is_dim: bool

    def trimmed(self, columns: int) -> _Line:
        return _Line(disp_trim(click.unstyle(self.text), columns), self.is_dim)

    def styled(self, has_colours: bool) -> str:
        return click.style(self.text, dim=True) if self.is_dim and has_colours else self.text


def _group(item: JudgedCandidate) -> int:
    """Return 0 for what was judged True, 1 for what is unknown and 2 for what was judged False."""
    return 1 if item.verdict is None else 0 if item.verdict.margin >= 0 else 2


def _write(text: str) -> None:
    sys.stderr.write(text)
    sys.stderr.flush()
