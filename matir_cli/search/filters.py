"""Search filters: folders, dates, camera, position, shape, ratings, keywords and the size of regions."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from datetime import datetime
from functools import reduce
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from matir_cli.errors import GalleryDamaged
from matir_cli.gallery.database import GalleryFile
from matir_cli.gallery.paths import BELOW, below_bindings
from matir_cli.gallery.rows import check_number
from matir_cli.records import check_range
from matir_cli.search.distances import great_circle

IdArray = NDArray[np.int64]

_DATES = ("%Y", "%Y-%m", "%Y-%m-%d", "%Y-%m-%dT%H", "%Y-%m-%dT%H:%M", "%Y-%m-%dT%H:%M:%S")

_DATE_LENGTHS = (4, 7, 10, 13, 16, 19)

_AFTER_ALL = "~"
"""Sorts after every character of an ISO 8601 date, so a date with it appended ends its period."""


Orientation: TypeAlias = Literal["portrait", "landscape", "square"]

WITHIN = 1000.0
"""Metres around `Filters.near`."""


def parse_date(text: str) -> str:
    """Parse a date for `Filters`: ISO 8601 at any precision, with "T" or a space before the time.

    Raises:
        ValueError: `text` is not such a date; the message gives examples.
    """
    for pattern, length in zip(_DATES, _DATE_LENGTHS, strict=True):
        try:
            return datetime.strptime(text.replace(" ", "T"), pattern).isoformat()[:length]
        except ValueError:
            continue
    raise ValueError(f"{text!r} is no date such as 2024, 2024-05, 2024-05-17 or 2024-05-17T14:30.")


@dataclass(frozen=True, slots=True)
class Filters:
    """Restricts a search to a part of a gallery; the defaults let everything through.

    Raises:
        OutOfRange: a size is not within 0..1.
    """

    places: tuple[Path, ...] = ()
    """Absolute paths of files or folders; a photo passes if one of its files is among them or below one."""
    since: str | None = None
    """Earliest date taken, ISO 8601 at any precision: "2024", "2024-05", "2024-05-17", "2024-05-17T14:30".
    In the camera's local time. A photo without a date does not pass."""
    until: str | None = None
    """Latest date taken, likewise and inclusive: "2024-05" means up to the end of May."""
    camera: str | None = None
    """Part of the camera's name, ignoring case. A photo without a camera does not pass."""
    min_size: float | None = None
    """Least fraction of the photo that a region covers, 0..1. Sizes are about objects: with this or
    `max_size` set, the region that is the whole photo does not pass."""
    max_size: float | None = None
    """Greatest fraction of the photo that a region covers, 0..1."""
    whole: bool = True
    """False: the region that is the whole photo does not pass."""
    near: tuple[float, float] | None = None
    """Latitude and longitude, degrees, north and east positive. A photo without a position does not pass."""
    within: float = WITHIN
    """Greatest distance from `near` along a great circle, metres, above 0."""
    has_gps: bool | None = None
    """True: only photos with a position; False: only those without one."""
    orientation: Orientation | None = None
    """Shape of the upright photo: higher than wide, wider than high, or neither."""

    def __post_init__(self) -> None:
        if self.near is not None:
            check_range("latitude", self.near[0], -90, 90)
            check_range("longitude", self.near[1], -180, 180)
        check_range("within", self.within, math.ulp(0.0))
        check_range("min_size", self.min_size, 0, 1)
        check_range("max_size", self.max_size, 0, 1)

    @property
    def is_sized(self) -> bool:
        """True if `min_size` or `max_size` is set."""
        return self.min_size is not None or self.max_size is not None

    def fits(self, share: float) -> bool:
        """Return True if an object that covers the fraction `share` of its photo, 0..1, passes."""
        return (self.min_size or 0.0) <= share <= (1.0 if self.max_size is None else self.max_size)

    def photos(self, gallery: GalleryFile) -> IdArray | None:
        """Return the ids of the photos that pass, ascending, (n,) int64; None if every photo passes."""
        conditions = []
        if self.places:
            conditions.append(self._at_places(gallery))
        if self.since is not None or self.until is not None:
            until = _AFTER_ALL if self.until is None else self.until + _AFTER_ALL
            conditions.append(_ids(gallery, _TAKEN, {"since": self.since or "", "until": until}))
        if self.camera is not None:
            conditions.append(self._of_camera(gallery))
        if self.near is not None or self.has_gps is not None:
            conditions += self._by_position(gallery)
        if self.orientation is not None:
            conditions.append(_ids(gallery, _SHAPES[self.orientation], {}))
        return reduce(np.intersect1d, conditions) if conditions else None

    def _at_places(self, gallery: GalleryFile) -> IdArray:
        ids = [_ids(gallery, _BELOW, below_bindings(place)) for place in self.places]
        return np.unique(np.concatenate(ids))

    def _of_camera(self, gallery: GalleryFile) -> IdArray:
        part = (self.camera or "").casefold()
        # SQLite ignores the case of ASCII letters only.
        names = [str(name) for (name,) in gallery.connection.execute(_CAMERAS)]
        return _ids(gallery, _TAKEN_BY, {"names": json.dumps([n for n in names if part in n.casefold()])})

    def _by_position(self, gallery: GalleryFile) -> list[IdArray]:
        ids, positions = _positions(gallery)
        conditions = []
        if self.has_gps is not None:
            conditions.append(ids if self.has_gps else np.setdiff1d(_ids(gallery, _ALL, {}), ids))
        if self.near is not None:
            near = great_circle(*self.near, *positions.T) <= self.within
            conditions.append(ids[near])
        return conditions

    def regions(self, gallery: GalleryFile, regions: IdArray) -> IdArray:
        """Return those of the (n,) region ids that exist and pass, by the region's own properties alone."""
        if self.whole and not self.is_sized:
            return regions
        bindings = {
            "first": int(self.is_sized or not self.whole),
            "least": self.min_size or 0.0,
            "most": 1.0 if self.max_size is None else self.max_size,
        }
        return _ids(gallery, _REGIONS, {"regions": json.dumps(regions.tolist()), **bindings})


