"""`matir find`: a query becomes a ranked list of photos, each with the object's mask."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import TypeAlias

from matir_cli import answers, rerank, search
from matir_cli.answers import Found, Matching
from matir_cli.errors import GalleryEmpty, QueryEmpty
from matir_cli.gallery import GalleryFile
from matir_cli.loading import Engines
from matir_cli.records import Candidate, FloatArray
from matir_cli.rerank import Judged, JudgeRoom
from matir_cli.verdicts import Verdicts

CANDIDATES = 100
"""N_C of the paper."""

KEEP = 50
"""N_K of the paper."""

Watch: TypeAlias = Callable[[int, str], AbstractContextManager[Callable[[], object]]]
"""Told how many photos a step has and its name; gives what to call after each photo."""


@dataclass(frozen=True, slots=True)
class Search:
    """How far to go, and what is good enough."""

    limit: int = 10
    """Photos to return."""
    candidates: int | None = None
    """Photos that the judge looks at (N_C); None: `CANDIDATES`, or `limit` if that is more."""
    keep: int | None = None
    """Photos left after reranking (N_K); None: `KEEP`, or `limit` if that is more."""
    rerank: bool = True
    """False: stage 1 alone."""
    ground: bool = True
    """False: the judge ranks, but the mask is that of stage 1's best region."""
    min_score: float | None = None
    """Leave out photos whose best region scores lower in stage 1, -1..1."""
    min_p: float | None = None
    """Leave out photos that the judge gives a lower probability, 0..1, or did not judge."""
    min_iou: float = 0.5
    """How well a stored region must fit the judge's box."""
    refine: bool = False
    """Where none fits, ask the proposer for the mask in the box."""
    fresh: bool = False
    """Ask the judge anew, forgetting what it said of this query."""
    budget: float | None = None
    """Seconds after which the judge is asked about no further photo."""


@dataclass(frozen=True, slots=True)
class Result:
    """What a search came to."""

    found: list[Found]
    """Best first."""
    truncated: bool
    """The query was longer than the encoder reads; its end was left out."""
    candidates: int
    """Photos that stage 1 handed to the judge."""
    judged: int
    """How many of them have a verdict."""
    complete: bool
    """False after Ctrl-C: `found` holds only what was judged before it."""


def _unwatched(_total: int, _name: str) -> AbstractContextManager[Callable[[], object]]:
    return nullcontext(lambda: None)


def find(
    gallery: GalleryFile, engines: Engines, query: str, settings: Search, watch: Watch = _unwatched
) -> Result:
    """Both stages, as far as `settings` go.

    Raises:
        QueryEmpty, GalleryEmpty: there is nothing to search for, or in.
        MatirError: what loading and asking the models raise.
    """
    check_askable(gallery, query)
    engines.config("encoder")
    room = judge_room(gallery, engines, query, fresh=settings.fresh) if settings.rerank else None
    asked = engines.text_encoder.encode(query)
    width = settings.limit if room is None else settings.candidates or max(CANDIDATES, settings.limit)
    ranked = candidates(gallery, asked.vector, width, settings.min_score)
    if room is None:
        found = list(answers.by_region(gallery, [Judged(item, None) for item in ranked]))
        return Result(found, asked.truncated, 0, 0, complete=True)
    judged, complete = _judge(room, ranked, settings, watch)
    ranking = rerank.in_order([item for item in judged if _is_likely(item, settings.min_p)])
    kept = ranking[: min(settings.keep or max(KEEP, settings.limit), settings.limit)]
    if settings.ground and complete:
        found = _ground(room, kept, _matching(engines, settings), watch)
    else:
        found = list(answers.by_region(gallery, kept))
    verdicts = sum(item.verdict is not None for item in judged)
    return Result(found, asked.truncated, len(ranked), verdicts, complete)


def judge_room(gallery: GalleryFile, engines: Engines, query: str, *, fresh: bool = False) -> JudgeRoom:
    """What stage 2 needs; its weights must be here, but nothing is loaded yet."""
    memory = Verdicts(gallery, engines.judge_key, query, fresh=fresh)
    return JudgeRoom(gallery, lambda: engines.judge, memory, query)


def check_askable(gallery: GalleryFile, query: str) -> None:
    """Make sure that there is something to search for and in, before any model is looked for.

    Raises:
        QueryEmpty: there is no word in it.
        GalleryEmpty: there is no photo to search.
    """
    if not query.strip():
        raise QueryEmpty
    if gallery.count_photos() == 0:
        raise GalleryEmpty(gallery.path)


def candidates(
    gallery: GalleryFile, query: FloatArray, limit: int, min_score: float | None = None
) -> list[Candidate]:
    """Stage 1: the `limit` photos whose best region is nearest to `query`, best first (eq. 1).

    Args:
        query: (d,) float32 of unit length, of the encoder that the gallery was made with.
        min_score: leave out photos whose best region scores below it.
    """
    ranked = search.rank(gallery, query, limit)
    return [candidate for candidate in ranked if min_score is None or candidate.score >= min_score]


def _matching(engines: Engines, settings: Search) -> Matching:
    if not settings.refine:
        return Matching(settings.min_iou)
    engines.config("proposer")  # missing weights are said now, not after the judge's work
    return Matching(settings.min_iou, lambda: engines.proposer)


def _judge(
    room: JudgeRoom, ranked: Sequence[Candidate], settings: Search, watch: Watch
) -> tuple[list[Judged], bool]:
    """The candidates as judged; after Ctrl-C those judged so far, and False."""
    end = None if settings.budget is None else time.monotonic() + settings.budget
    judged: list[Judged] = []
    complete = True
    try:
        with watch(len(ranked), "judging") as advance:
            for item in rerank.rerank(room, ranked, lambda: end is None or time.monotonic() < end):
                judged.append(item)
                advance()
    except KeyboardInterrupt:
        complete = False
        judged = [item for item in judged if item.verdict is not None]
    return judged, complete


def _is_likely(item: Judged, min_p: float | None) -> bool:
    return min_p is None or (item.verdict is not None and item.verdict.p_true >= min_p)


def _ground(room: JudgeRoom, kept: Sequence[Judged], matching: Matching, watch: Watch) -> list[Found]:
    found: list[Found] = []
    with watch(len(kept), "grounding") as advance:
        for item in answers.by_box(room, kept, matching):
            found.append(item)
            advance()
    return found
