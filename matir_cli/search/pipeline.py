"""The search of `matir find`: from a query to ranked photos with their masks."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

from matir_cli.errors import GalleryEmpty, MatirError, PhotoUnknown
from matir_cli.gallery.bound_models import confirm_models, same_models
from matir_cli.gallery.joint_verdicts import open_cache
from matir_cli.gallery.union import GalleryReader
from matir_cli.progress import ProgressObserver, no_progress
from matir_cli.records import Candidate, MatchRule, check_range
from matir_cli.search.early_stopping import CERTAINTY
from matir_cli.search.encoding import EncodedQuery, encode_query, fusion_weight, match_directions
from matir_cli.search.events import (
    FinalEvent,
    SearchEvent,
    SearchOutcome,
    Stage1Event,
)
from matir_cli.search.filters import Filters
from matir_cli.search.grounded import drop_other_sizes, ground_each
from matir_cli.search.grounding import MatchOptions, results_by_region
from matir_cli.search.index import catch_up_index
from matir_cli.search.judging import JudgingOptions, judge_candidates
from matir_cli.search.models import SearchModels
from matir_cli.search.query import Query
from matir_cli.search.rerank import JudgedCandidate, JudgeQuestion, JudgeSession
from matir_cli.search.sorting import SortKey, sort_results
from matir_cli.search.stage_1 import Stage1Ranking, file_state, rank_each, rank_encoded

CANDIDATES = 100
"""N_C of the paper: photos that the judge looks at."""

KEEP = 50
"""N_K of the paper: photos kept after reranking in an evaluation. A search keeps `limit` photos."""


LEAST_IOU: dict[MatchRule, float] = {"iou": 0.5, "joint": 0.0}
"""Least IoU of a region and the judge's box, by rule. Joint matching needs none: on the drawn world, three of
four regions that it chooses although they hardly meet the box (an IoU below 0.1) are the right ones."""


@dataclass(frozen=True, slots=True)
class SearchOptions:
    """Settings of a search.

    Raises:
        OutOfRange: a number lies outside its range.
    """

    limit: int = 10
    """Photos to return, 1 or more."""
    candidates: int | None = None
    """Photos that the judge looks at, at most (N_C), 1 or more; None: `CANDIDATES`, or `limit` if that is
    more."""
    certainty: float = CERTAINTY
    """Certainty about the first `limit` photos at which judging ends, 0..1 (see `early_stopping`); 1: all
    candidates are judged, as in the paper."""
    rerank: bool = True
    """False: stage 1 only."""
    ground: bool = True
    """False: the judge ranks, and masks are those of the best regions of stage 1."""
    min_score: float | None = None
    """Leave out photos whose best region scores lower in stage 1, where scores are -1..1."""
    min_p: float | None = None
    """Leave out photos with a lower probability from the judge, 0..1, or without one. Needs the judge."""
    match: MatchRule | None = None
    """How stored regions are matched to the judge's boxes; None: as the model set says."""
    min_iou: float | None = None
    """Least IoU of a stored region's box and the judge's box for the region's mask to be used, 0..1; None:
    `LEAST_IOU` of the rule `match`."""
    refine: bool = False
    """Ask the proposer for the mask in the judge's box if no stored region fits it."""
    fresh: bool = False
    """Ask the judge anew; verdicts cached for this query are dropped."""
    whole: bool = False
    """The method as published: stage 1 compares the text as a whole, without its parts, and the whole photo
    is a region like any other."""
    unique: bool = False
    """Leave out near-copies, and other photos of a burst, of photos that rank higher in stage 1."""
    budget: float | None = None
    """Seconds, 0 or more, after which the judge is asked about no further photo; None: no limit."""
    filters: Filters | None = None
    """Restricts the search to a part of the gallery; None: all of it."""
    sort: SortKey = "score"
    """Order of the results that are returned; which ones these are depends on their scores alone."""
    explain: bool = False
    """Let each result say where its score and its mask come from."""

    def __post_init__(self) -> None:
        for name in ("limit", "candidates"):
            check_range(name, getattr(self, name), 1)
        for name in ("certainty", "min_p", "min_iou"):
            check_range(name, getattr(self, name), 0, 1)
        check_range("budget", self.budget, 0)
        check_range("min_score", self.min_score, -math.inf)

    def depth(self, query: Query) -> int:
        """Return the number of photos that stage 1 ranks."""
        if not self.asks_judge(query):
            return self.limit
        return self.candidates or max(CANDIDATES, self.limit)

    def asks_judge(self, query: Query) -> bool:
        """Return whether the judge is asked about `query`: without a text there is nothing to ask."""
        return self.rerank and query.text is not None


