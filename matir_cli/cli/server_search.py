"""Searches of a command: by the gallery's server if one runs, else by this process."""

from __future__ import annotations

import logging
from collections.abc import Callable, Generator
from typing import TypeAlias

import click

from matir_cli.cli.boundary import say
from matir_cli.cli.progress import show_progress
from matir_cli.cli.text import count_of
from matir_cli.gallery.database import GalleryFile
from matir_cli.model_sets.session import ModelSession
from matir_cli.photos.decode import decode_timeout
from matir_cli.progress import ProgressObserver
from matir_cli.search.events import GroundedEvent, SearchEvent, SearchOutcome, VerdictEvent
from matir_cli.search.pipeline import SearchOptions, follow_events, search_events
from matir_cli.search.query import Query
from matir_cli.server.runtime import ServerRecord, file_identity, find_server, program_version

SERVER_VARIABLE = "MATIR_SERVER"
"""Environment variable that keeps commands from using a server if it is "off"."""

Observer: TypeAlias = Callable[[SearchEvent], object]
"""Function that is called with each event of a search."""


server_option = click.option(
    "--server/--no-server",
    "use_server",
    default=True,
    envvar=SERVER_VARIABLE,
    show_envvar=True,
    help="Let the server of the gallery search, if one runs (see: matir serve).  [default: server]",
)


class Searcher:
    """Runs the searches of one command."""

    def __init__(self, gallery: GalleryFile, models: ModelSession, *, use_server: bool) -> None:
        """Look for the gallery's server, unless `use_server` is false; and say why it cannot be used."""
        self._gallery, self._models = gallery, models
        # Logs that -v asks for are those of this process.
        wanted = use_server and not logging.getLogger().isEnabledFor(logging.DEBUG)
        self._server = find_server(gallery.path) if wanted else None
        if self._server is not None and (reason := _why_unfit(self._server, models)):
            self._do_without(reason)

    def run(
        self,
        query: Query,
        options: SearchOptions,
        observe: Observer = lambda _: None,
        progress: ProgressObserver = show_progress,
        tell: Callable[[str], None] = say,
    ) -> SearchOutcome:
        """Run a search; errors as in `matir_cli.search.pipeline.run_search`.

        Args:
            observe: called with each event as it comes.
            progress: shows the progress of long steps.
            tell: shows a message about the server while the search is at work.
        """
        if self._server is None:
            return follow_events(self._own_events(query, options, progress), observe)
        # Imported only if there is a server.
        from matir_cli.server.client import ServerUnusable

        seen = set[tuple[type, int]]()

        def note(event: SearchEvent) -> None:
            seen.add(_key(event))
            observe(event)

        try:
            return follow_events(self._server_events(self._server, query, options, progress, tell), note)
        except ServerUnusable as error:
            self._do_without(error.reason, tell)

        def observe_new(event: SearchEvent) -> None:
            if _key(event) not in seen:
                observe(event)

        # The verdicts are remembered, so this search goes on where the other one ended.
        return follow_events(self._own_events(query, options, progress), observe_new)

    def _do_without(self, reason: str | None, tell: Callable[[str], None] = say) -> None:
        self._server = None
        if reason is not None:
            tell(f"the server of this gallery {reason}: searching without it")

    def _own_events(
        self, query: Query, options: SearchOptions, progress: ProgressObserver
    ) -> Generator[SearchEvent, None, None]:
        return search_events(self._gallery, self._models, query, options, progress)

    def _server_events(
        self,
        server: ServerRecord,
        query: Query,
        options: SearchOptions,
        progress: ProgressObserver,
        tell: Callable[[str], None],
    ) -> Generator[SearchEvent, None, None]:
        from matir_cli.server.client import server_events
        from matir_cli.server.messages import SearchRequest, Waiting, wire_examples

        def wait(waiting: Waiting) -> None:
            soon = "" if waiting.seconds is None else f", about {waiting.seconds:.0f} s"
            tell(f"waiting for {count_of(waiting.ahead, 'other search', 'other searches')}{soon}")

        request = SearchRequest(
            gallery=file_identity(self._gallery.path),
            models=self._models.models.handle,
            device=self._models.device,
            decode_seconds=decode_timeout(),
            text=query.text,
            examples=wire_examples(query.examples),
            weight=query.weight,
            without=query.without,
            unlike=wire_examples(query.unlike),
            rule=query.rule,
            options=options,
        )
        return server_events(server, request, progress, wait)


def _why_unfit(server: ServerRecord, models: ModelSession) -> str | None:
    """Return why a server cannot search for a command that has chosen these models; None if it can."""
    version = program_version()
    if server.version != version:
        return f"is of version {server.version}, this program of {version}"
    if (server.models, server.device) != (models.models.handle, models.device):
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
