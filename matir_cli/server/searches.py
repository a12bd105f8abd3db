"""Searches of the HTTP API: what a request may ask, and the records of its events."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, TypeAlias

import msgspec
from msgspec import Meta

from matir_cli.gallery.database import GalleryFile
from matir_cli.output.json_encoding import to_json
from matir_cli.output.json_records import ResultRecord, WrittenFiles, result_record
from matir_cli.output.outlines import svg_path
from matir_cli.photos.descriptive import HIGHEST, REJECTED
from matir_cli.records import Box, MatchRule, Point
from matir_cli.search.early_stopping import CERTAINTY
from matir_cli.search.filters import WITHIN, Filters, Orientation, parse_date
from matir_cli.search.models import SearchModels
from matir_cli.search.pipeline import SearchOptions
from matir_cli.search.query import (
    MOST_EXAMPLES,
    ExampleRule,
    Query,
    ResolvedExample,
    resolve_in_gallery,
    resolve_region,
)
from matir_cli.search.results import SearchResult
from matir_cli.search.sorting import SortKey, object_share
from matir_cli.server.jobs import Search
from matir_cli.server.messages import Message

MOST_RESULTS = 1000
"""Results of a search at most."""

MOST_CANDIDATES = 10_000
"""Photos that the judge looks at, at most."""

Share: TypeAlias = Annotated[float, Meta(ge=0, le=1)]

Text: TypeAlias = Annotated[str, Meta(max_length=2000)]

Latitude: TypeAlias = Annotated[float, Meta(ge=-90, le=90)]

Longitude: TypeAlias = Annotated[float, Meta(ge=-180, le=180)]

Stars: TypeAlias = Annotated[int, Meta(ge=REJECTED, le=HIGHEST)]

Number: TypeAlias = Annotated[float, Meta(ge=-1e9, le=1e9)]


class ExampleBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An object shown in a photo of the gallery: a region, or a photo with a box or a point."""

    region: int | None = None
    """Id of a region."""
    photo: int | None = None
    """Id of a photo; without box and point it is the whole photo."""
    box: tuple[Number, Number, Number, Number] | None = None
    """X0, Y0, X1, Y1 in photo pixels."""
    point: tuple[Number, Number] | None = None
    """X, Y in photo pixels."""

    def __post_init__(self) -> None:
        if (self.region is None) == (self.photo is None):
            raise ValueError("an example is a region or a photo")
        if self.photo is None and (self.box is not None or self.point is not None):
            raise ValueError("a box or point needs a photo")
        if self.box is not None and self.point is not None:
            raise ValueError("give a box or a point, not both")
        if self.box is not None and not (self.box[0] < self.box[2] and self.box[1] < self.box[3]):
            raise ValueError("a box has X0 < X1 and Y0 < Y1")

    def resolve(self, gallery: GalleryFile, models: SearchModels) -> ResolvedExample:
        """Find the region that is meant; errors as in `resolve_in_gallery`."""
        if self.region is not None:
            return resolve_region(gallery, self.region)
        assert self.photo is not None
        box = None if self.box is None else Box(*self.box)
        point = None if self.point is None else Point(*self.point)
        return resolve_in_gallery(gallery, models, self.photo, box, point)


Examples: TypeAlias = Annotated[list[ExampleBody], Meta(max_length=MOST_EXAMPLES)]


class SearchBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A search, with the settings of `matir find`."""

    text: Text | None = None
    without: Annotated[list[Text], Meta(max_length=20)] = []
    examples: Examples = []
    """Objects to find; a region is compared with the one that it is most like."""
    unlike: Examples = []
    """Objects not to find."""
    rule: ExampleRule = "max"
    """"mean": regions are compared with the mean of the examples."""
    weight: Share = 0.5
    places: Annotated[list[Text], Meta(max_length=100)] = []
    """Absolute paths of folders or files. They are compared with those in the gallery; none is opened."""
    since: Text | None = None
    until: Text | None = None
    camera: Text | None = None
    min_size: Share | None = None
    max_size: Share | None = None
    near: tuple[Latitude, Longitude] | None = None
    within: Annotated[float, Meta(gt=0, le=1e9)] = WITHIN
    """Metres."""
    has_gps: bool | None = None
    orientation: Orientation | None = None
    rating: tuple[Stars, Stars] | None = None
    """Least and greatest, -1 (rejected) to 5."""
    keywords: Annotated[list[Text], Meta(max_length=100)] = []
    no_keywords: Annotated[list[Text], Meta(max_length=100)] = []
    sort: SortKey = "score"
    limit: Annotated[int, Meta(ge=1, le=MOST_RESULTS)] = 50
    candidates: Annotated[int, Meta(ge=1, le=MOST_CANDIDATES)] | None = None
    certainty: Share = CERTAINTY
    rerank: bool = True
    ground: bool = True
    whole: bool = False
    min_score: Number | None = None
    min_p: Share | None = None
    unique: bool = False
    match: MatchRule | None = None
    min_iou: Share | None = None
    refine: bool = False
    fresh: bool = False
    budget: Annotated[float, Meta(ge=0)] | None = None
    explain: bool = False
    outlines: Annotated[int, Meta(ge=0, le=MOST_RESULTS)] = MOST_RESULTS
    """Results, from the first on, that come with the outline of their region."""

    def __post_init__(self) -> None:
        if self.text is None and not self.examples:
            raise ValueError("describe an object in text, or show one in examples")
        if self.min_p is not None and (self.text is None or not self.rerank):
            raise ValueError("min_p needs the judge: give a text, and rerank")
        if not all(os.path.isabs(place) for place in self.places):  # noqa: PTH117 - no Path yet
            raise ValueError("places are absolute paths")

    def search(self) -> Search:
        """Return the search; ValueError if a date is none."""
        filters = Filters(
            tuple(map(Path, self.places)),
            None if self.since is None else parse_date(self.since),
            None if self.until is None else parse_date(self.until),
            self.camera,
            self.min_size,
            self.max_size,
            near=self.near,
            within=self.within,
            has_gps=self.has_gps,
            orientation=self.orientation,
            rating=self.rating,
            keywords=tuple(self.keywords),
            no_keywords=tuple(self.no_keywords),
        )
        options = SearchOptions(
            limit=self.limit,
            candidates=self.candidates,
            certainty=self.certainty,
            rerank=self.rerank,
            ground=self.ground,
            whole=self.whole,
            min_score=self.min_score,
            min_p=self.min_p,
            unique=self.unique,
            match=self.match,
            min_iou=self.min_iou,
            refine=self.refine,
            fresh=self.fresh,
            budget=self.budget,
            filters=None if filters == Filters() else filters,
            sort=self.sort,
            explain=self.explain,
        )
        title = self.text or "like an example"
        return Search(self._query, options, title, kept=True, outlines=self.outlines)

    def _query(self, gallery: GalleryFile, models: SearchModels) -> Query:
        good, bad = (
            tuple(each.resolve(gallery, models) for each in some) for some in (self.examples, self.unlike)
        )
        return Query(self.text, good, self.weight, tuple(self.without), bad, self.rule)


@dataclass(frozen=True, slots=True)
class ShownResult:
    """A result with what a page needs to draw it."""

    photo: int
    """Id of the photo."""
    region_id: int | None
    """Id of the region whose mask it is, or that fits best."""
    mask_width: int
    """Working pixels."""
    mask_height: int
    outline: str | None
    """SVG path of the mask, in half working pixels, to be filled by the even-odd rule."""
    taken_at: str | None
    camera: str | None
    share: float | None
    """Fraction of the photo that the object covers, 0..1, by which `sort` orders results by size."""
    result: ResultRecord
    """As in the output of `matir find --json`."""


@dataclass(frozen=True, slots=True)
class ShownVerdict:
    """A verdict on a photo."""

    photo: int
    asked: int
    """Number of verdicts so far, this one and those that the judge could not give included."""
    stage1_score: float
    p_true: float | None
    logit_margin: float | None
    failed: bool | None
    """True if the judge could not answer."""


def shown_result(result: SearchResult, *, outlined: bool = True) -> ShownResult:
    """Make the record of a result.

    Args:
        outlined: False leaves out the outline of a mask that is a region's, which takes some milliseconds.
    """
    first = result.objects[0] if result.objects else None
    mask = None if first is None else first.mask
    if first is not None and first.region is not None and first.region.region.rle == mask and not outlined:
        mask = None
    record = result.photo.record
    return ShownResult(
        photo=result.photo.id,
        region_id=None if first is None or first.region is None else first.region.id,
        mask_width=record.mask_width,
        mask_height=record.mask_height,
        outline=None if mask is None else svg_path(mask),
        taken_at=record.taken_at,
        camera=record.camera,
        share=round(object_share(result), 6) if result.objects else None,
        result=result_record(result, WrittenFiles(), with_rle=False, all_instances=False),
    )


def results_json(results: Sequence[SearchResult], outlines: int = MOST_RESULTS) -> str:
    """Return results as a JSON array; the first `outlines` of them with the outlines of their regions."""
    shown = (shown_result(each, outlined=index < outlines) for index, each in enumerate(results))
    return f"[{','.join(map(to_json, shown))}]"


def event_json(message: Message, outlines: int = MOST_RESULTS) -> tuple[str, str] | None:
    """Return name and JSON of the event that a message is for a page; None if it is none.

    Args:
        outlines: as in `results_json`.
    """
    if message.stage1 is not None:
        count = len(message.stage1.candidates)
        results = results_json(message.stage1.results, outlines)
        fusion = message.stage1.fusion
        return "stage1", f'{{"candidates":{count},"fusion":{fusion},"results":{results}}}'
    if message.verdict is not None:
        item = message.verdict.item
        verdict = item.verdict
        return "verdict", to_json(
            ShownVerdict(
                photo=item.candidate.photo_id,
                asked=message.verdict.asked,
                stage1_score=round(item.candidate.score, 6),
                p_true=None if verdict is None else round(verdict.p_true, 6),
                logit_margin=None if verdict is None else round(verdict.margin, 6),
                failed=item.failed or None,
            )
        )
    if message.grounded is not None:
        return "grounded", to_json(shown_result(message.grounded.result))
    if message.final is not None:
        outcome = message.final.outcome
        figures = {
            "candidates": outcome.candidates,
            "judged": outcome.judged,
            "unlikely": outcome.unlikely,
            "complete": outcome.complete,
            "truncated": outcome.truncated,
        }
        head = msgspec.json.encode(figures).decode()[:-1]
        return "final", f'{head},"results":{results_json(outcome.results, outlines)}}}'
    if message.waiting is not None:
        return "waiting", msgspec.json.encode(message.waiting).decode()
    if message.error is not None:
        error = message.error.error()
        return "error", msgspec.json.encode({"error": str(error), "kind": type(error).__name__}).decode()
    if message.interrupted or message.fault is not None:
        return "error", msgspec.json.encode({"error": message.fault or "the search was stopped"}).decode()
    return None
