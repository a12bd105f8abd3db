"""Events of a search, in the order in which `pipeline.search_events` yields them.

Stage1Event  ->  a VerdictEvent per photo judged  ->  a GroundedEvent per photo grounded  ->  FinalEvent
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from matir_cli.records import Candidate
from matir_cli.search.rerank import JudgedCandidate
from matir_cli.search.results import SearchResult


@dataclass(frozen=True, slots=True)
class SearchOutcome:
    """The results of a search, and figures about the search itself."""

    results: list[SearchResult]
    """Best first."""
    truncated: bool
    """True if a text was longer than the encoder reads; its end was ignored."""
    candidates: int
    """Number of photos that stage 1 passed to the judge."""
    judged: int
    """Number of candidates that have a verdict."""
    complete: bool
    """False after Ctrl-C: `results` holds only photos that were judged before it, or see `ungrounded`."""
    best_score: float | None = None
    """Highest score of stage 1, -1..1, even if below `min_score`; None if there was no photo to rank."""
    best_p: float | None = None
    """Highest probability from the judge, 0..1, even if below `min_p`; None if nothing was judged."""
    unanswered: tuple[Path, ...] = ()
    """Candidates about which the judge was asked and could not answer; not in `judged`."""
    other_size: int = 0
    """Number of photos left out because the object that the judge points at has another size than wanted."""
    unlikely: int = 0
    """Number of candidates that were not judged because they are unlikely to be among the results."""
    ungrounded: int = 0
    """Number of results that keep their mask of stage 1, at the end, because Ctrl-C ended the grounding."""
    denied: tuple[JudgedCandidate, ...] = ()
    """Candidates that the judge called False, and that are not among the results."""


@dataclass(frozen=True, slots=True)
class Stage1Event:
    """Stage 1 has ranked the photos. Always the first event."""

    candidates: tuple[Candidate, ...]
    """All photos that the judge may be asked about, best first; without the judge, those of the results."""
    results: tuple[SearchResult, ...]
    """The first `SearchOptions.limit` of them; the mask of each is that of its best region."""
    fusion: float = 0.0
    """Weight of the stage-1 score beside zTrue - zFalse, as in `rerank.order_by_verdict`."""


@dataclass(frozen=True, slots=True)
class VerdictEvent:
    """A candidate has a verdict, from the gallery or the judge, or the judge could not give one."""

    item: JudgedCandidate
    """Its verdict is None if the judge's model computes no numbers for the photo."""
    asked: int
    """Number of candidates with such an event so far, this one included."""


@dataclass(frozen=True, slots=True)
class GroundedEvent:
    """The judge has pointed at the object in one of the photos that are kept."""

    result: SearchResult
    """Its rank is that among the photos kept; the final one is lower if photos before it have an object of
    another size than wanted."""


@dataclass(frozen=True, slots=True)
class FinalEvent:
    """The search is over. Always the last event."""

    outcome: SearchOutcome


SearchEvent: TypeAlias = Stage1Event | VerdictEvent | GroundedEvent | FinalEvent
