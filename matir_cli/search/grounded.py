"""Results of the photos that the judge has left: grounded one after the other, and of the size asked for."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import replace

from matir_cli.progress import ProgressObserver
from matir_cli.search.events import GroundedEvent, SearchEvent
from matir_cli.search.filters import Filters
from matir_cli.search.grounding import MatchOptions, results_by_box, results_by_region
from matir_cli.search.rerank import JudgedCandidate, JudgeSession
from matir_cli.search.results import SearchResult
from matir_cli.search.sorting import object_share


def ground_each(
    session: JudgeSession, kept: Sequence[JudgedCandidate], matching: MatchOptions, progress: ProgressObserver
) -> Generator[SearchEvent, None, tuple[list[SearchResult], int]]:
    """Yield an event per photo grounded; return all results and how many Ctrl-C left ungrounded."""
    results: list[SearchResult] = []
    try:
        with progress("grounding", len(kept), "photo") as advance:
            for result in results_by_box(session, kept, matching):
                results.append(result)
                yield GroundedEvent(result)
                advance()
    except KeyboardInterrupt:
        grounded = {result.photo.id for result in results}
        rest = [item for item in kept if item.candidate.photo_id not in grounded]
        others = [*results_by_region(session.gallery, rest)]
        numbered = (replace(each, rank=len(results) + each.rank) for each in others)
        return [*results, *numbered], len(others)
    return results, 0


def drop_other_sizes(results: list[SearchResult], filters: Filters | None) -> list[SearchResult]:
    """Keep the results whose object has the size that the filters ask for, and number them anew.

    Stage 1 admits a photo for any region of that size; the judge may point at another object, or at none.
    """
    if filters is None or not filters.is_sized:
        return results
    kept = [
        result
        for result in results
        if result.grounding is None or (result.objects and filters.fits(object_share(result)))
    ]
    return [replace(result, rank=rank) for rank, result in enumerate(kept, start=1)]
