"""Records of a search's events for JSON output."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

from matir_cli.gallery.union import GalleryReader
from matir_cli.output.json_records import ResultRecord, WrittenFiles, result_record
from matir_cli.search.events import GroundedEvent, SearchEvent, SearchOutcome, Stage1Event, VerdictEvent
from matir_cli.search.grounding import results_by_region
from matir_cli.search.results import SearchResult


@dataclass(frozen=True, slots=True)
class Stage1Record:
    """Stage 1's ranking."""

    event: Literal["stage1"]
    query: str
    candidates: int
    """Number of photos that the judge may be asked about."""
    results: tuple[ResultRecord, ...]
    """The first of them."""
    fusion: float
    """Judged photos are ranked by `logit_margin` + `fusion` x `stage1_score`."""


@dataclass(frozen=True, slots=True)
class VerdictRecord:
    """A verdict; the fields after `asked` are those of `ResultRecord`."""

    event: Literal["verdict"]
    query: str
    asked: int
    """Number of verdicts so far, this one and those that the judge could not give included."""
    path: str
    score: float
    stage1_score: float
    judged: bool
    judge_failed: bool | None
    p_true: float | None
    logit_margin: float | None


@dataclass(frozen=True, slots=True)
class GroundedRecord:
    """An object that the judge has pointed at."""

    event: Literal["grounded"]
    query: str
    result: ResultRecord


@dataclass(frozen=True, slots=True)
class FinalFigures:
    """The end of a search, but for its results."""

    event: Literal["final"]
    query: str
    candidates: int
    """Number of photos that the judge could be asked about."""
    judged: int
    """Number of photos that were judged."""
    unlikely: int
    """Number of candidates left unjudged, since they hardly belong to the results."""
    complete: bool
    """False if the search was interrupted."""


@dataclass(frozen=True, slots=True)
class FinalRecord(FinalFigures):
    """The end of a search and its results."""

    results: tuple[ResultRecord, ...]


EventRecord: TypeAlias = Stage1Record | VerdictRecord | GroundedRecord


def event_record(
    gallery: GalleryReader, query: str, event: SearchEvent, *, all_instances: bool
) -> EventRecord | None:
    """Make the record of an event; None for the final one, and for a photo that has been removed meanwhile.

    Args:
        query: text or other name of the query that the event belongs to.
        all_instances: include every object of a result, not only the first.
    """
    match event:
        case Stage1Event():
            results = tuple(_record(result, all_instances=all_instances) for result in event.results)
            return Stage1Record("stage1", query, len(event.candidates), results, event.fusion)
        case VerdictEvent():
            for result in results_by_region(gallery, [event.item]):
                record = _record(result, all_instances=False)
                return VerdictRecord(
                    "verdict",
                    query,
                    event.asked,
                    record.path,
                    record.score,
                    record.stage1_score,
                    record.judged,
                    record.judge_failed,
                    record.p_true,
                    record.logit_margin,
                )
        case GroundedEvent():
            return GroundedRecord("grounded", query, _record(event.result, all_instances=all_instances))
    return None


def final_figures(query: str, outcome: SearchOutcome) -> FinalFigures:
    """Make the record of the final event without its results, which may be long."""
    return FinalFigures(
        "final", query, outcome.candidates, outcome.judged, outcome.unlikely, outcome.complete
    )


def _record(result: SearchResult, *, all_instances: bool) -> ResultRecord:
    return result_record(result, WrittenFiles(), with_rle=False, all_instances=all_instances)
