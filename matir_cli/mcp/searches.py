"""Searches for a client: run by the gallery's server if one runs, else here; the last ones are kept."""

from __future__ import annotations

import re
import secrets
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Generator
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import TypeAlias

from matir_cli.gallery.database import GalleryFile
from matir_cli.mcp.options import McpOptions, ToolRefused
from matir_cli.mcp.records import ResultPage, found_photo
from matir_cli.progress import ProgressObserver
from matir_cli.search.events import SearchEvent, SearchOutcome
from matir_cli.search.models import SearchModels
from matir_cli.search.query import Query
from matir_cli.search.results import SearchResult
from matir_cli.server.jobs import Jobs, QueueFull, Search, SearchJob
from matir_cli.server.messages import Message
from matir_cli.server.searcher import ChosenModels, Searcher

KEPT_SEARCHES = 16
"""Searches whose results can still be asked for."""

Report: TypeAlias = Callable[[float, float | None, str], Awaitable[None]]
"""Tells a client how far its request is: steps done, all steps if known, and a few words."""

_CURSOR = re.compile(r"([0-9a-f]{12})\.([0-9]{1,4})\.([0-9]{1,2})", re.ASCII)
"""Name of a search, number of results before the page, and results per page."""

_TICK = 1e-3
"""What a report without a further step adds: each must have a greater number than the one before."""


@dataclass(frozen=True, slots=True)
class KeptSearch:
    """A search that is over."""

    name: str
    outcome: SearchOutcome

    @property
    def results(self) -> list[SearchResult]:
        """Its results, best first."""
        return self.outcome.results

    def page(self, start: int, size: int) -> ResultPage:
        """Return `size` results after the first `start`."""
        shown = self.results[start : start + size]
        end = start + len(shown)
        return ResultPage(
            search=self.name,
            total=len(self.results),
            judged=self.outcome.judged,
            results=[found_photo(each) for each in shown],
            next_cursor=f"{self.name}.{end}.{size}" if end < len(self.results) else None,
            notes=_notes(self.outcome),
        )


class Searches:
    """The searches of a client. Its methods run in the event loop."""

    def __init__(self, options: McpOptions) -> None:
        """Prepare the models, which are loaded when they are first used."""
        self._options = options
        self._jobs = Jobs(options.gallery, options.models, options.device, options.idle_seconds, options.log)
        self._kept: OrderedDict[str, KeptSearch] = OrderedDict()

    async def run(self, search: Search, report: Report) -> KeptSearch:
        """Run a search. If this is cancelled, the search ends at the next photo.

        Raises:
            ToolRefused: too many are at work.
            MatirError: as the search raises it.
        """
        try:
            job = self._jobs.start(replace(search, kept=False, source=self._source(search)))
        except QueueFull:
            raise ToolRefused(
                f"{self._jobs.active} searches are at work; wait for one, or cancel one"
            ) from None
        try:
            outcome = await _outcome(job, report)
        finally:
            job.expect_listener()  # there is none any more: it ends if it is not over
        kept = KeptSearch(secrets.token_hex(6), outcome)
        self._kept[kept.name] = kept
        while len(self._kept) > KEPT_SEARCHES:
            self._kept.popitem(last=False)
        return kept

    def get(self, name: str) -> KeptSearch:
        """Return a kept search; ToolRefused if there is none with this name."""
        if name not in self._kept:
            raise ToolRefused(
                f"no search {name!r} is kept (the last {KEPT_SEARCHES} are): search again with search_photos"
            )
        self._kept.move_to_end(name)
        return self._kept[name]

    def next_page(self, cursor: str) -> ResultPage:
        """Return the page that a cursor means; ToolRefused if it means none."""
        parts = _CURSOR.fullmatch(cursor)
        if parts is None or not int(parts[3]):
            raise ToolRefused("this is no cursor: give the next_cursor of a page")
        return self.get(parts[1]).page(int(parts[2]), int(parts[3]))

    def end(self) -> None:
        """End all searches."""
        self._jobs.end_all("the program ends")

    def _source(
        self, search: Search
    ) -> Callable[
        [SearchJob, GalleryFile, SearchModels, Query, ProgressObserver], Generator[SearchEvent, None, None]
    ]:
        options = self._options

        def events(
            job: SearchJob,
            gallery: GalleryFile,
            models: SearchModels,
            query: Query,
            progress: ProgressObserver,
        ) -> Generator[SearchEvent, None, None]:
            def tell(text: str) -> None:
                job.check()
                job.send(Message(note=text))

            chosen = ChosenModels(options.models, options.device)
            searcher = Searcher(gallery, chosen, tell, use_server=options.use_server)
            return searcher.events(models, query, search.options, progress, tell, job.call_at_end)

        return events


async def _outcome(job: SearchJob, report: Report) -> SearchOutcome:
    """Follow a search to its end; errors as in `Searches.run`."""
    done, total = 0.0, None
    async with aclosing(job.messages()) as messages:
        async for _, message in messages:
            said = ""
            if message.stage1 is not None:
                total = float(len(message.stage1.candidates) + len(message.stage1.results))
                said = "stage 1 has ranked the photos"
            elif message.verdict is not None:
                done, said = max(done, message.verdict.asked), "judging"
            elif message.grounded is not None:
                done, said = done + 1, "pointing at the object"
            elif message.waiting is not None or message.note is not None:
                said = message.note or (message.waiting.message if message.waiting is not None else "")
            if said:
                done += _TICK
                await report(done, total, said)
            if message.final is not None:
                return message.final.outcome
            if message.error is not None:
                raise message.error.error()
            if message.is_last:
                raise ToolRefused(f"the search did not end: {message.fault or 'it was stopped'}; try again")
    raise ToolRefused("the search did not end; try again")


def _notes(outcome: SearchOutcome) -> list[str]:
    """Return what a client should know of a search besides its results."""
    notes = []
    if outcome.truncated:
        notes.append("the text is longer than the encoder reads; its end was left out")
    if outcome.unlikely:
        notes.append(
            f"{outcome.unlikely} candidates were not judged: they are unlikely to be among the results"
        )
    if outcome.unanswered:
        notes.append(f"{len(outcome.unanswered)} photos could not be judged")
    if outcome.other_size:
        notes.append(f"{outcome.other_size} photos left out: the object does not have the size asked for")
    if not outcome.results:
        notes.append(_why_empty(outcome))
    return notes


def _why_empty(outcome: SearchOutcome) -> str:
    if outcome.best_score is None:
        return "nothing found: no photo passes the filters"
    if outcome.best_p is not None:
        return f"nothing found: the judge gives the best photo {outcome.best_p:.3f}"
    return f"nothing found: the best photo scores {outcome.best_score:.3f}"
