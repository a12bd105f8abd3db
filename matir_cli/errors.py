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
    └── QueryContradicts               what to find is what not to find

An error carries facts in named attributes; the wording, the remedy and the exit
code belong to `matir_cli.cli.boundary`, the one place that turns errors into text.
"""

from collections.abc import Sequence
from pathlib import Path


class MatirError(Exception):
    """Base of all errors raised on purpose."""


class GalleryError(MatirError):
    """Something about the gallery file at `path`."""

    def __init__(self, path: Path) -> None:
        super().__init__(str(path))
        self.path = path


class GalleryMissing(GalleryError):
    """There is no file at `path`."""


class GalleryEmpty(GalleryError):
    """The gallery holds no photo."""


class NotAGallery(GalleryError):
    """The file at `path` was not written by this tool; it has not been touched."""


class GalleryTooNew(GalleryError):
    """Schema `found` is newer than `known`, the newest this version understands."""

    def __init__(self, path: Path, found: int, known: int) -> None:
        super().__init__(path)
        self.found = found
        self.known = known


class GalleryTooOld(GalleryError):
    """Schema `found` is older than `known`, and the file is only to be read, not brought up to date."""

    def __init__(self, path: Path, found: int, known: int) -> None:
        super().__init__(path)
        self.found = found
        self.known = known


class GalleryDamaged(GalleryError):
    """SQLite reports the file as malformed; `reason` is its message."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(path)
        self.reason = reason


class GalleryIOFailed(GalleryError):
    """The system failed to read or write the file (quota, size limit, device); `reason` says how."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(path)
        self.reason = reason


class GalleryBusy(GalleryError):
    """Another process kept the file locked beyond the time-out."""


class GalleryReadOnly(GalleryError):
    """The file, or the folder it lies in, cannot be written."""


class DiskFull(GalleryError):
    """There is no room left for `path`; what was committed before is still there."""


class RoomTooSmall(GalleryError):
    """Working on the file takes `needed` bytes of room beside it, and `available` are free."""

    def __init__(self, path: Path, needed: int, available: int) -> None:
        super().__init__(path)
        self.needed = needed
        self.available = available


class MergeIntoItself(GalleryError):
    """The gallery was to be merged into the one in the same file."""


class PhotoUnknown(GalleryError):
    """The gallery holds no photo that `name`, a file or an id, means."""

    def __init__(self, path: Path, name: str) -> None:
        super().__init__(path)
        self.name = name


class ModelMismatch(GalleryError):
    """The gallery was made with `stored`; `wanted` gives vectors or masks that do not compare."""

    def __init__(self, path: Path, role: str, stored: str, wanted: str) -> None:
        super().__init__(path)
        self.role = role
        self.stored = stored
        self.wanted = wanted


class ModelSetError(MatirError):
    """Something about a model set or one of its files."""


class ModelSetUnknown(ModelSetError):
    """No model set is called `name`; `known` lists those that there are."""

    def __init__(self, name: str, known: Sequence[str]) -> None:
        super().__init__(name)
        self.name = name
        self.known = tuple(known)


class ModelSetInvalid(ModelSetError):
    """The model set in `source` is wrong; `reason` names the key and what it must be."""

    def __init__(self, source: str, reason: str) -> None:
        super().__init__(f"{source}: {reason}")
        self.source = source
        self.reason = reason


class PartMissing(ModelSetError):
    """The model set `model_set` has no `part` ("proposer", "encoder" or "judge")."""

    def __init__(self, model_set: str, part: str) -> None:
        super().__init__(f"{model_set}: {part}")
        self.model_set = model_set
        self.part = part


class WeightsMissing(ModelSetError):
    """`files` of model set `model_set` are not on this machine; `part` is the part that needs them."""

    def __init__(self, model_set: str, files: Sequence[Path], part: str | None = None) -> None:
        super().__init__(model_set)
        self.part = part
        self.model_set = model_set
        self.files = tuple(files)


class WeightsChanged(ModelSetError):
    """The SHA-256 of `path` is `found`, not the `expected` one (both hex)."""

    def __init__(self, path: Path, expected: str, found: str) -> None:
        super().__init__(str(path))
        self.path = path
        self.expected = expected
        self.found = found


class CheckpointInvalid(ModelSetError):
    """`path` cannot be loaded as the model it should hold; `reason` says why."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"{path}: {reason}")
        self.path = path
        self.reason = reason


class MemoryTooSmall(ModelSetError):
    """The model in `path` needs `needed` bytes of memory, and `available` can be had."""

    def __init__(self, path: Path, needed: int, available: int) -> None:
        super().__init__(str(path))
        self.path = path
        self.needed = needed
        self.available = available


class ContextTooSmall(ModelSetError):
    """`what` takes `needed` tokens, and the model's context has room for `available`."""

    def __init__(self, what: str, needed: int, available: int) -> None:
        super().__init__(f"{what}: {needed} > {available}")
        self.what = what
        self.needed = needed
        self.available = available


class DownloadFailed(ModelSetError):
    """`source` could not be fetched; `reason` says why. What arrived so far is kept for resuming."""

    def __init__(self, source: str, reason: str) -> None:
        super().__init__(f"{source}: {reason}")
        self.source = source
        self.reason = reason


class EngineFailed(MatirError):
    """A loaded model could not compute an answer; `reason` is the engine's own word for it."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class PhotoUnreadable(MatirError):
    """`path` cannot be indexed; `reason` is short, lower case and fit to be remembered."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"{path}: {reason}")
        self.path = path
        self.reason = reason


class AnnotationsInvalid(MatirError):
    """The annotations in `path` cannot be used; `reason` names the id and what is wrong with it."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"{path}: {reason}")
        self.path = path
        self.reason = reason


class FolderVanished(MatirError):
    """None of the `count` files that the gallery knows below `path` is there; 0: it knows none either."""

    def __init__(self, path: Path, count: int) -> None:
        super().__init__(str(path))
        self.path = path
        self.count = count


class OutputError(MatirError):
    """A result could not be written to `path`; `reason` is the system's word for it."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"{path}: {reason}")
        self.path = path
        self.reason = reason


class OutputExists(OutputError):
    """There is a file at `path` already; it was kept."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, "it exists")


class SidecarUnusable(OutputError):
    """The sidecar at `path` holds something else than it should; it was left as it is."""


class PackageMissing(MatirError):
    """What was asked for needs the packages of the optional `extra`."""

    def __init__(self, extra: str) -> None:
        super().__init__(extra)
        self.extra = extra


class DeviceUnavailable(MatirError):
    """`device` was asked for by name and is not on this machine."""

    def __init__(self, device: str) -> None:
        super().__init__(device)
        self.device = device


class ExampleOutside(MatirError):
    """The box or point does not lie in the photo at `path`, which has `width` x `height` pixels."""

    def __init__(self, path: Path, width: int, height: int) -> None:
        super().__init__(str(path))
        self.path = path
        self.width = width
        self.height = height


class ExampleBlank(MatirError):
    """The proposer sees no object at the box or point in the photo at `path`."""

    def __init__(self, path: Path) -> None:
        super().__init__(str(path))
        self.path = path


class QueryEmpty(MatirError):
    """The query has no words."""


class QueryContradicts(MatirError):
    """To the encoder, `text`, which is not to be found, says what is to be found."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text
