"""The explanation of one photo of a search, from what is remembered: the judge is not asked."""

from __future__ import annotations

from dataclasses import replace

import msgspec

from matir_cli.gallery.database import GalleryFile
from matir_cli.model_sets.session import ModelSession
from matir_cli.search.explanation import Explanation
from matir_cli.search.filters import Filters
from matir_cli.search.pipeline import SearchOptions, run_search
from matir_cli.server.engines import JobModels, WarmEngines
from matir_cli.server.searches import SearchBody


class ExplanationBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A photo to explain."""

    search: SearchBody
    photo: int
    """Id of the photo."""


class _NotRemembered(Exception):
    """The judge would have to be asked."""


def explain_photo(
    gallery: GalleryFile, session: ModelSession, engines: WarmEngines, wanted: ExplanationBody
) -> Explanation | None:
    """Return where the score and the mask of a photo come from; None if the search does not find it.

    The search is run for this photo alone. Scores are the same as among all photos, since they are measured
    against the whole gallery.

    Raises:
        PhotoUnknown: there is no photo with that id.
        ValueError: a date of the search is none.
        MatirError: as the search raises it.
    """
    search = wanted.search.search()
    filters = search.options.filters or Filters()
    options = replace(
        search.options,
        limit=1,
        candidates=1,
        certainty=1.0,
        min_score=None,
        min_p=None,
        budget=None,
        unique=False,
        fresh=False,
        filters=replace(filters, places=gallery.photo(wanted.photo).paths[:1]),
        explain=True,
    )
    models = JobModels(session, engines, _refuse)
    query = search.prepare(gallery, models)
    for each in _by_what_is_remembered(options):
        try:
            outcome = run_search(gallery, models, query, each)
        except _NotRemembered:
            continue
        return outcome.results[0].explanation if outcome.results else None
    return None


def _by_what_is_remembered(options: SearchOptions) -> tuple[SearchOptions, ...]:
    """Return the options for a photo that was grounded, for one that was judged, and for any other."""
    ranked = replace(options, rerank=False, ground=False)
    if not options.rerank:
        return (ranked,)
    judged = replace(options, ground=False)
    return (options, judged, ranked) if options.ground else (judged, ranked)


def _refuse() -> None:
    raise _NotRemembered
