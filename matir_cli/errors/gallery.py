"""Errors about the gallery file."""

from dataclasses import dataclass
from pathlib import Path

from matir_cli.errors.base import MatirError


@dataclass(eq=False)
class GalleryError(MatirError):
    """An error about the gallery file at `path`."""

    path: Path


class GalleryMissing(GalleryError):
    """There is no file at `path`."""

    def __str__(self) -> str:
        return f"there is no gallery at {self.path}."


class NoGalleryLeft(GalleryMissing):
    """Each of the galleries that were named was left out, since it is missing or damaged."""

    def __str__(self) -> str:
        return "no gallery is left to read: all that were named are left out."


class GalleryEmpty(GalleryError):
    """The gallery holds no photo."""

    def __str__(self) -> str:
        return f"the gallery {self.path} holds no photo yet."


class NotAGallery(GalleryError):
    """The file at `path` was not written by this tool; it has not been touched."""

    def __str__(self) -> str:
        return f"{self.path} is not a gallery; it was left unchanged."


@dataclass(eq=False)
class GalleryTooNew(GalleryError):
    """Schema `found` is newer than `known`, the newest that this version understands."""

    found: int
    known: int

    def __str__(self) -> str:
        schemas = f"schema {self.found}; this one knows {self.known}"
        return f"{self.path} was written by a newer version ({schemas})."


@dataclass(eq=False)
class GalleryDamaged(GalleryError):
    """The file is malformed; `reason` is SQLite's message, or names the value that is wrong."""

    reason: str

    def __str__(self) -> str:
        return f"{self.path} is damaged: {self.reason}."


class IndexDamaged(GalleryDamaged):
    """The search index, which is derived from the vectors and can be rebuilt, is malformed."""

    def __str__(self) -> str:
        return f"the search index of {self.path} is damaged: {self.reason}."


@dataclass(eq=False)
class GalleryIOFailed(GalleryError):
    """The system failed to read or write the file (quota, size limit, device); `reason` is its message."""

    reason: str

    def __str__(self) -> str:
        return f"{self.path} could not be read or written: {self.reason}; all photos added before are kept."


@dataclass(eq=False)
class GalleryFailed(GalleryError):
    """SQLite failed in a way that neither the file nor the system explains; `reason` is its message."""

    reason: str

    def __str__(self) -> str:
        return f"{self.path} could not be used by SQLite: {self.reason}."


class GalleryChanged(GalleryError):
    """Another command changed what this one was working on; the file is sound."""

    def __str__(self) -> str:
        return f"another command changed {self.path} at the same moment."


class GalleryUnrecovered(GalleryError):
    """The file may only be read, and a write to it that was interrupted has not been rolled back yet."""

    def __str__(self) -> str:
        return f"an interrupted write to {self.path} has not been rolled back yet."


@dataclass(eq=False)
class ExtensionUnusable(MatirError):
    """SQLite cannot load the extension `name`; `reason` is its message."""

    name: str
    reason: str

    def __str__(self) -> str:
        return f"the extension {self.name} of SQLite cannot be loaded: {self.reason}."


class GalleryBusy(GalleryError):
    """Another process kept the file locked for longer than the time-out."""

    def __str__(self) -> str:
        return f"{self.path} is in use by another command."


class GalleryNameInvalid(GalleryError):
    """The path is not valid UTF-8, and SQLite opens no other."""

    def __str__(self) -> str:
        return f"the path of the gallery {self.path} is not UTF-8, so SQLite cannot open it."


class GalleryReadOnly(GalleryError):
    """The file, or the folder that holds it, does not permit the access that is needed."""

    def __str__(self) -> str:
        return f"{self.path} cannot be opened with the access that this command needs."


class DiskFull(GalleryError):
    """There is no disk space left for `path`; everything committed before is kept."""

    def __str__(self) -> str:
        return f"there is no disk space left for {self.path}; all photos added before are kept."


@dataclass(eq=False)
class RoomTooSmall(GalleryError):
    """A step needs `needed` bytes of free disk space beside the file, and only `available` are free."""

    needed: int
    available: int

    def __str__(self) -> str:
        needed, available = f"{self.needed / 1e9:.2f} GB", f"{self.available / 1e9:.2f} GB"
        return f"this needs {needed} of free disk space beside {self.path}; only {available} is free."


class MergeIntoItself(GalleryError):
    """The gallery to merge and the gallery to merge it into are the same file."""

    def __str__(self) -> str:
        return f"{self.path} cannot be merged into itself."


@dataclass(eq=False)
class PhotoUnknown(GalleryError):
    """The gallery holds no photo that `name`, a file or an id, refers to."""

    name: str

    def __str__(self) -> str:
        return f"{self.path} holds no photo {self.name}."


@dataclass(eq=False)
class SavedSearchUnknown(GalleryError):
    """The gallery holds no saved search of this name."""

    name: str

    def __str__(self) -> str:
        return f"{self.path} holds no saved search {self.name}."


@dataclass(eq=False)
class SavedSearchExists(GalleryError):
    """The gallery holds a saved search of this name already."""

    name: str

    def __str__(self) -> str:
        return f"{self.path} holds a saved search {self.name} already."


@dataclass(eq=False)
class ReencodingBegun(GalleryError):
    """New vectors for the model set `model_set` are half made, and others, for `wanted`, are asked for."""

    model_set: str
    wanted: str

    def __str__(self) -> str:
        made = f"{self.path} holds half-made vectors for the model set {self.model_set}"
        return f"{made}, not for {self.wanted}."


@dataclass(eq=False)
class OtherProposer(GalleryError):
    """The regions of the gallery are of the proposer `stored`, and the set `model_set` has `wanted`."""

    stored: str
    model_set: str
    wanted: str

    def __str__(self) -> str:
        made = f"the regions of {self.path} are of the proposer {self.stored}"
        return (
            f"{made}; the model set {self.model_set} has {self.wanted}, which could not add photos to them."
        )


@dataclass(eq=False)
class ModelMismatch(GalleryError):
    """The gallery was made with the model `stored`; vectors or masks of `wanted` are not comparable.

    `role` is the part that the model plays: "proposer" or "encoder".
    """

    role: str
    stored: str
    wanted: str

    def __str__(self) -> str:
        made = f"{self.path} was made with the {self.role} {self.stored}, not {self.wanted}"
        return f"{made}: their results cannot be compared."
