"""Outcomes of indexing: what became of each file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from matir_cli.records import Note


@dataclass(frozen=True, slots=True)
class Added:
    """A new photo, or a new version of one, was added to the gallery."""

    path: Path
    regions: int
    """Number of its regions, not counting the whole photo."""
    notes: tuple[Note, ...] = ()
    """What could not be read of the file; usually nothing. The gallery remembers it."""
    prompts: int = 0
    """Number of points and boxes that the proposer was asked about."""


@dataclass(frozen=True, slots=True)
class Linked:
    """The file holds a photo that was already in the gallery: a copy, a renamed file, or its raw file."""

    path: Path


@dataclass(frozen=True, slots=True)
class Unchanged:
    """The file has not changed since it was indexed, and was not read."""

    path: Path


@dataclass(frozen=True, slots=True)
class Refreshed:
    """The file has not changed, but its sidecar has, or its rating and keywords had not been read."""

    path: Path
    notes: tuple[Note, ...] = ()
    """States that the sidecar cannot be read; usually nothing."""


@dataclass(frozen=True, slots=True)
class Skipped:
    """The file cannot be indexed."""

    path: Path
    reason: str


Outcome = Added | Linked | Unchanged | Refreshed | Skipped
