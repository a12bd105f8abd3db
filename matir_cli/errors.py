"""Everything that can go wrong on purpose, as one tree.

    MatirError
    ├── GalleryError                   about the database file
    │   ├── GalleryMissing             no file there
    │   ├── GalleryEmpty               it holds no photo yet
    │   ├── NotAGallery                a file, but not one of ours
    │   ├── GalleryTooNew              written by a later version
    │   ├── GalleryTooOld              written by an earlier version, and it may not be changed
    │   ├── GalleryDamaged             SQLite finds it malformed
    │   ├── GalleryIOFailed            the system failed to read or write it
    │   ├── GalleryBusy                another process held the lock too long
    │   ├── GalleryReadOnly            it or its folder cannot be written
    │   ├── DiskFull                   no room to write
    │   ├── RoomTooSmall               less room on the disk than a step is known to need
    │   ├── PhotoUnknown               no photo of that name or id in it
    │   ├── MergeIntoItself            a gallery to merge into the very same one
    │   └── ModelMismatch              made with other models than asked for
    ├── ModelSetError                  about the models
    │   ├── ModelSetUnknown            no set of that name
    │   ├── ModelSetInvalid            the TOML does not say what it must
    │   ├── PartMissing                a set without the model that was asked for
    │   ├── WeightsMissing             files not fetched yet
    │   ├── WeightsChanged             a file's hash is not the recorded one
    │   ├── CheckpointInvalid          a file that cannot be loaded as what it should be
    │   ├── MemoryTooSmall             the machine has less memory than a model needs
    │   ├── ContextTooSmall            a model's context does not hold what it is asked
    │   └── DownloadFailed             a file could not be fetched
    ├── EngineFailed                   a model was loaded but could not compute
    ├── PhotoUnreadable                a photo to skip, with the reason
    ├── AnnotationsInvalid             a data set's file that cannot be evaluated against
    ├── FolderVanished                 a folder to sync holds none of the files known there
    ├── OutputError                    a result that could not be written
    │   ├── OutputExists               a file that is kept unless told otherwise
    │   └── SidecarUnusable            an XMP sidecar that cannot be merged into
    ├── PackageMissing                 an optional package that was not installed
    ├── DeviceUnavailable              the device asked for is not there
    ├── ExampleOutside                 a box or point that is not in the photo
    ├── ExampleBlank                   a box or point where no object is seen
    ├── QueryEmpty                     nothing to search for
    ├── QueryNotText                   it is not UTF-8
    ├── QueryContradicts               what to find is what not to find
    └── OutOfRange                     a number that an argument cannot have; a ValueError, too

An error carries facts in named attributes, and `str(error)` is the sentence that says what is
wrong, with whatever characters the facts hold. The remedy, which names commands, and the exit
code belong to `matir_cli.cli.boundary`, through which errors reach a terminal.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path


class MatirError(Exception):
    """Base of all errors raised on purpose."""


@dataclass(eq=False)
class GalleryError(MatirError):
    """Something about the gallery file at `path`."""

    path: Path


class GalleryMissing(GalleryError):
    """There is no file at `path`."""

    def __str__(self) -> str:
        return f"there is no gallery at {self.path}."


class GalleryEmpty(GalleryError):
    """The gallery holds no photo."""

    def __str__(self) -> str:
        return f"the gallery {self.path} holds no photo yet."


class NotAGallery(GalleryError):
    """The file at `path` was not written by this tool; it has not been touched."""

    def __str__(self) -> str:
        return f"{self.path} is not a gallery; it was left as it is."


@dataclass(eq=False)
class GalleryTooNew(GalleryError):
    """Schema `found` is newer than `known`, the newest this version understands."""

    found: int
    known: int

    def __str__(self) -> str:
        schemas = f"schema {self.found}; this one knows {self.known}"
        return f"{self.path} was written by a newer version ({schemas})."


@dataclass(eq=False)
class GalleryTooOld(GalleryError):
    """Schema `found` is older than `known`, and the file is only to be read, not brought up to date."""

    found: int
    known: int

    def __str__(self) -> str:
        schemas = f"schema {self.found}; this one knows {self.known}"
        return f"{self.path} was written by an older version ({schemas})."


@dataclass(eq=False)
class GalleryDamaged(GalleryError):
    """SQLite reports the file as malformed; `reason` is its message."""

    reason: str

    def __str__(self) -> str:
        return f"{self.path} is damaged: {self.reason}."


@dataclass(eq=False)
class GalleryIOFailed(GalleryError):
    """The system failed to read or write the file (quota, size limit, device); `reason` says how."""

    reason: str

    def __str__(self) -> str:
        return f"{self.path} could not be read or written: {self.reason}; every photo added before is kept."


class GalleryBusy(GalleryError):
    """Another process kept the file locked beyond the time-out."""

    def __str__(self) -> str:
        return f"{self.path} is in use by another command."


class GalleryReadOnly(GalleryError):
    """The file, or the folder it lies in, cannot be written."""

    def __str__(self) -> str:
        return f"{self.path} cannot be opened for this."


class DiskFull(GalleryError):
    """There is no room left for `path`; what was committed before is still there."""

    def __str__(self) -> str:
        return f"there is no room left for {self.path}; every photo added before is kept."


@dataclass(eq=False)
class RoomTooSmall(GalleryError):
    """Working on the file takes `needed` bytes of room beside it, and `available` are free."""

    needed: int
    available: int

    def __str__(self) -> str:
        wanted, there = f"{self.needed / 1e9:.2f} GB", f"{self.available / 1e9:.2f} GB"
        return f"this takes {wanted} of room beside {self.path}; {there} are free."


class MergeIntoItself(GalleryError):
    """The gallery was to be merged into the one in the same file."""

    def __str__(self) -> str:
        return f"{self.path} is the gallery to merge into."


@dataclass(eq=False)
class PhotoUnknown(GalleryError):
    """The gallery holds no photo that `name`, a file or an id, means."""

    name: str

    def __str__(self) -> str:
        return f"{self.path} holds no photo {self.name}."


@dataclass(eq=False)
class ModelMismatch(GalleryError):
    """The gallery was made with `stored`; `wanted` gives vectors or masks that do not compare."""

    role: str
    stored: str
    wanted: str

    def __str__(self) -> str:
        made = f"{self.path} was made with the {self.role} {self.stored}, not {self.wanted}"
        return f"{made}: their results do not compare."


class ModelSetError(MatirError):
    """Something about a model set or one of its files."""


@dataclass(eq=False)
class ModelSetUnknown(ModelSetError):
    """No model set is called `name`; `known` lists those that there are."""

    name: str
    known: Sequence[str]

    def __str__(self) -> str:
        return f"there is no model set {self.name}; there are: {', '.join(self.known) or 'none'}."


@dataclass(eq=False)
class ModelSetInvalid(ModelSetError):
    """The model set in `source` is wrong; `reason` names the key and what it must be."""

    source: str
    reason: str

    def __str__(self) -> str:
        return f"the model set {self.source} is wrong: {self.reason}."


@dataclass(eq=False)
class PartMissing(ModelSetError):
    """The model set `model_set` has no `part` ("proposer", "encoder" or "judge")."""

    model_set: str
    part: str

    def __str__(self) -> str:
        return f"the model set {self.model_set} has no {self.part}."


@dataclass(eq=False)
class WeightsMissing(ModelSetError):
    """`files` of model set `model_set` are not on this machine; `part` is the part that needs them."""

    model_set: str
    files: Sequence[Path]
    part: str | None = None

    def __post_init__(self) -> None:
        self.files = tuple(self.files)

    def __str__(self) -> str:
        names = ", ".join(sorted(file.name for file in self.files))
        return f"weights of the model set {self.model_set} are missing: {names}."


@dataclass(eq=False)
class WeightsChanged(ModelSetError):
    """The SHA-256 of `path` is `found`, not the `expected` one (both hex)."""

    path: Path
    expected: str
    found: str

    def __str__(self) -> str:
        return f"{self.path} has the SHA-256 {self.found}, expected {self.expected}."


@dataclass(eq=False)
class CheckpointInvalid(ModelSetError):
    """`path` cannot be loaded as the model it should hold; `reason` says why."""

    path: Path
    reason: str

    def __str__(self) -> str:
        return f"{self.path} cannot be loaded: {self.reason}."


@dataclass(eq=False)
class MemoryTooSmall(ModelSetError):
    """The model in `path` needs `needed` bytes of memory, and `available` can be had."""

    path: Path
    needed: int
    available: int

    def __str__(self) -> str:
        wanted, there = f"{self.needed / 1e9:.1f} GB", f"{self.available / 1e9:.1f} GB"
        return f"{self.path} needs {wanted} of memory, and {there} can be had."


@dataclass(eq=False)
class ContextTooSmall(ModelSetError):
    """`what` takes `needed` tokens, and the model's context has room for `available`."""

    what: str
    needed: int
    available: int

    def __str__(self) -> str:
        room = f"the judge's context has room for {self.available}"
        return f"{self.what} takes {self.needed} tokens; {room}."