def run_search(
    gallery: GalleryReader,
    models: SearchModels,
    query: Query | str,
    options: SearchOptions,
    progress: ProgressObserver = no_progress,
    observe: Callable[[SearchEvent], object] = lambda _: None,
) -> SearchOutcome:
    """Run both stages, as far as `options` ask for them, and return the outcome.

    Args:
        observe: as in `follow_events`.

    Raises:
        MatirError, ValueError: see `search_events`.
    """
    return follow_events(search_events(gallery, models, query, options, progress), observe)


def follow_events(
    events: Generator[SearchEvent, None, None], observe: Callable[[SearchEvent], object] = lambda _: None
) -> SearchOutcome:
    """Let a search run, and return its outcome.

    Args:
        events: those of `search_events`, or of the same search in another process.
        observe: called with each event as it comes. Ctrl-C in it ends the judging as Ctrl-C during a
            question does.
    """
    with closing(events):
        event = next(events)
        while True:
            try:
                observe(event)
            except KeyboardInterrupt as interrupt:
                event = events.throw(interrupt)
                continue
            if isinstance(event, FinalEvent):
                return event.outcome
            event = next(events)


def search_events(
    gallery: GalleryReader,
    models: SearchModels,
    query: Query | str,
    options: SearchOptions,
    progress: ProgressObserver = no_progress,
    ahead: Stage1Ranking | None = None,
) -> Generator[SearchEvent, None, None]:
    """Run both stages, as far as `options` ask for them, and yield what is known as soon as it is.

    A query without a text is never judged. Ctrl-C while photos are judged, thrown in here or raised in a
    question, ends the judging; the final event then has what was judged before. Ctrl-C while photos are
    grounded ends the grounding; the other photos keep their masks of stage 1.

    Args:
        ahead: what `rank_ahead` has found for this query and these options; it is not used if another process
            has written to the gallery since.

    Raises:
        QueryEmpty, QueryNotText, GalleryEmpty: there is nothing to search for, or in.
        QueryContradicts: an excluded text means the same as the query.
        ValueError: `min_p` is set, but the judge is not asked.
        GalleryChanged: the vectors have been made anew with another encoder meanwhile.
        MatirError: as loading and asking the models raise it.
    """
    with same_models(gallery):
        yield from _search_events(gallery, models, as_query(query), options, progress, ahead)


