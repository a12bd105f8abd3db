"""Facts about a gallery, for a page that searches it."""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from matir_cli.errors import GalleryDamaged, MatirError
from matir_cli.gallery.database import GalleryFile
from matir_cli.gallery.paths import check_path
from matir_cli.model_sets.catalogue import load_model_set
from matir_cli.model_sets.session import ModelSession

MOST_FOLDERS = 500
"""Folders that are listed at most, those with the most files."""

MOST_CAMERAS = 200
"""Cameras that are listed at most, the most frequent first."""

MOST_KEYWORDS = 200
"""Keywords that are listed at most, the most frequent first."""


@dataclass(frozen=True, slots=True)
class MonthCount:
    """Number of photos taken in a month."""

    month: str
    """Such as "2024-05"."""
    photos: int


@dataclass(frozen=True, slots=True)
class CameraCount:
    """Number of photos by a camera."""

    camera: str
    photos: int


@dataclass(frozen=True, slots=True)
class KeywordCount:
    """Number of files with a keyword."""

    keyword: str
    files: int


@dataclass(frozen=True, slots=True)
class FolderCount:
    """Number of files with photos in a folder, at any depth."""

    folder: str
    files: int


@dataclass(frozen=True, slots=True)
class GalleryFacts:
    """What a page needs to offer a search."""

    path: Path
    photos: int
    regions: int
    """Number of proposed regions; whole photos are not counted."""
    undated: int
    """Number of photos without a date."""
    months: tuple[MonthCount, ...]
    """In order."""
    cameras: tuple[CameraCount, ...]
    folders: tuple[FolderCount, ...]
    """Those whose names are UTF-8, in order; the first is the one that has all, if there is one."""
    keywords: tuple[KeywordCount, ...]
    located: int
    """Number of photos with a position."""
    rated: int
    """Number of files with a rating."""
    models: str
    """The server's model set."""
    searchable: str | None
    """Why no text can be searched for; None, and left out, if one can."""
    judgeable: str | None
    """Why the judge cannot be asked; None, and left out, if it can."""


def gallery_facts(gallery: GalleryFile, models: str) -> GalleryFacts:
    """Collect the facts; `models` is the server's model set."""
    db = gallery.connection
    with gallery.snapshot():  # so that the numbers agree
        photos = gallery.count_photos()
        regions = gallery.checked_id(db.execute("select count(*) from regions where ordinal > 0").get)
        months = db.execute(_MONTHS).fetchall()
        cameras = db.execute(_CAMERAS, (MOST_CAMERAS,)).fetchall()
        keywords = db.execute(_KEYWORDS, (MOST_KEYWORDS,)).fetchall()
        located, rated = (gallery.checked_id(db.execute(each).get) for each in (_LOCATED, _RATED))
        folders = _folders(gallery)
    dated = [
        MonthCount(gallery.checked_text(month, "a date"), gallery.checked_id(count))
        for month, count in months
        if month is not None
    ]
    return GalleryFacts(
        path=gallery.path,
        photos=photos,
        regions=regions,
        undated=photos - sum(each.photos for each in dated),
        months=tuple(dated),
        cameras=tuple(
            CameraCount(gallery.checked_text(name, "a camera"), gallery.checked_id(count))
            for name, count in cameras
        ),
        folders=folders,
        keywords=tuple(
            KeywordCount(gallery.checked_text(keyword, "a keyword"), gallery.checked_id(count))
            for keyword, count in keywords
        ),
        located=located,
        rated=rated,
        models=models,
        searchable=_why_missing(gallery, models, "encoder"),
        judgeable=_why_missing(gallery, models, "judge"),
    )


_MONTHS = "select substr(taken_at, 1, 7) as month, count(*) from photos group by month order by month"

_CAMERAS = (
    "select camera, count(*) as count from photos where camera is not null "
    "group by camera order by count desc, camera limit ?"
)

_KEYWORDS = (
    "select keyword, count(*) as files from file_keywords "
    "group by keyword order by files desc, keyword limit ?"
)

_LOCATED = "select count(*) from photos where latitude is not null and longitude is not null"

_RATED = "select count(*) from file_metadata where rating is not null"


def _folders(gallery: GalleryFile) -> tuple[FolderCount, ...]:
    """Count the files in each folder below the one that has all."""
    own = Counter[str]()
    for (path,) in gallery.connection.execute("select path from files where typeof(path) = 'text'"):
        try:
            own[str(check_path(path)).rpartition("/")[0]] += 1
        except ValueError as error:
            raise GalleryDamaged(gallery.path, str(error)) from error
    root = os.path.commonpath([f"{folder}/" for folder in own]).rstrip("/") if own else ""
    total = Counter[str]()
    for folder, count in own.items():
        names = folder[len(root) :].split("/")
        for depth in range(1, len(names) + 1):
            total[root + "/".join(names[:depth]) or "/"] += count
    most = sorted(total.items(), key=lambda item: (-item[1], item[0]))[:MOST_FOLDERS]
    return tuple(FolderCount(folder, count) for folder, count in sorted(most))


def _why_missing(gallery: GalleryFile, models: str, part: str) -> str | None:
    """Return why a model cannot be used; None if its files are there."""
    try:
        ModelSession(gallery, load_model_set(models), "auto").config(part)
    except MatirError as error:
        return str(error)
    return None
