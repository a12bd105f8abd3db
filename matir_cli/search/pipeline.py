"""`matir find`: a query becomes a ranked list of photos, each with the object's mask."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

from matir_cli.errors import GalleryEmpty
from matir_cli.gallery.database import GalleryFile
from matir_cli.gallery.verdict_cache import VerdictCache
from matir_cli.masks import area
from matir_cli.progress import ProgressObserver, no_progress
from matir_cli.records import Candidate, FloatArray, check_range
from matir_cli.search.filters import Filters
from matir_cli.search.grounding import MatchOptions, results_by_box, results_by_region
from matir_cli.search.models import SearchModels
from matir_cli.search.query import Query, encode_query
from matir_cli.search.rank import rank_photos
from matir_cli.search.rerank import (
    JudgedCandidate,
    JudgeQuestion,
    JudgeSession,
    order_by_verdict,
    rerank_candidates,
)
from matir_cli.search.results import SearchResult

CANDIDATES = 100
"""N_C of the paper."""

KEEP = 50
"""N_K of the paper: photos left after reranking in an evaluation; a search keeps its `limit`."""


@dataclass(frozen=True, slots=True)
class SearchOptions:
    """Where to look, how far to go, and what is good enough.

    Raises:
        OutOfRange: a number lies outside its range.
    """

    limit: int = 10
    """Photos to return, 1 or more."""
    candidates: int | None = None
    """Photos that the judge looks at (N_C), 1 or more; None: `CANDIDATES`, or `limit` if that is more."""
    rerank: bool = True
    """False: stage 1 alone."""
    ground: bool = True
    """False: the judge ranks, but the mask is that of stage 1's best region."""
    min_score: float | None = None
    """Leave out photos whose best region scores lower in stage 1, where scores are -1..1."""
    min_p: float | None = None
    """Leave out photos that the judge gives a lower probability, 0..1, or did not judge. Needs the judge."""
    min_iou: float = 0.5
    """How well a stored region must fit the judge's box, 0..1."""
    refine: bool = False
    """Where none fits, ask the proposer for the mask in the box."""
    fresh: bool = False
    """Ask the judge anew, forgetting what it said of this query."""
    budget: float | None = None
    """Seconds, 0 or more, after which the judge is asked about no further photo."""
    within: Filters | None = None
    """The part of the gallery to search; None: all of it."""

    def __post_init__(self) -> None:
        for name in ("limit", "candidates"):
            check_range(name, getattr(self, name), 1)
        for name in ("min_p", "min_iou"):
            check_range(name, getattr(self, name), 0, 1)
        check_range("budget", self.budget, 0)
        check_range("min_score", self.min_score, -math.inf)

    def asks_judge(self, query: Query) -> bool:
        """Return whether the judge is asked about `query`: without a text there is nothing to ask."""
        return self.rerank and query.text is not None


@dataclass(frozen=True, slots=True)
class SearchOutcome:
    """What a search came to."""

    found: list[SearchResult]
    """Best first."""
    truncated: bool
    """The query was longer than the encoder reads; its end was left out."""
    candidates: int
    """Photos that stage 1 handed to the judge."""
    judged: int
    """How many of them have a verdict."""
    complete: bool
    """False after Ctrl-C: `found` holds only what was judged before it."""
    best_score: float | None = None
    """The highest score of stage 1, -1..1, good enough or not; None where there was no photo to look at."""
    best_p: float | None = None
    """The highest probability that the judge gave, likewise, 0..1."""
    other_size: int = 0
    """Photos left out because the object that the judge points at has not the size asked for."""


def run_search(
    gallery: GalleryFile,
    models: SearchModels,
    wanted: Query | str,
    settings: SearchOptions,
    progress: ProgressObserver = no_progress,
) -> SearchOutcome:
    """Both stages, as far as `settings` go; a query without a text has no words for the judge.

    Raises:
        QueryEmpty, GalleryEmpty: there is nothing to search for, or in.
        QueryContradicts: what is not wanted says the same as what is.
        ValueError: `min_p` where the judge is not asked.
        MatirError: what loading and asking the models raise.
    """
    asked = as_query(wanted)
    check_searchable(gallery, asked)
    judging = settings.asks_judge(asked)
    if settings.min_p is not None and not judging:
        raise ValueError("min_p is about what the judge says, and it is not asked")
    if asked.text is not None or asked.without:
        models.config("encoder")
    room = None
    if judging and asked.text is not None:
        room = open_judge_session(gallery, models, asked.text, fresh=settings.fresh, without=asked.without)
    encoded = encode_query(gallery, models, asked)
    width = settings.limit if room is None else settings.candidates or max(CANDIDATES, settings.limit)
    ranked = rank_candidates(gallery, encoded.vector, width, within=settings.within)
    best_score = ranked[0].score if ranked else None
    ranked = _good_enough(ranked, settings.min_score)
    if room is None:
        found = list(results_by_region(gallery, [JudgedCandidate(item, None) for item in ranked]))
        return SearchOutcome(found, encoded.truncated, 0, 0, complete=True, best_score=best_score)
    judged, complete = _judge(room, ranked, settings, progress)
    ranking = order_by_verdict([item for item in judged if _is_likely(item, settings.min_p)])
    kept = ranking[: settings.limit]
    if settings.ground and complete:
        grounded = _ground(room, kept, _matching(models, settings), progress)
    else:
        grounded = list(results_by_region(gallery, kept))
    found = _sized(grounded, settings.within)
    verdicts = [item.verdict.p_true for item in judged if item.verdict is not None]
    return SearchOutcome(
        found,
        encoded.truncated,
        len(ranked),
        len(verdicts),
        complete,
        best_score,
        max(verdicts, default=None),
        len(grounded) - len(found),
    )


