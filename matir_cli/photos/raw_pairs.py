"""Raw files and the pictures that a camera writes beside them: one photo in two files of one name."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from matir_cli.photos.suffixes import HEIF_SUFFIXES, RAW_SUFFIXES

BESIDE_RAW = frozenset({".jpg", ".jpeg", *HEIF_SUFFIXES})
"""Suffixes of the pictures that cameras write beside a raw file of the same name."""


def is_raw(path: Path) -> bool:
    """Return True for the name of a camera's raw file."""
    return path.suffix.lower() in RAW_SUFFIXES


def is_beside_raw(path: Path) -> bool:
    """Return True for the name of a picture of the kinds that cameras write beside a raw file."""
    return path.suffix.lower() in BESIDE_RAW


def are_one_photo(one: Path, other: Path) -> bool:
    """Return True if one of two files of the same folder and stem is a raw file and the other its picture."""
    return (is_raw(one) and is_beside_raw(other)) or (is_beside_raw(one) and is_raw(other))


def picture_of_raw(pictures: Iterable[Path]) -> Path | None:
    """Return the picture whose photo a raw file shares, of those of its stem: a JPEG before a HEIC."""
    return min(pictures, key=lambda path: (path.suffix.lower() in HEIF_SUFFIXES, path), default=None)


def raw_last(paths: Iterable[Path]) -> list[Path]:
    """Return paths in their order, but pictures before raw files, whose pixels may lie otherwise."""
    return sorted(paths, key=is_raw)
