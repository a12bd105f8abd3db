"""Saved queries: a query with the settings of its search, as JSON that is checked when it is read.

A gallery may come from a stranger, so a saved query names no file that is opened, no model and no place to
write to. It holds texts, filters (whose folders are only compared with paths in the gallery) and numbers. An
example is a photo of the gallery, by its SHA-256, with a box or a point in it: so it means the same after a
merge, and when vectors are made anew.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields, replace
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from matir_cli.errors import MatirError, PhotoUnknown
from matir_cli.gallery.database import GalleryFile
from matir_cli.records import Box, Point
from matir_cli.search.filters import Filters, parse_date
from matir_cli.search.models import SearchModels
from matir_cli.search.pipeline import SearchOptions
from matir_cli.search.query import (
    MOST_EXAMPLES,
    ExampleRule,
    Query,
    ResolvedExample,
    resolve_in_gallery,
)

LONGEST_JSON = 1 << 16
"""Characters of a saved query at most."""

MOST_RESULTS = 100_000
"""Results, or photos for the judge to look at, that a saved query may ask for at most."""

_QUERY_PARTS = ("text", "without", "examples", "weight", "unlike", "rule")

_NOT_SAVED = ("filters", "fresh", "explain")
"""Fields of `SearchOptions` that are not among the saved ones: filters are saved beside them, a search that
asks the judge anew would drop its answers in each run, and what is printed is said in each run."""

Settings = TypeVar("Settings", Filters, SearchOptions)


@dataclass(frozen=True, slots=True)
class SavedExample:
    """An object shown in a photo of the gallery; without box and point it is the whole photo."""

    photo: str
    """SHA-256 of the photo, hex."""
    box: Box | None = None
    """Photo pixels."""
    point: Point | None = None
    """Photo pixels."""

    def resolve(self, gallery: GalleryFile, models: SearchModels) -> ResolvedExample:
        """Find the region that is meant; errors as in `SavedQuery.resolve`."""
        photo_id = gallery.photo_with(bytes.fromhex(self.photo))
        if photo_id is None:
            raise PhotoUnknown(gallery.path, f"with the SHA-256 {self.photo}")
        return resolve_in_gallery(gallery, models, photo_id, self.box, self.point)


@dataclass(frozen=True, slots=True)
class SavedQuery:
    """What to find, in which photos, and how.

    Raises:
        ValueError: it asks for nothing, or for something impossible.
    """

    text: str | None
    examples: tuple[SavedExample, ...]
    weight: float
    """Of the examples beside a text, 0..1."""
    without: tuple[str, ...]
    options: SearchOptions
    """With the filters."""
    unlike: tuple[SavedExample, ...] = ()
    """Objects that must not be found."""
    rule: ExampleRule = "max"
    """What counts of several `examples`."""

    def __post_init__(self) -> None:
        try:
            Query("an example" if self.text is None else self.text, (), self.weight, self.without).check()
        except MatirError as error:
            raise ValueError(str(error)) from error
        if self.text is None and not self.examples:
            raise ValueError("it asks for nothing")
        if max(len(self.examples), len(self.unlike)) > MOST_EXAMPLES:
            raise ValueError(f"it has more than {MOST_EXAMPLES} examples")
        if self.options.min_p is not None and (self.text is None or not self.options.rerank):
            raise ValueError("min_p needs the judge")
        if self.options.limit > MOST_RESULTS or (self.options.candidates or 0) > MOST_RESULTS:
            raise ValueError(f"it asks for more than {MOST_RESULTS} photos")
        _check_filters(self.options.filters or Filters())

    @property
    def title(self) -> str:
        """The query in a few words."""
        return self.text or "like an example"

    def resolve(self, gallery: GalleryFile, models: SearchModels) -> Query:
        """Return the query, its examples found in the gallery.

        Raises:
            PhotoUnknown: the gallery does not hold an example's photo, perhaps no longer.
            MatirError: as in `resolve_in_gallery`.
        """
        good, bad = (
            tuple(each.resolve(gallery, models) for each in some) for some in (self.examples, self.unlike)
        )
        return Query(self.text, good, self.weight, self.without, bad, self.rule)

    def to_json(self) -> str:
        """Return the query as JSON, in ASCII; what has its default value is left out."""
        query: dict[str, object] = {}
        if self.text is not None:
            query["text"] = self.text
        if self.without:
            query["without"] = [*self.without]
        if self.examples:
            query |= {"examples": _plain_examples(self.examples), "weight": self.weight}
        if self.unlike:
            query["unlike"] = _plain_examples(self.unlike)
        if self.rule != "max":
            query["rule"] = self.rule
        saved = {
            "query": query,
            "filters": _changed(self.options.filters or Filters()),
            "options": _changed(self.options),
        }
        return json.dumps({name: part for name, part in saved.items() if part})


def read_saved_query(text: str) -> SavedQuery:
    """Read a saved query.

    Raises:
        ValueError: `text` is none that this tool has written.
    """
    if len(text) > LONGEST_JSON:
        raise ValueError("a saved search is too long")
    try:
        saved = json.loads(text, parse_constant=_refuse_constant)
        parts = _checked_parts(saved, ("query", "filters", "options"))
        query = _checked_parts(parts.get("query", {}), _QUERY_PARTS)
        filters = _read(Filters, parts.get("filters", {}), ())
        options = _read(SearchOptions, parts.get("options", {}), _NOT_SAVED)
        return SavedQuery(
            msgspec.convert(query.get("text"), str | None),
            _read_examples(query.get("examples", [])),
            msgspec.convert(query.get("weight", 0.5), float),
            msgspec.convert(query.get("without", []), tuple[str, ...]),
            replace(options, filters=None if filters == Filters() else filters),
            _read_examples(query.get("unlike", [])),
            msgspec.convert(query.get("rule", "max"), ExampleRule),
        )
    except (ValueError, TypeError, OverflowError, RecursionError) as error:
        raise ValueError(f"a saved search cannot be read: {error}") from error


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is no number")


def _checked_parts(value: object, known: tuple[str, ...]) -> Mapping[str, Any]:
    """Return an object whose keys are all known; ValueError if it is none."""
    if not isinstance(value, dict):
        raise ValueError("a part of it is no object")
    if unknown := value.keys() - {*known}:
        raise ValueError(f"it has the unknown setting {min(unknown)}")
    return value


def _read(kind: type[Settings], values: object, left_out: tuple[str, ...]) -> Settings:
    """Read settings of which those with their default values are left out."""
    names = tuple(field.name for field in fields(kind) if field.name not in left_out)
    return msgspec.convert(_checked_parts(values, names), kind, dec_hook=_read_path)


def _read_path(kind: type, value: object) -> object:
    """Return a path for a text: msgspec's hook for types that it does not know."""
    if kind is not Path or not isinstance(value, str):
        raise TypeError("a path is no text")
    if "\0" in value or not Path(value).is_absolute():
        raise ValueError("a path is not absolute")
    return Path(value)


