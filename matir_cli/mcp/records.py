"""Structured results of the tools; their types are the output schemas that clients get."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Annotated, Any, TypeAlias

import msgspec
from msgspec import Meta

from matir_cli.output.json_encoding import to_json
from matir_cli.output.printable import printable
from matir_cli.search.results import SearchResult

BoxValues: TypeAlias = Annotated[
    list[float],
    Meta(min_length=4, max_length=4, description="x0, y0, x1, y1 in pixels of the photo as displayed."),
]


class FoundPhoto(msgspec.Struct, frozen=True):
    """A photo that answers a search, with the object in it."""

    number: Annotated[int, Meta(description="1 is the best; the number on contact sheets.")]
    photo: Annotated[int, Meta(description="Id of the photo.")]
    path: str
    score: Annotated[float, Meta(description="p_true of a judged photo, else stage1_score.")]
    stage1_score: Annotated[float, Meta(description="Cosine of the best region and the query, -1 to 1.")]
    p_true: Annotated[
        float | None, Meta(description="The judge's probability; null if the photo was not judged.")
    ]
    grounding: Annotated[
        str | None, Meta(description="matched, refined, unmatched, no box, unreadable; null without judge.")
    ]
    region: Annotated[int | None, Meta(description="Id of the region that is the object, or fits best.")]
    box: BoxValues | None
    has_mask: bool
    width: int
    height: int
    taken_at: str | None
    camera: str | None
    explanation: Annotated[
        dict[str, Any] | None,
        Meta(
            description="Where score and mask come from, as matir find --json --explain has it; null unless "
            "asked for with explain."
        ),
    ]


class ResultPage(msgspec.Struct, frozen=True):
    """A page of results."""

    search: Annotated[str, Meta(description="Name of the search, for other tools.")]
    total: Annotated[int, Meta(description="Number of results on all pages.")]
    judged: Annotated[int, Meta(description="Number of photos that the judge has looked at, now or before.")]
    results: list[FoundPhoto]
    next_cursor: Annotated[str | None, Meta(description="Cursor of the next page; null on the last.")]
    notes: list[str]


class OutlinedObject(msgspec.Struct, frozen=True):
    """An object that is outlined in a picture."""

    label: Annotated[str, Meta(description="What is written beside it in the picture.")]
    region: Annotated[int | None, Meta(description="Id of the region; null if it is none.")]
    box: BoxValues
    share: Annotated[float | None, Meta(description="Fraction of the photo that it covers; null: no mask.")]


class PhotoView(msgspec.Struct, frozen=True):
    """A photo, and what is outlined in its picture."""

    photo: int
    path: str
    width: int
    height: int
    taken_at: str | None
    camera: str | None
    latitude: float | None
    longitude: float | None
    regions: Annotated[int, Meta(description="Number of regions of the photo.")]
    outlined: list[OutlinedObject]


class SheetEntry(msgspec.Struct, frozen=True):
    """A photo on a contact sheet."""

    number: int
    photo: int
    available: Annotated[bool, Meta(description="False: the file is gone, and no preview is stored.")]


class ContactSheet(msgspec.Struct, frozen=True):
    """What a contact sheet shows, row by row."""

    search: str
    total: int
    columns: int
    photos: list[SheetEntry]


class SavedFile(msgspec.Struct, frozen=True):
    """A file that was written."""

    name: str
    number: int
    photo: int


class SavedObjects(msgspec.Struct, frozen=True):
    """What was written."""

    folder: str
    files: list[SavedFile]
    without_mask: Annotated[list[int], Meta(description="Ids of photos without a mask, or without pixels.")]


class CountedName(msgspec.Struct, frozen=True):
    """A month or a camera, with the number of its photos."""

    name: str
    photos: int


class GallerySummary(msgspec.Struct, frozen=True):
    """Facts about the gallery."""

    gallery: str
    photos: int
    regions: Annotated[int, Meta(description="Objects and parts of objects that can be found.")]
    undated: int
    months: Annotated[list[CountedName], Meta(description="Photos by month, such as 2024-05.")]
    cameras: list[CountedName]
    models: str
    text_search: Annotated[str | None, Meta(description="Why no text can be searched for; null: it can.")]
    judge: Annotated[str | None, Meta(description="Why the judge cannot be asked; null: it can.")]
    server: Annotated[bool, Meta(description="A warm server of the gallery searches.")]
    writes_to: Annotated[str | None, Meta(description="Folder of save_objects; null: there is none.")]


def path_text(path: Path) -> str:
    """Return a path for a client: bytes that are not UTF-8, and controls, are escaped."""
    return printable(os.fsdecode(path))


def found_photo(result: SearchResult) -> FoundPhoto:
    """Make the record of a result."""
    first = result.objects[0] if result.objects else None
    record = result.photo.record
    return FoundPhoto(
        number=result.rank,
        photo=result.photo.id,
        path=path_text(result.path),
        score=round(result.score, 6),
        stage1_score=round(result.candidate.score, 6),
        p_true=None if result.verdict is None else round(result.verdict.p_true, 6),
        grounding=result.grounding,
        region=None if first is None or first.region is None else first.region.id,
        box=None if first is None else [*first.box.rounded(2)],
        has_mask=first is not None and first.mask is not None,
        width=record.width,
        height=record.height,
        taken_at=record.taken_at,
        camera=record.camera,
        explanation=None if result.explanation is None else json.loads(to_json(result.explanation)),
    )