def _search_events(
    gallery: GalleryReader,
    models: SearchModels,
    query: Query,
    options: SearchOptions,
    progress: ProgressObserver,
    ahead: Stage1Ranking | None,
) -> Generator[SearchEvent, None, None]:
    check_searchable(gallery, query)
    judging = options.asks_judge(query)
    if options.min_p is not None and not judging:
        raise ValueError("min_p is a probability of the judge, which is not asked")
    if query.text is not None or query.without:
        models.config("encoder")  # missing weights are reported before any model is loaded
    session = None
    if judging and query.text is not None:
        session = open_judge_session(gallery, models, query.text, fresh=options.fresh, without=query.without)
    catch_up_index(gallery, progress)
    if ahead is not None and not ahead.is_current(gallery):
        ahead = None
    encoded = encode_query(gallery, models, query, whole=options.whole) if ahead is None else ahead.encoded
    known = None if ahead is None else ahead.ranked
    ranked, best_score = _rank(gallery, encoded, options.depth(query), options, known)
    confirm_models(gallery)  # before anything is shown
    first = [JudgedCandidate(candidate, None) for candidate in ranked[: options.limit]]
    results = tuple(results_by_region(gallery, first))
    grounding = judging and options.ground
    matching = _match_options(gallery, models, options, encoded) if grounding else MatchOptions()
    fusion = 0.0 if session is None else fusion_weight(encoded, models)
    yield Stage1Event(tuple(ranked), results, fusion)
    outcome = SearchOutcome([*results], encoded.truncated, 0, 0, complete=True, best_score=best_score)
    if session is not None:
        wanted = JudgingOptions(
            options.limit,
            options.certainty,
            options.budget,
            judge_all_places=options.min_p is not None,
            fusion=fusion,
        )
        session = replace(session, directions=lambda: match_directions(gallery, encoded))
        outcome = yield from _run_stage_2(session, ranked, options, wanted, matching, outcome, progress)
    final = sort_results(outcome.results, options.sort)
    if options.explain:
        from matir_cli.search.explainer import Explainer

        explainer = Explainer(gallery, encoded, judging, matching if grounding else None, fusion)
        final = [explainer.explain(result) for result in final]
    yield FinalEvent(replace(outcome, results=final))


def _run_stage_2(
    session: JudgeSession,
    ranked: Sequence[Candidate],
    options: SearchOptions,
    wanted: JudgingOptions,
    matching: MatchOptions,
    stage_1: SearchOutcome,
    progress: ProgressObserver,
) -> Generator[SearchEvent, None, SearchOutcome]:
    """Judge and ground; yield the events and return the outcome.

    Args:
        ranked: the candidates.
        stage_1: outcome of stage 1 alone.
    """
    judged = yield from judge_candidates(session, ranked, wanted, progress)
    kept = [item for item in judged.items if _is_likely(item, options.min_p)][: options.limit]
    ungrounded = 0
    if options.ground and judged.complete:
        grounded, ungrounded = yield from ground_each(session, kept, matching, progress)
    else:
        grounded = list(results_by_region(session.gallery, kept))
    results = drop_other_sizes(grounded, options.filters)
    shown = {result.photo.id for result in results}
    denied = [
        item
        for item in judged.items
        if item.verdict is not None and item.verdict.margin < 0 and item.candidate.photo_id not in shown
    ]
    probabilities = [item.verdict.p_true for item in judged.items if item.verdict is not None]
    return replace(
        stage_1,
        results=results,
        candidates=len(ranked),
        judged=len(probabilities),
        complete=judged.complete and not ungrounded,
        best_p=max(probabilities, default=None),
        unanswered=_paths(session.gallery, [item for item in judged.items if item.failed]),
        other_size=len(grounded) - len(results),
        ungrounded=ungrounded,
        unlikely=judged.unlikely,
        denied=tuple(denied),
    )


def as_query(query: Query | str) -> Query:
    """Return the query; a plain text becomes one."""
    return Query(query) if isinstance(query, str) else query


def open_judge_session(
    gallery: GalleryReader,
    models: SearchModels,
    text: str,
    *,
    fresh: bool = False,
    without: Sequence[str] = (),
) -> JudgeSession:
    """Set up stage 2 for a text. The judge's files are checked, but not loaded yet.

    Args:
        fresh: drop the verdicts and groundings that are cached for these texts.
        without: texts of objects that must not be in the photo.

    Raises:
        MatirError: the judge or its files are missing.
    """
    key = models.judge_key
    cache = open_cache(gallery, key, text, fresh=fresh)
    excluded = tuple(JudgeQuestion(other, open_cache(gallery, key, other, fresh=fresh)) for other in without)
    return JudgeSession(gallery, lambda: models.judge, cache, text, excluded)