@dataclass(eq=False)
class DownloadFailed(ModelSetError):
    """`source` could not be fetched; `reason` says why. What arrived so far is kept for resuming."""

    source: str
    reason: str

    def __str__(self) -> str:
        return f"{self.source} could not be fetched: {self.reason}."


@dataclass(eq=False)
class EngineFailed(MatirError):
    """A loaded model could not compute an answer; `reason` is the engine's own word for it."""

    reason: str

    def __str__(self) -> str:
        return f"a model could not compute an answer: {self.reason}."


@dataclass(eq=False)
class PhotoUnreadable(MatirError):
    """`path` cannot be indexed; `reason` is short, lower case and fit to be remembered."""

    path: Path
    reason: str

    def __str__(self) -> str:
        return f"{self.path} cannot be read: {self.reason}."


@dataclass(eq=False)
class AnnotationsInvalid(MatirError):
    """The annotations in `path` cannot be used; `reason` names the id and what is wrong with it."""

    path: Path
    reason: str

    def __str__(self) -> str:
        return f"{self.path} cannot be evaluated against: {self.reason}."


@dataclass(eq=False)
class FolderVanished(MatirError):
    """None of the `count` files that the gallery knows below `path` is there; 0: it knows none either."""

    path: Path
    count: int

    def __str__(self) -> str:
        if self.count == 0:
            return f"there is no {self.path}."
        if self.count == 1:
            return f"the one file that the gallery knows in {self.path} is not there any more."
        return f"none of the {self.count} files that the gallery knows in {self.path} is there any more."


