"""All errors that MaTIR raises on purpose, as one tree.

    MatirError
    ├── GalleryError                   about the gallery file
    │   ├── GalleryMissing             there is no such file
    │   ├── GalleryEmpty               it holds no photo yet
    │   ├── NotAGallery                the file was not written by this tool
    │   ├── GalleryTooNew              written by a later version
    │   ├── GalleryTooOld              written by an earlier version, and it may not be changed
    │   ├── GalleryDamaged             it is malformed
    │   │   └── IndexDamaged           its search index is, which can be rebuilt
    │   ├── GalleryIOFailed            the system failed to read or write it
    │   ├── GalleryBusy                another process held the lock too long
    │   ├── GalleryReadOnly            it or its folder does not permit the access needed
    │   ├── DiskFull                   no disk space to write
    │   ├── RoomTooSmall               less disk space than a step is known to need
    │   ├── PhotoUnknown               it holds no photo of that name or id
    │   ├── MergeIntoItself            both galleries of a merge are the same file
    │   └── ModelMismatch              made with other models than those requested
    ├── ModelSetError                  about the models
    │   ├── ModelSetUnknown            no set of that name
    │   ├── ModelSetInvalid            its TOML is invalid
    │   ├── PartMissing                the set lacks the model that is needed
    │   ├── WeightsMissing             files that were not fetched yet
    │   ├── WeightsChanged             a file's hash differs from the recorded one
    │   ├── CheckpointInvalid          a file that cannot be loaded as the model it should hold
    │   ├── MemoryTooSmall             the machine has less memory than a model needs
    │   ├── ContextTooSmall            a question does not fit the model's context
    │   └── DownloadFailed             a file could not be fetched
    ├── EngineFailed                   a loaded model could not compute a result
    ├── PhotoUnreadable                a photo to skip, with the reason
    ├── AnnotationsInvalid             a data set's file that cannot be evaluated against
    ├── FolderVanished                 a folder to sync holds none of the files known there
    ├── OutputError                    a result that could not be written
    │   ├── OutputExists               a file that is kept unless it may be replaced
    │   └── SidecarUnusable            a file that is not an XMP sidecar to extend
    │       ├── SidecarRegionsUnusable one whose regions cannot be extended
    │       └── SidecarElsewhere       a link to a sidecar in another folder
    ├── PackageMissing                 an optional package is not installed
    ├── DeviceUnavailable              the requested device is not available
    ├── ExampleOutside                 a box or point outside the photo
    ├── ExampleBlank                   no object at the box or point
    ├── QueryEmpty                     nothing to search for
    ├── QueryNotText                   the query is not UTF-8
    ├── QueryContradicts               the query excludes what it asks for
    └── OutOfRange                     a number outside an argument's range; also a ValueError

An error carries its facts in named attributes. `str(error)` is one plain sentence that says what is
wrong; file names in it are not escaped. The remedy, which names commands, and the exit code belong to
`matir_cli.cli.boundary`, through which errors reach a terminal.

The classes are defined in `gallery`, `models`, `inputs` and `outputs` on top of `base`, and every other
module imports them from here. The package imports nothing else of MaTIR.
"""

from matir_cli.errors.base import (
    MatirError,
)
from matir_cli.errors.gallery import (
    DiskFull,
    GalleryBusy,
    GalleryDamaged,
    GalleryEmpty,
    GalleryError,
    GalleryIOFailed,
    GalleryMissing,
    GalleryReadOnly,
    GalleryTooNew,
    GalleryTooOld,
    IndexDamaged,
    MergeIntoItself,
    ModelMismatch,
    NotAGallery,
    PhotoUnknown,
    RoomTooSmall,
)
from matir_cli.errors.inputs import (
    AnnotationsInvalid,
    ExampleBlank,
    ExampleOutside,
    FolderVanished,
    OutOfRange,
    PhotoUnreadable,
    QueryContradicts,
    QueryEmpty,
    QueryNotText,
)
from matir_cli.errors.models import (
    CheckpointInvalid,
    ContextTooSmall,
    DeviceUnavailable,
    DownloadFailed,
    EngineFailed,
    MemoryTooSmall,
    ModelSetError,
    ModelSetInvalid,
    ModelSetUnknown,
    PartMissing,
    WeightsChanged,
    WeightsMissing,
)
from matir_cli.errors.outputs import (
    OutputError,
    OutputExists,
    PackageMissing,
    SidecarElsewhere,
    SidecarRegionsUnusable,
    SidecarUnusable,
)

__all__ = [
    "AnnotationsInvalid",
    "CheckpointInvalid",
    "ContextTooSmall",
    "DeviceUnavailable",
    "DiskFull",
    "DownloadFailed",
    "EngineFailed",
    "ExampleBlank",
    "ExampleOutside",
    "FolderVanished",
    "GalleryBusy",
    "GalleryDamaged",
    "GalleryEmpty",
    "GalleryError",
    "GalleryIOFailed",
    "GalleryMissing",
    "GalleryReadOnly",
    "GalleryTooNew",
    "GalleryTooOld",
    "IndexDamaged",
    "MatirError",
    "MemoryTooSmall",
    "MergeIntoItself",
    "ModelMismatch",
    "ModelSetError",
    "ModelSetInvalid",
    "ModelSetUnknown",
    "NotAGallery",
    "OutOfRange",
    "OutputError",
    "OutputExists",
    "PackageMissing",
    "PartMissing",
    "PhotoUnknown",
    "PhotoUnreadable",
    "QueryContradicts",
    "QueryEmpty",
    "QueryNotText",
    "RoomTooSmall",
    "SidecarElsewhere",
    "SidecarRegionsUnusable",
    "SidecarUnusable",
    "WeightsChanged",
    "WeightsMissing",
]
