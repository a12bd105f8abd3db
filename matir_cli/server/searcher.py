"""Searches by the gallery's server if one runs, else by this process, with the same events."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import TypeAlias

from matir_cli.gallery.union import GalleryReader, GalleryUnion
from matir_cli.photos.decode import decode_timeout
from matir_cli.progress import ProgressObserver
from matir_cli.search.events import FinalEvent, GroundedEvent, SearchEvent, VerdictEvent
from matir_cli.search.models import SearchModels
from matir_cli.search.pipeline import SearchOptions, rank_ahead, search_events
from matir_cli.search.query import Query
from matir_cli.search.stage_1 import Stage1Ranking
from matir_cli.server.runtime import ServerRecord, file_identity, find_server, program_version

Tell: TypeAlias = Callable[[str], object]
"""Function that shows its user a message."""


@dataclass(frozen=True, slots=True)
class ChosenModels:
    """The models that a process searches with; a server must have the same ones."""

    handle: str
    """Model set: its name, or the path of its TOML file."""
    device: str
    """Device that runs the models, as given with --device."""


class Searcher:
    """Searches one gallery by its server, as long as that is there."""

    def __init__(self, gallery: GalleryReader, chosen: ChosenModels, tell: Tell, *, use_server: bool) -> None:
        """Look for the gallery's server, unless `use_server` is false; and say why it cannot be used.

        Several galleries as one have no server.
        """
        self._gallery, self._chosen = gallery, chosen
        use_server = use_server and not isinstance(gallery, GalleryUnion)
        self._server = find_server(gallery.path) if use_server else None
        if self._server is not None and (reason := _why_unfit(self._server, chosen)):
            # Imported only if there is a server.
            from matir_cli.server.client import is_running

            self._do_without(reason if is_running(self._server) else None, tell)

    def events(
        self,
        models: SearchModels,
        query: Query,
        options: SearchOptions,
        progress: ProgressObserver,
        tell: Tell,
        opened: Callable[[Callable[[], None]], object] = lambda _: None,
        ahead: Stage1Ranking | None = None,
    ) -> Generator[SearchEvent, None, None]:
        """Run a search, and yield the events of `matir_cli.search.pipeline.search_events`; errors as there.

        Args:
            models: those of this process, used if the server is not.
            progress: shows the progress of long steps.
            tell: shows a message about the server while the search is at work.
            opened: called with a function that ends the server's search; any thread may call that.
            ahead: of `rank_ahead`; a server does not need it.
        """
        seen = set[tuple[type, int]]()
        if self._server is not None:
            # Imported only if there is a server.
            from matir_cli.server.client import ServerUnusable

            try:
                served = self._server_events(self._server, query, options, progress, tell, opened)
                yield from _unseen(served, seen)
                return
            except ServerUnusable as error:
                self._do_without(error.reason, tell)
        # The verdicts are remembered, so this search goes on where the server's ended.
        yield from _unseen(search_events(self._gallery, models, query, options, progress, ahead), seen)

    def rank_ahead(
        self,
        models: SearchModels,
        queries: Sequence[Query],
        options: SearchOptions,
        progress: ProgressObserver,
    ) -> list[Stage1Ranking | None]:
        """Run stage 1 of several queries for `events`, unless the server searches."""
        if self._server is not None:
            return [None] * len(queries)
        return rank_ahead(self._gallery, models, queries, options, progress)

    def _do_without(self, reason: str | None, tell: Tell) -> None:
        self._server = None
        if reason is not None:
            tell(f"the server of this gallery {reason}: searching without it")

    def _server_events(
        self,
        server: ServerRecord,
        query: Query,
        options: SearchOptions,
        progress: ProgressObserver,
        tell: Tell,
        opened: Callable[[Callable[[], None]], object],
    ) -> Generator[SearchEvent, None, None]:
        from matir_cli.server.client import server_events
        from matir_cli.server.messages import SearchRequest, wire_examples

        request = SearchRequest(
            gallery=file_identity(self._gallery.path),
            models=self._chosen.handle,
            device=self._chosen.device,
            decode_seconds=decode_timeout(),
            text=query.text,
            examples=wire_examples(query.examples),
            weight=query.weight,
            without=query.without,
            unlike=wire_examples(query.unlike),
            rule=query.rule,
            options=options,
        )
        return server_events(server, request, progress, lambda waiting: tell(waiting.message), opened)


def _unseen(
    events: Generator[SearchEvent, None, None], seen: set[tuple[type, int]]
) -> Generator[SearchEvent, None, None]:
    """Yield the events that are not in `seen`, and note them there; Ctrl-C that is thrown in is passed on."""
    with closing(events):
        event = next(events)
        while True:
            stop: KeyboardInterrupt | None = None
            if (key := _key(event)) not in seen:
                seen.add(key)
                try:
                    yield event
                except KeyboardInterrupt as interrupt:
                    if isinstance(event, FinalEvent):
                        raise
                    stop = interrupt
            if isinstance(event, FinalEvent):
                return
            event = next(events) if stop is None else events.throw(stop)


def _why_unfit(server: ServerRecord, chosen: ChosenModels) -> str | None:
    """Return why a server cannot search with the models that were chosen; None if it can."""
    version = program_version()
    if server.version != version:
        return f"is of version {server.version}, this program of {version}"
    if (server.models, server.device) != (chosen.handle, chosen.device):
        return f"has the model set {server.models} on the device {server.device}"
    return None


def _key(event: SearchEvent) -> tuple[type, int]:
    """Return what tells an event from the others of its search."""
    match event:
        case VerdictEvent():
            return VerdictEvent, event.item.candidate.photo_id
        case GroundedEvent():
            return GroundedEvent, event.result.photo.id
    return type(event), 0