_BELOW = f"select photo_id from files where {BELOW}"  # noqa: S608 - a constant

_TAKEN = "select id from photos where taken_at >= :since and taken_at < :until order by id"

_CAMERAS = "select distinct camera from photos where camera is not null"

_TAKEN_BY = "select id from photos where camera in (select value from json_each(:names)) order by id"

_ALL = "select id from photos order by id"

_POSITIONS = (
    "select id, latitude, longitude from photos where latitude is not null and longitude is not null "
    "order by id"
)

_SHAPES: dict[Orientation, str] = {
    "portrait": "select id from photos where height > width order by id",
    "landscape": "select id from photos where width > height order by id",
    "square": "select id from photos where width = height order by id",
}

_REGIONS = (
    "select regions.id from json_each(:regions) cross join regions on regions.id = value "
    "cross join photos on photos.id = photo_id where ordinal >= :first "
    "and area between :least * mask_width * mask_height and :most * mask_width * mask_height"
)


def _ids(gallery: GalleryFile, select: str, bindings: dict[str, Any]) -> IdArray:
    rows = gallery.connection.execute(select, bindings)
    return np.fromiter((gallery.checked_id(row[0]) for row in rows), np.int64)


def _positions(gallery: GalleryFile) -> tuple[IdArray, NDArray[np.float64]]:
    """Return the ids of the photos that have a position, (n,), and their latitudes and longitudes, (n, 2).

    Raises:
        GalleryDamaged: a stored position is no number.
    """
    rows: Any = gallery.connection.execute(_POSITIONS).fetchall()
    try:
        degrees = [check_number(each, "a position") for _, *position in rows for each in position]
    except ValueError as error:
        raise GalleryDamaged(gallery.path, str(error)) from error
    ids = np.fromiter((gallery.checked_id(row[0]) for row in rows), np.int64)
    return ids, np.array(degrees, np.float64).reshape(-1, 2)