def _read_examples(values: object) -> tuple[SavedExample, ...]:
    return tuple(map(_read_example, msgspec.convert(values, list[Any])))


def _read_example(value: object) -> SavedExample:
    example = msgspec.convert(_checked_parts(value, ("photo", "box", "point")), SavedExample)
    if len(example.photo) != 64 or not all(digit in "0123456789abcdef" for digit in example.photo):
        raise ValueError("the SHA-256 of its example is none")
    if example.box is not None and not (
        example.box.x0 < example.box.x1 and example.box.y0 < example.box.y1 and example.point is None
    ):
        raise ValueError("the box of its example is none")
    return example


def _check_filters(filters: Filters) -> None:
    for date in (filters.since, filters.until):
        if date is not None and parse_date(date) != date:
            raise ValueError(f"{date!r} is no date")


def _changed(settings: Filters | SearchOptions) -> dict[str, object]:
    """Return the fields that are saved and have not their default value."""
    return {
        field.name: _plain(getattr(settings, field.name))
        for field in fields(settings)
        if field.name not in _NOT_SAVED
        and (field.default is MISSING or getattr(settings, field.name) != field.default)
    }


def _plain(value: object) -> object:
    """Return a value in JSON's terms."""
    return msgspec.to_builtins(value, enc_hook=str)


def _plain_examples(examples: tuple[SavedExample, ...]) -> list[dict[str, object]]:
    """Return examples in JSON's terms, without what is None."""
    plain: list[dict[str, object]] = msgspec.to_builtins(examples)
    return [{name: value for name, value in each.items() if value is not None} for each in plain]
