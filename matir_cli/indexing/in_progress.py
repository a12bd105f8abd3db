"""Files and photos on their way through the stages of indexing."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from matir_cli.indexing.outcomes import Unchanged
from matir_cli.photos.decode import DecodedPhoto
from matir_cli.photos.siblings import DescribedFile
from matir_cli.records import FileRecord, FloatArray, Region


@dataclass(frozen=True, slots=True)
class NewFile:
    """A file with a photo that is not in the gallery, and that no other file on its way holds."""

    file: FileRecord
    sha256: bytes
    """Of the file, 32 bytes."""
    sidecar: FileRecord | None
    """The sidecar that describes the photo, as `Siblings.sidecar` returns it."""


@dataclass(frozen=True, slots=True)
class KnownFile:
    """A file with the same bytes as a photo in the gallery, or one about to be added."""

    file: FileRecord
    sha256: bytes
    described: DescribedFile


@dataclass(frozen=True, slots=True)
class RefreshedFile:
    """An unchanged file whose metadata has been read anew."""

    file: FileRecord
    described: DescribedFile


@dataclass(frozen=True, slots=True)
class RawBeside:
    """A raw file that is the same photo as the picture beside it."""

    file: FileRecord
    described: DescribedFile | None
    """None if the metadata that is stored of it is that of today."""


@dataclass(frozen=True, slots=True)
class RefusedFile:
    """A file that cannot be indexed."""

    path: Path
    file: FileRecord | None
    """None if the system does not let it be read, and nothing is known of what it holds now."""
    reason: str
    sha256: bytes | None = None
    """Of the file; None if it was refused before it was decoded."""


@dataclass(frozen=True, slots=True)
class ProposedPhoto:
    """A photo with its regions, before encoding."""

    photo: DecodedPhoto
    preview: bytes | None
    regions: list[Region]
    """The whole photo first; working pixels."""
    prompts: int = 0
    """Number of points and boxes that the proposer was asked about."""


@dataclass(frozen=True, slots=True)
class EncodedPhoto:
    """A photo with everything that will be written to the gallery."""

    proposed: ProposedPhoto
    vectors: FloatArray
    """(len(regions), d) float32."""


FileNote: TypeAlias = Unchanged | KnownFile | RefreshedFile | RawBeside | RefusedFile
"""A file without a new photo, which the stages pass on unchanged."""