def as_query(wanted: Query | str) -> Query:
    """A text by itself is a query, too."""
    return Query(wanted) if isinstance(wanted, str) else wanted


def open_judge_session(
    gallery: GalleryFile,
    models: SearchModels,
    text: str,
    *,
    fresh: bool = False,
    without: Sequence[str] = (),
) -> JudgeSession:
    """What stage 2 needs; its weights must be here, but nothing is loaded yet."""
    key = models.judge_key
    memory = VerdictCache(gallery, key, text, fresh=fresh)
    others = tuple(JudgeQuestion(other, VerdictCache(gallery, key, other, fresh=fresh)) for other in without)
    return JudgeSession(gallery, lambda: models.judge, memory, text, others)


def check_searchable(gallery: GalleryFile, wanted: Query | str) -> None:
    """Make sure that there is something to search for and in, before any model is looked for.

    Raises:
        QueryEmpty: there is no word in it, and no example.
        GalleryEmpty: there is no photo to search.
    """
    as_query(wanted).check()
    if gallery.count_photos() == 0:
        raise GalleryEmpty(gallery.path)


def rank_candidates(
    gallery: GalleryFile,
    vector: FloatArray,
    limit: int,
    min_score: float | None = None,
    within: Filters | None = None,
) -> list[Candidate]:
    """Stage 1: the `limit` photos whose best region is nearest to `vector`, best first (eq. 1).

    Args:
        vector: (d,) float32 of unit length, of the encoder that the gallery was made with.
        min_score: leave out photos whose best region scores below it.
        within: the part of the gallery to search.
    """
    return _good_enough(rank_photos(gallery, vector, limit, within), min_score)


def _good_enough(ranked: list[Candidate], min_score: float | None) -> list[Candidate]:
    return [candidate for candidate in ranked if min_score is None or candidate.score >= min_score]


def _matching(models: SearchModels, settings: SearchOptions) -> MatchOptions:
    if not settings.refine:
        return MatchOptions(settings.min_iou)
    models.config("proposer")  # missing weights are said now, not after the judge's work
    return MatchOptions(settings.min_iou, lambda: models.proposer)


def _judge(
    room: JudgeSession, ranked: Sequence[Candidate], settings: SearchOptions, progress: ProgressObserver
) -> tuple[list[JudgedCandidate], bool]:
    """The candidates as judged; after Ctrl-C those judged so far, and False."""
    end = None if settings.budget is None else time.monotonic() + settings.budget
    judged: list[JudgedCandidate] = []
    complete = True
    try:
        with progress("judging", len(ranked), "photo") as advance:
            for item in rerank_candidates(room, ranked, lambda: end is None or time.monotonic() < end):
                judged.append(item)
                advance()
    except KeyboardInterrupt:
        complete = False
        judged = [item for item in judged if item.verdict is not None]
    return judged, complete


def _is_likely(item: JudgedCandidate, min_p: float | None) -> bool:
    return min_p is None or (item.verdict is not None and item.verdict.p_true >= min_p)


def _ground(
    room: JudgeSession, kept: Sequence[JudgedCandidate], matching: MatchOptions, progress: ProgressObserver
) -> list[SearchResult]:
    found: list[SearchResult] = []
    with progress("grounding", len(kept), "photo") as advance:
        for item in results_by_box(room, kept, matching):
            found.append(item)
            advance()
    return found


def _sized(found: list[SearchResult], within: Filters | None) -> list[SearchResult]:
    """Those whose object, as the judge points at it, has the size asked for; ranked anew.

    Stage 1 let a photo in for a region of that size; the judge may have meant another object, or none.
    """
    if within is None or not within.is_sized:
        return found
    fitting = [item for item in found if item.grounding is None or _has_size(item, within)]
    return [replace(item, rank=rank) for rank, item in enumerate(fitting, start=1)]


def _has_size(item: SearchResult, within: Filters) -> bool:
    """Judged by the mask, where there is none by the judge's box."""
    if not item.answers:
        return False
    size, answer = item.photo.record, item.answers[0]
    if answer.mask is not None:
        return within.fits(size.share(area(answer.mask)))
    return within.fits(answer.box.area / (size.width * size.height))
