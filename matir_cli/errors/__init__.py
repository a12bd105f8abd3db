"""All errors that MaTIR raises on purpose, as one tree.

    MatirError
    ├── GalleryError                   about the gallery file
    │   ├── GalleryMissing             there is no such file
    │   │   └── NoGalleryLeft          all are left out, as missing or damaged
    │   ├── GalleryEmpty               it holds no photo yet
    │   ├── NotAGallery                the file was not written by this tool
    │   ├── GalleryTooNew              written by a later version
    │   ├── GalleryDamaged             it is malformed
    │   │   └── IndexDamaged           its search index is, which can be rebuilt
    │   ├── GalleryFailed              SQLite failed for no reason that lies in the file or the system
    │   ├── GalleryChanged             another command changed it at the same moment
    │   ├── GalleryUnrecovered         a write to it was interrupted, and it may not be changed
    │   ├── GalleryIOFailed            the system failed to read or write it
    │   ├── GalleryBusy                another process held the lock too long
    │   ├── GalleryNameInvalid         its path is not UTF-8
    │   ├── GalleryReadOnly            it or its folder does not permit the access needed
    │   ├── DiskFull                   no disk space to write
    │   ├── RoomTooSmall               less disk space than a step is known to need
    │   ├── PhotoUnknown               it holds no photo of that name or id
    │   ├── SavedSearchUnknown         it holds no saved search of that name
    │   ├── SavedSearchExists          it holds a saved search of that name already
    │   ├── MergeIntoItself            both galleries of a merge are the same file
    │   ├── ReencodingBegun            new vectors for another model set are half made
    │   ├── OtherProposer              its regions are of another proposer than a model set has
    │   └── ModelMismatch              made with other models than those requested
    ├── ExtensionUnusable              SQLite cannot load an extension that it needs
    ├── ModelSetError                  about the models
    │   ├── ModelSetUnknown            no set of that name
    │   ├── ModelSetUntrusted          a gallery names a file as its set that the user has not used with it
    │   ├── ModelSetInvalid            its TOML is invalid
    │   ├── PartMissing                the set lacks the model that is needed
    │   ├── WeightsMissing             files that were not fetched yet
    │   ├── WeightsChanged             a file's hash differs from the recorded one
    │   ├── CheckpointInvalid          a file that cannot be loaded as the model it should hold
    │   ├── MemoryTooSmall             the machine has less memory than a model needs
    │   ├── ContextTooSmall            a question does not fit the model's context
    │   └── DownloadFailed             a file could not be fetched
    ├── ClusterError                   about a cluster of machines that index photos
    │   ├── ClusterUnavailable         it cannot be joined, or started
    │   ├── ClusterTooSmall            it has no room for the workers that are asked for
    │   ├── WorkerRefused              a worker would not index as this machine does
    │   └── WorkersFailed              no worker can go on
    ├── EngineFailed                   a loaded model could not compute a result
    ├── PhotoUnreadable                a photo to skip, with the reason
    │   └── PhotoInaccessible          the system does not let it be read
    ├── ListNotUtf8                    a list of names or queries in another encoding
    ├── DecoderUnavailable             the process that decodes photos does not start
    ├── AnnotationsInvalid             a data set's file that cannot be evaluated against
    ├── RegionFileInvalid              a file of regions or corrections that cannot be used
    ├── FolderVanished                 a folder to sync holds none of the files known there
    ├── OutputError                    a result that could not be written
    │   ├── OutputExists               a file that is kept unless it may be replaced
    │   └── SidecarUnusable            a file that is not an XMP sidecar to extend
    │       ├── SidecarRegionsUnusable one whose regions cannot be extended
    │       └── SidecarElsewhere       a link to a sidecar in another folder
    ├── ServerRunning                  a gallery's server runs already
    ├── ServerFailed                   a server that cannot start
    ├── PackageMissing                 an optional package is not installed
    ├── DeviceUnavailable              the requested device is not available
    ├── ExampleOutside                 a box or point outside the photo
    ├── ExampleBlank                   no object at the box or point
    ├── QueryEmpty                     nothing to search for
    ├── QueryNotText                   the query is not UTF-8
    ├── QueryContradicts               the query excludes what it asks for
    ├── DefaultsInvalid                a wrong value in the user's defaults file
    └── OutOfRange                     a number outside an argument's range; also a ValueError

An error carries its facts in named attributes. `str(error)` is one plain sentence that says what is
wrong; file names in it are not escaped. The remedy, which names commands, and the exit code belong to
`matir_cli.cli.boundary`, through which errors reach a terminal.

The classes are defined in the other modules of the package on top of `base`, and every other module of MaTIR
imports them from here. The package imports nothing else of MaTIR.
"""

