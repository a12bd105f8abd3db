"""Searches of a command: by the gallery's server if one runs, else by this process."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import TypeAlias

import click

from matir_cli.cli.boundary import say
from matir_cli.cli.options.common import without_damaged
from matir_cli.cli.progress import show_progress
from matir_cli.gallery.union import GalleryReader
from matir_cli.model_sets.session import ModelSession
from matir_cli.progress import ProgressObserver
from matir_cli.search.events import SearchEvent, SearchOutcome
from matir_cli.search.pipeline import SearchOptions, follow_events
from matir_cli.search.query import Query
from matir_cli.search.stage_1 import Stage1Ranking
from matir_cli.server.searcher import ChosenModels, Searcher, Tell

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


class CommandSearcher:
    """Runs the searches of one command."""

    def __init__(
        self,
        gallery: GalleryReader,
        models: ModelSession,
        *,
        use_server: bool,
        skip_damaged: bool = False,
    ) -> None:
        """Look for the gallery's server, unless `use_server` is false; and say why it cannot be used.

        Args:
            skip_damaged: of several galleries, leave out one that a search finds damaged, and search again.
        """
        self._gallery, self._models = gallery, models
        self._skips_damaged = skip_damaged
        # Logs that -v asks for are those of this process.
        wanted = use_server and not logging.getLogger().isEnabledFor(logging.DEBUG)
        chosen = ChosenModels(models.models.handle, models.device)
        self._searcher = Searcher(gallery, chosen, say, use_server=wanted)

    def run(
        self,
        query: Query,
        options: SearchOptions,
        observe: Observer = lambda _: None,
        progress: ProgressObserver = show_progress,
        tell: Tell = say,
        ahead: Stage1Ranking | None = None,
    ) -> SearchOutcome:
        """Run a search; errors as in `matir_cli.search.pipeline.run_search`.

        Args:
            observe: called with each event as it comes.
            progress: shows the progress of long steps.
            tell: shows a message about the server while the search is at work.
            ahead: of `rank_ahead`.
        """

        def search() -> SearchOutcome:
            events = self._searcher.events(self._models, query, options, progress, tell, ahead=ahead)
            return follow_events(events, observe)

        return without_damaged(self._gallery, search, skip_missing=self._skips_damaged)

    def rank_ahead(self, queries: Sequence[Query], options: SearchOptions) -> list[Stage1Ranking | None]:
        """Run stage 1 of several queries together, for `run`; None where `run` has to do it."""
        return self._searcher.rank_ahead(self._models, queries, options, show_progress)