def check_searchable(gallery: GalleryReader, query: Query | str) -> None:
    """Check that there is something to search for and in, without looking for any model.

    Raises:
        QueryEmpty: the query has no word and no example, or an excluded text has no word.
        QueryNotText: a text is not UTF-8.
        GalleryEmpty: there is no photo to search.
    """
    as_query(query).check()
    if gallery.count_photos() == 0:
        raise GalleryEmpty(gallery.path)


def rank_ahead(
    gallery: GalleryReader,
    models: SearchModels,
    queries: Sequence[Query],
    options: SearchOptions,
    progress: ProgressObserver = no_progress,
) -> list[Stage1Ranking | None]:
    """Run stage 1 of several queries, all with or all without a text, in as few passes as memory permits.

    Returns:
        What `search_events` takes for each of the queries. None where it has to run stage 1 itself, because
        there is nothing to gain, or an error to raise.
    """
    nothing: list[Stage1Ranking | None] = [None] * len(queries)
    if len(queries) < 2 or options.unique:
        return nothing
    try:
        with same_models(gallery):
            models.config("encoder")
            catch_up_index(gallery, progress)
            state = file_state(gallery)
            encoded = [_encode(gallery, models, query, options) for query in queries]
            depth = options.depth(queries[0])
            ranked = rank_each(gallery, [each for each in encoded if each], depth, options.filters)
            return [None if each is None else Stage1Ranking(each, next(ranked), state) for each in encoded]
    except MatirError:
        return nothing


def _encode(
    gallery: GalleryReader, models: SearchModels, query: Query, options: SearchOptions
) -> EncodedQuery | None:
    """Encode a query; None if that is an error, which its own search will raise again."""
    with contextlib.suppress(MatirError):
        return encode_query(gallery, models, query, whole=options.whole)
    return None


def _rank(
    gallery: GalleryReader,
    query: EncodedQuery,
    limit: int,
    options: SearchOptions,
    ranked: list[Candidate] | None,
) -> tuple[list[Candidate], float | None]:
    """Return the `limit` best photos that `options` let through, best first, and the best score of all.

    Args:
        ranked: the `limit` best photos, if they are known.
    """
    if not options.unique:
        if ranked is None:
            ranked = rank_encoded(gallery, query, limit, options.filters)
        good = _drop_low_scores(ranked, options.min_score)
        return good, ranked[0].score if ranked else None
    from matir_cli.search.near_copies import PhotoComparison, leave_out_near_copies  # it imports Pillow

    comparison = PhotoComparison(gallery)
    depth = limit
    while True:
        ranked = rank_encoded(gallery, query, depth, options.filters)
        good = _drop_low_scores(ranked, options.min_score)
        kept = leave_out_near_copies(gallery, good, comparison)
        # Photos that were left out make room for others.
        if len(kept) >= limit or len(good) < depth:
            return kept[:limit], ranked[0].score if ranked else None
        depth *= 2


def _drop_low_scores(ranked: list[Candidate], min_score: float | None) -> list[Candidate]:
    return [candidate for candidate in ranked if min_score is None or candidate.score >= min_score]


def _match_options(
    gallery: GalleryReader, models: SearchModels, options: SearchOptions, encoded: EncodedQuery
) -> MatchOptions:
    rule = options.match or models.match
    matching = MatchOptions(LEAST_IOU[rule] if options.min_iou is None else options.min_iou)
    if rule == "joint":
        matching = replace(matching, directions=match_directions(gallery, encoded))
    if not options.refine:
        return matching
    models.config("proposer")  # missing weights are reported now, not after grounding
    return replace(matching, refiner=lambda: models.proposer)


def _is_likely(item: JudgedCandidate, min_p: float | None) -> bool:
    return min_p is None or (item.verdict is not None and item.verdict.p_true >= min_p)


def _paths(gallery: GalleryReader, items: Sequence[JudgedCandidate]) -> tuple[Path, ...]:
    """Return a path of each candidate that the gallery still holds."""
    paths = []
    for item in items:
        with contextlib.suppress(PhotoUnknown):
            paths.append(gallery.photo(item.candidate.photo_id).paths[0])
    return tuple(paths)