from matir_cli.errors.base import (
    MatirError,
)
from matir_cli.errors.cluster import (
    ClusterError,
    ClusterTooSmall,
    ClusterUnavailable,
    WorkerRefused,
    WorkersFailed,
)
from matir_cli.errors.gallery import (
    DiskFull,
    ExtensionUnusable,
    GalleryBusy,
    GalleryChanged,
    GalleryDamaged,
    GalleryEmpty,
    GalleryError,
    GalleryFailed,
    GalleryIOFailed,
    GalleryMissing,
    GalleryNameInvalid,
    GalleryReadOnly,
    GalleryTooNew,
    GalleryUnrecovered,
    IndexDamaged,
    MergeIntoItself,
    ModelMismatch,
    NoGalleryLeft,
    NotAGallery,
    OtherProposer,
    PhotoUnknown,
    ReencodingBegun,
    RoomTooSmall,
    SavedSearchExists,
    SavedSearchUnknown,
)
from matir_cli.errors.inputs import (
    AnnotationsInvalid,
    DecoderUnavailable,
    DefaultsInvalid,
    ExampleBlank,
    ExampleOutside,
    FolderVanished,
    ListNotUtf8,
    OutOfRange,
    PhotoInaccessible,
    PhotoUnreadable,
    QueryContradicts,
    QueryEmpty,
    QueryNotText,
    RegionFileInvalid,
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
    ModelSetUntrusted,
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
from matir_cli.errors.server import (
    ServerFailed,
    ServerRunning,
)

__all__ = [
    "AnnotationsInvalid",
    "CheckpointInvalid",
    "ClusterError",
    "ClusterTooSmall",
    "ClusterUnavailable",
    "ContextTooSmall",
    "DecoderUnavailable",
    "DefaultsInvalid",
    "DeviceUnavailable",
    "DiskFull",
    "DownloadFailed",
    "EngineFailed",
    "ExampleBlank",
    "ExampleOutside",
    "ExtensionUnusable",
    "FolderVanished",
    "GalleryBusy",
    "GalleryChanged",
    "GalleryDamaged",
    "GalleryEmpty",
    "GalleryError",
    "GalleryFailed",
    "GalleryIOFailed",
    "GalleryMissing",
    "GalleryNameInvalid",
    "GalleryReadOnly",
    "GalleryTooNew",
    "GalleryUnrecovered",
    "IndexDamaged",
    "ListNotUtf8",
    "MatirError",
    "MemoryTooSmall",
    "MergeIntoItself",
    "ModelMismatch",
    "ModelSetError",
    "ModelSetInvalid",
    "ModelSetUnknown",
    "ModelSetUntrusted",
    "NoGalleryLeft",
    "NotAGallery",
    "OtherProposer",
    "OutOfRange",
    "OutputError",
    "OutputExists",
    "PackageMissing",
    "PartMissing",
    "PhotoInaccessible",
    "PhotoUnknown",
    "PhotoUnreadable",
    "QueryContradicts",
    "QueryEmpty",
    "QueryNotText",
    "ReencodingBegun",
    "RegionFileInvalid",
    "RoomTooSmall",
    "SavedSearchExists",
    "SavedSearchUnknown",
    "ServerFailed",
    "ServerRunning",
    "SidecarElsewhere",
    "SidecarRegionsUnusable",
    "SidecarUnusable",
    "WeightsChanged",
    "WeightsMissing",
    "WorkerRefused",
    "WorkersFailed",
]
