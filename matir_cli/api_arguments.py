"""Arguments of the Python API: what callers may give, as the values that searches take."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import TypeAlias

from matir_cli.gallery.rows import StoredPhoto
from matir_cli.photos.discover import absolute_path
from matir_cli.records import Box, Point
from matir_cli.search.filters import parse_date
from matir_cli.search.query import Example

AnyPath: TypeAlias = str | os.PathLike[str]


def photo_name(photo: StoredPhoto | AnyPath | int) -> str:
    """Return the photo's name for `gallery.files.find_photo`; a path is never taken for an id."""
    if isinstance(photo, StoredPhoto):
        return str(photo.id)
    return str(photo) if isinstance(photo, int) else str(absolute_path(Path(photo).expanduser()))


def listed(one_or_more: AnyPath | Iterable[AnyPath]) -> list[AnyPath]:
    """Return a list; a string is one path or text, not a sequence of letters."""
    return [one_or_more] if isinstance(one_or_more, str | os.PathLike) else list(one_or_more)


def to_examples(
    images: AnyPath | Example | Iterable[AnyPath | Example],
    box: Box | Sequence[float] | None = None,
    point: Point | Sequence[float] | None = None,
) -> tuple[Example, ...]:
    """Return the examples; a box or point is that of the only one."""
    listed = [images] if isinstance(images, str | os.PathLike | Example) else [*images]
    shown = [each if isinstance(each, Example) else Example(Path(each)) for each in listed]
    shown = [replace(each, path=each.path.expanduser()) for each in shown]
    if box is None and point is None:
        return tuple(shown)
    if len(shown) != 1 or shown[0].box is not None or shown[0].point is not None:
        raise ValueError("box and point refer to one image: give each of several as an Example")
    if box is not None and point is not None:
        raise ValueError("give box or point, not both")
    return (
        Example(
            shown[0].path,
            box if box is None or isinstance(box, Box) else Box(*box),
            point if point is None or isinstance(point, Point) else Point(*point),
        ),
    )


def to_date(value: str | date | None) -> str | None:
    """Return a date as `Filters` take it; ValueError if a text is none."""
    if value is None:
        return None
    return parse_date(value if isinstance(value, str) else value.isoformat()[:19])
