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
from matir_cli.gallery.union import GalleryReader, Member, map_members, share_regions
from matir_cli.photos.descriptive import HIGHEST, REJECTED
from matir_cli.records import check_range
from matir_cli.search.distances import great_circle
from matir_cli.search.keywords import keyword_matcher

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
    rating: tuple[int, int] | None = None
    """Least and greatest rating, -1 (rejected) to 5. The rating of a photo is the highest of its files'; a
    photo without one has 0."""
    keywords: tuple[str, ...] = ()
    """Keywords that the photo has, each in one of its files; matched as in `keyword_matcher`."""
    no_keywords: tuple[str, ...] = ()
    """Keywords that none of its files has."""

    def __post_init__(self) -> None:
        if self.near is not None:
            check_range("latitude", self.near[0], -90, 90)
            check_range("longitude", self.near[1], -180, 180)
        check_range("within", self.within, math.ulp(0.0))
        for each in self.rating or ():
            check_range("rating", each, REJECTED, HIGHEST)
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
        """Return the ids of the photos of a file that pass, ascending, (n,) int64; None if every one does."""
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
        if self.rating is not None:
            conditions.append(_ids(gallery, _RATED, dict(zip(("least", "most"), self.rating, strict=True))))
        if self.keywords or self.no_keywords:
            conditions += self._by_keywords(gallery)
        return reduce(np.intersect1d, conditions) if conditions else None

    def _at_places(self, gallery: GalleryFile) -> IdArray:
        ids = [_ids(gallery, _BELOW, below_bindings(place)) for place in self.places]
        return np.unique(np.concatenate(ids))

    def _of_camera(self, gallery: GalleryFile) -> IdArray:
        part = (self.camera or "").casefold()
        # SQLite ignores the case of ASCII letters only.
        names = [str(name) for (name,) in gallery.connection.execute(_CAMERAS)]
        return _ids(gallery, _TAKEN_BY, {"names": json.dumps([n for n in names if part in n.casefold()])})

    @property
    def needs_metadata(self) -> bool:
        """True if it asks for what is read of sidecars and of keywords: see `gallery.file_metadata`."""
        return self.rating is not None or bool(self.keywords or self.no_keywords)

    def _by_keywords(self, gallery: GalleryFile) -> list[IdArray]:
        rows = gallery.connection.execute(_DISTINCT_KEYWORDS)
        known = [gallery.checked_text(keyword, "a keyword") for (keyword,) in rows]

        def having(wanted: str) -> IdArray:
            named = [*filter(keyword_matcher(wanted), known)]
            return _ids(gallery, _HAVING, {"keywords": json.dumps(named)})

        conditions = [having(wanted) for wanted in self.keywords]
        if self.no_keywords:
            without = _ids(gallery, _ALL, {})
            for unwanted in self.no_keywords:
                without = np.setdiff1d(without, having(unwanted))
            conditions.append(without)
        return conditions

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
        """Return those of a file's (n,) region ids that exist and pass, by the region's own properties."""
        if self.whole and not self.is_sized:
            return regions
        bindings = {
            "first": int(self.is_sized or not self.whole),
            "least": self.min_size or 0.0,
            "most": 1.0 if self.max_size is None else self.max_size,
        }
        return _ids(gallery, _REGIONS, {"regions": json.dumps(regions.tolist()), **bindings})


def passing_photos(gallery: GalleryReader, filters: Filters) -> IdArray | None:
    """Return the ids of the photos that pass, ascending, (n,) int64; None if every photo passes.

    Raises:
        GalleryDamaged: a stored value is impossible.
    """

    def passing(member: Member) -> IdArray | None:
        photos = filters.photos(member.file)
        return None if photos is None else member.to_union(photos)

    found = [photos for photos in map_members(gallery, passing) if photos is not None]
    if not found:
        return None
    joined = np.concatenate(found)
    return np.sort(joined[joined >= 0])


def passing_regions(gallery: GalleryReader, filters: Filters, regions: IdArray) -> IdArray:
    """Return those of the (n,) region ids that exist and pass, by the region's own properties alone."""
    passing = [regions[:0]]
    for share in share_regions(gallery, regions):
        with share.reading():
            found = filters.regions(share.member.file, share.own_ids)
        passing.append(share.member.regions_to_union(found))
    return np.concatenate(passing)


_BELOW = f"select photo_id from files where {BELOW}"  # noqa: S608 - a constant

_TAKEN = "select id from photos where taken_at >= :since and taken_at < :until order by id"

_CAMERAS = "select distinct camera from photos where camera is not null"

_TAKEN_BY = "select id from photos where camera in (select value from json_each(:names)) order by id"

_ALL = "select id from photos order by id"

_POSITIONS = (
    "select id, latitude, longitude from photos where latitude is not null and longitude is not null "
    "order by id"
)

_STATED = (
    "select photo_id, file_metadata.latitude, file_metadata.longitude from file_metadata "
    "cross join files on files.path = file_metadata.path "
    "where file_metadata.latitude is not null and file_metadata.longitude is not null "
    "order by files.path desc"
)
"""Positions that sidecars state: of those of a photo, the one that counts comes last."""

_RATED = (
    "select id from photos where coalesce((select max(rating) from files cross join file_metadata "
    "on file_metadata.path = files.path where photo_id = photos.id), 0) between :least and :most order by id"
)

_DISTINCT_KEYWORDS = "select distinct keyword from file_keywords"

_HAVING = (
    "select distinct photo_id from files cross join file_keywords on file_keywords.path = files.path "
    "where keyword in (select value from json_each(:keywords)) order by photo_id"
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
    found: dict[int, tuple[float, float]] = {}
    try:
        for select in (_POSITIONS, _STATED):
            for photo_id, *position in gallery.connection.execute(select):
                y, x = (check_number(each, "a position") for each in position)
                found[gallery.checked_id(photo_id)] = y, x
    except ValueError as error:
        raise GalleryDamaged(gallery.path, str(error)) from error
    ids = np.array(sorted(found), np.int64)
    return ids, np.array([found[int(photo_id)] for photo_id in ids], np.float64).reshape(-1, 2)
