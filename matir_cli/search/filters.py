"""What part of a gallery a search is held to: by folders, dates and cameras, and by the size of regions."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime
from functools import reduce
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from matir_cli.gallery.database import GalleryFile
from matir_cli.gallery.paths import BELOW, below_bindings
from matir_cli.records import check_range

IdArray = NDArray[np.int64]

_DATES = ("%Y", "%Y-%m", "%Y-%m-%d", "%Y-%m-%dT%H", "%Y-%m-%dT%H:%M", "%Y-%m-%dT%H:%M:%S")

_DATE_LENGTHS = (4, 7, 10, 13, 16, 19)

_AFTER_ALL = "~"
"""Sorts behind whatever may follow in a date of ISO 8601."""


def parse_date(text: str) -> str:
    """A date as `Within` takes it: ISO 8601, as exact as is meant, with "T" or a space before the time.

    Raises:
        ValueError: it is none; the message says what one looks like.
    """
    for form, length in zip(_DATES, _DATE_LENGTHS, strict=True):
        try:
            return datetime.strptime(text.replace(" ", "T"), form).isoformat()[:length]
        except ValueError:
            continue
    raise ValueError(f"{text!r} is no date such as 2024, 2024-05, 2024-05-17 or 2024-05-17T14:30.")


@dataclass(frozen=True, slots=True)
class Filters:
    """The part of a gallery that is searched; what is left as it is lets everything through."""

    places: tuple[Path, ...] = ()
    """Absolute, files or folders: a file that holds the photo is one of them, or lies below it."""
    since: str | None = None
    """ISO 8601, as exact as is meant: "2024", "2024-05", "2024-05-17", "2024-05-17T14:30". The camera's
    local time; a photo that bears no date was taken at no time."""
    until: str | None = None
    """Likewise, and all of it counts: until "2024-05" is until the end of May."""
    camera: str | None = None
    """Part of the camera's name, in upper or lower case."""
    min_size: float | None = None
    """Fraction of the photo that a region covers, 0..1. This asks about objects: with it, or with
    `max_size`, the region that is the photo as a whole does not count."""
    max_size: float | None = None
    whole: bool = True
    """False: the region that is the photo as a whole does not count."""

    def __post_init__(self) -> None:
        check_range("min_size", self.min_size, 0, 1)
        check_range("max_size", self.max_size, 0, 1)

    @property
    def is_sized(self) -> bool:
        """Whether the size of a region matters."""
        return self.min_size is not None or self.max_size is not None

    def fits(self, share: float) -> bool:
        """Whether an object that covers `share` of its photo, 0..1, has the size asked for."""
        return (self.min_size or 0.0) <= share <= (1.0 if self.max_size is None else self.max_size)

    def photos(self, gallery: GalleryFile) -> IdArray | None:
        """The ids of the photos that may be found, ascending; None where all may."""
        conditions = []
        if self.places:
            conditions.append(self._at_places(gallery))
        if self.since is not None or self.until is not None:
            until = _AFTER_ALL if self.until is None else self.until + _AFTER_ALL
            conditions.append(_ids(gallery, _TAKEN, {"since": self.since or "", "until": until}))
        if self.camera is not None:
            conditions.append(self._of_camera(gallery))
        return reduce(np.intersect1d, conditions) if conditions else None

    def _at_places(self, gallery: GalleryFile) -> IdArray:
        found = [_ids(gallery, _BELOW, below_bindings(place)) for place in self.places]
        return np.unique(np.concatenate(found))

    def _of_camera(self, gallery: GalleryFile) -> IdArray:
        part = (self.camera or "").casefold()
        # SQLite folds the case of ASCII alone.
        names = [str(name) for (name,) in gallery.connection.execute(_CAMERAS)]
        return _ids(gallery, _TAKEN_BY, {"names": json.dumps([n for n in names if part in n.casefold()])})

    def regions(self, gallery: GalleryFile, regions: IdArray) -> IdArray:
        """Those of the regions that are there and count."""
        if self.whole and not self.is_sized:
            return regions
        bounds = {
            "first": int(self.is_sized or not self.whole),
            "least": self.min_size or 0.0,
            "most": 1.0 if self.max_size is None else self.max_size,
        }
        return _ids(gallery, _REGIONS, {"regions": json.dumps(regions.tolist()), **bounds})


_BELOW = f"select photo_id from files where {BELOW}"  # noqa: S608 - a constant

_TAKEN = "select id from photos where taken_at >= :since and taken_at < :until order by id"

_CAMERAS = "select distinct camera from photos where camera is not null"

_TAKEN_BY = "select id from photos where camera in (select value from json_each(:names)) order by id"

_REGIONS = (
    "select regions.id from json_each(:regions) cross join regions on regions.id = value "
    "cross join photos on photos.id = photo_id where ordinal >= :first "
    "and area between :least * mask_width * mask_height and :most * mask_width * mask_height"
)


def _ids(gallery: GalleryFile, select: str, bindings: dict[str, Any]) -> IdArray:
    return np.fromiter((row[0] for row in gallery.connection.execute(select, bindings)), np.int64)