@dataclass(eq=False)
class OutputError(MatirError):
    """A result could not be written to `path`; `reason` is the system's word for it."""

    path: Path
    reason: str

    def __str__(self) -> str:
        return f"{self.path} cannot be written: {self.reason}."


@dataclass(eq=False)
class OutputExists(OutputError):
    """There is a file at `path` already; it was kept."""

    reason: str = field(default="it exists", init=False)

    def __str__(self) -> str:
        return f"{self.path} exists; it was kept."


class SidecarUnusable(OutputError):
    """The sidecar at `path` holds something else than it should; it was left as it is."""

    def __str__(self) -> str:
        return f"{self.path} was left as it is: {self.reason}."


@dataclass(eq=False)
class PackageMissing(MatirError):
    """What was asked for needs the packages of the optional `extra`."""

    extra: str

    def __str__(self) -> str:
        return f"{self.extra} needs a package that is not installed."


@dataclass(eq=False)
class DeviceUnavailable(MatirError):
    """`device` was asked for by name and is not on this machine."""

    device: str

    def __str__(self) -> str:
        return f"there is no {self.device} device here."


@dataclass(eq=False)
class ExampleOutside(MatirError):
    """The box or point does not lie in the photo at `path`, which has `width` x `height` pixels."""

    path: Path
    width: int
    height: int

    def __str__(self) -> str:
        return f"the box or point is not in {self.path}, which is {self.width} x {self.height} pixels."


@dataclass(eq=False)
class ExampleBlank(MatirError):
    """The proposer sees no object at the box or point in the photo at `path`."""

    path: Path

    def __str__(self) -> str:
        return f"no object is seen there in {self.path}."


class QueryEmpty(MatirError):
    """The query has no words."""

    def __str__(self) -> str:
        return "the query is empty."


@dataclass(eq=False)
class QueryNotText(MatirError):
    """The query `text` has bytes in it that are not UTF-8, as lone surrogates."""

    text: str

    def __str__(self) -> str:
        return f"the query {self.text!a} is not UTF-8 text."


@dataclass(eq=False)
class QueryContradicts(MatirError):
    """To the encoder, `text`, which is not to be found, says what is to be found."""

    text: str

    def __str__(self) -> str:
        return f"not to find {self.text!r} leaves nothing to find: it says the same as the query."


@dataclass(eq=False)
class OutOfRange(MatirError, ValueError):
    """The argument `name` was `value`; it goes from `least` to `most`, both included."""

    name: str
    value: float
    least: float
    most: float = math.inf

    def __str__(self) -> str:
        bounds = f"{self.least} or more" if self.most == math.inf else f"from {self.least} to {self.most}"
        if self.least == -math.inf:
            bounds = "a number"
        return f"{self.name} is {self.value}; it must be {bounds}."
