"""Values shared by several packages: frozen dataclasses and array types.

Coordinate frames. *Photo pixels*: the photo at its true size, EXIF orientation applied, origin at the top
left corner. *Working pixels*: the same photo scaled down to a long side of at most 1024, the size at which
masks are stored. Boxes are XYXY with continuous edges: a mask whose only pixel is (0, 0) has the box
(0, 0, 1, 1).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Literal, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

from matir_cli.errors import OutOfRange

ImageArray: TypeAlias = NDArray[np.uint8]
"""(height, width, 3) uint8, RGB."""

MaskArray: TypeAlias = NDArray[np.bool_]
"""(height, width) bool."""

FloatArray: TypeAlias = NDArray[np.float32]
"""float32; the shape is stated where it is used."""

MatchRule: TypeAlias = Literal["iou", "joint"]
"""How a region is matched to a judge's box: by IoU alone, or jointly by IoU, vector and predicted IoU."""

MAX_PIXELS = 400_000_000
"""Larger photos, which take 2 GB and more to decode, are treated as decompression bombs."""

WORKING_SIDE = 1024
"""Pixels: longest side of the working image, which models see and in which masks are kept."""


@dataclass(frozen=True, slots=True)
class Box:
    """An axis-parallel box, XYXY with continuous edges; its frame is stated where it is used."""

    x0: float
    y0: float
    x1: float
    y1: float

    @property
    def area(self) -> float:
        """Area in square pixels; 0 for an inverted box."""
        return max(0.0, self.x1 - self.x0) * max(0.0, self.y1 - self.y0)

    def rounded(self, digits: int) -> tuple[float, float, float, float]:
        """Return x0, y0, x1, y1, rounded to this number of decimal digits."""
        return round(self.x0, digits), round(self.y0, digits), round(self.x1, digits), round(self.y1, digits)

    def scaled(self, x: float, y: float) -> Box:
        """Return the box in a frame that is `x` times as wide and `y` times as high."""
        return Box(self.x0 * x, self.y0 * y, self.x1 * x, self.y1 * y)


@dataclass(frozen=True, slots=True)
class Point:
    """A position in a photo; its frame is stated where it is used."""

    x: float
    y: float

    def scaled(self, x: float, y: float) -> Point:
        """Return the point in a frame that is `x` times as wide and `y` times as high."""
        return Point(self.x * x, self.y * y)


Place = TypeVar("Place", Box, Point)
"""A box or a point, which scale in the same way."""


@dataclass(frozen=True, slots=True)
class Rle:
    """A mask in COCO's compressed run-length encoding, byte for byte as pycocotools makes it."""

    height: int
    """Rows, in working pixels."""
    width: int
    """Columns, in working pixels."""
    counts: bytes
    """Run lengths in column-major order, LEB128-like ASCII (pycocotools' `counts`)."""


class OriginKind(StrEnum):
    """Where a region comes from, if not from the proposer."""

    HUMAN = "human"
    """Drawn or confirmed by a person."""
    DATA_SET = "data set"
    """An annotation of a data set."""


@dataclass(frozen=True, slots=True)
class RegionOrigin:
    """Origin of a region that the proposer did not propose."""

    kind: OriginKind
    label: str | None
    """What the region shows, in the words of its source."""


@dataclass(frozen=True, slots=True)
class Region:
    """A region of a photo that may be an object: found by a proposer, or given by a person or a data set."""

    rle: Rle
    """The mask, working pixels."""
    box: Box
    """Box tight around the mask, working pixels."""
    area: int
    """Area of the mask, working pixels."""
    predicted_iou: float
    """The proposer's own estimate of the mask's IoU with a real object, 0..1; 1 for a mask that was given."""
    stability: float
    """IoU between the mask cut at a higher and at a lower threshold, 0..1; 1 for a mask that was given."""
    origin: RegionOrigin | None = None
    """None: the proposer."""

    @property
    def is_human(self) -> bool:
        """True if a person has drawn or confirmed the mask."""
        return self.origin is not None and self.origin.kind is OriginKind.HUMAN


@dataclass(frozen=True, slots=True)
class ModelIdentity:
    """Identity of a model and its exact weights, which a gallery records and compares."""

    name: str
    """Name for people, such as "sam2.1_hiera_large"."""
    weight_hash: str
    """SHA-256, hex, over the SHA-256 of every file that the model is loaded from, and over the settings that
    its results depend on."""


@dataclass(frozen=True, slots=True)
class EngineConfig:
    """One engine of a model set, with its files located on disk: all that an engine needs to load."""

    engine: str
    """The engine's name in the registry, such as "sam2"."""
    options: Mapping[str, object]
    """The engine's own settings as read from the TOML file; the engine validates them."""
    files: Mapping[str, Path]
    """Role of a file (such as "checkpoint") to its local path."""
    identity: ModelIdentity


@dataclass(frozen=True, slots=True)
class Candidate:
    """A photo found by stage 1."""

    photo_id: int
    region_id: int
    """Id of its best region."""
    score: float
    """Cosine of that region and the query, -1..1 (eq. 1), less what a description's parts miss."""
    near_copies: int | None = None
    """Number of photos that rank lower and were left out as near-copies of this one; None: not looked for."""


def check_range(name: str, value: float | None, least: float, most: float = math.inf) -> None:
    """Check that the argument `name` lies between `least` and `most`, both included; None always passes.

    Raises:
        OutOfRange: the value lies outside, or is NaN.
    """
    if value is not None and not least <= value <= most:
        raise OutOfRange(name, value, least, most)


@dataclass(frozen=True, slots=True)
class Verdict:
    """A judge's answer to "Does this image contain the described object?" (eq. 2)."""

    z_true: float
    """Logit of "True" at the answer position."""
    z_false: float
    """Logit of "False" at the answer position."""

    @property
    def margin(self) -> float:
        """zTrue - zFalse, float64, by which candidates are ranked, since S' saturates."""
        return self.z_true - self.z_false

    @property
    def p_true(self) -> float:
        """S' = softmax(zTrue, zFalse), the probability of "True", 0..1."""
        return (
            1.0 / (1.0 + math.exp(-self.margin))
            if self.margin >= 0
            else (math.exp(self.margin) / (1.0 + math.exp(self.margin)))
        )


@dataclass(frozen=True, slots=True)
class Grounding:
    """A judge's answer to the question where the described object is."""

    boxes: tuple[Box, ...]
    """In the order of the answer. From an engine: pixels of the image asked about, clipped to it. In the
    gallery's cache: photo pixels."""
    answer: str
    """Text of the answer, kept for inspection."""
    readable: bool
    """True if the answer has the requested form; it may still hold no box."""


@dataclass(frozen=True, slots=True)
class FileRecord:
    """State of a file when it was last read."""

    path: Path
    """Absolute path."""
    bytes: int
    """Size."""
    mtime_ns: int
    """Time of last modification, nanoseconds since the epoch."""


@dataclass(frozen=True, slots=True)
class FileMetadata:
    """Rating, keywords and position of a photo's file and its sidecar together."""

    rating: int | None = None
    """-1 (rejected) to 5; 0 is unrated, as None is."""
    keywords: tuple[str, ...] = ()
    """Each once, ignoring case; levels of hierarchical ones are separated by |."""
    latitude: float | None = None
    """Degrees, north positive; None unless the sidecar states a position."""
    longitude: float | None = None
    """Degrees, east positive; likewise."""


class NoteKind(StrEnum):
    """Part of a photo's file that could not be read."""

    PICTURE = "picture"
    """The rest of the picture is blank or coarse."""
    METADATA = "metadata"
    """The picture is whole."""


@dataclass(frozen=True, slots=True)
class Note:
    """A statement about what could not be read of a photo's file."""

    kind: NoteKind
    text: str
    """A phrase for people."""


@dataclass(frozen=True, slots=True)
class PhotoRecord:
    """Properties of a photo; several files with the same bytes are one photo."""

    sha256: bytes
    """SHA-256 of the file, 32 bytes."""
    width: int
    """Photo pixels, orientation applied."""
    height: int
    """Photo pixels, orientation applied."""
    mask_width: int
    """Working pixels."""
    mask_height: int
    """Working pixels."""
    orientation: int
    """EXIF orientation of the file, 1 to 8."""
    taken_at: str | None = None
    """Date and time taken, ISO 8601, in the camera's local time."""
    camera: str | None = None
    """Name of the camera."""
    latitude: float | None = None
    """Degrees, north positive."""
    longitude: float | None = None
    """Degrees, east positive."""

    def scaled_to(self, place: Place, width: int, height: int) -> Place:
        """Map a box or point in photo pixels into a picture of this photo of `width` x `height` pixels."""
        return place.scaled(width / self.width, height / self.height)

    def scaled_from(self, place: Place, width: int, height: int) -> Place:
        """Map a box or point in a picture of this photo of `width` x `height` pixels into photo pixels."""
        return place.scaled(self.width / width, self.height / height)

    def to_working(self, place: Place) -> Place:
        """Map a box or point in photo pixels into working pixels."""
        return self.scaled_to(place, self.mask_width, self.mask_height)

    def to_photo(self, place: Place) -> Place:
        """Map a box or point in working pixels into photo pixels."""
        return self.scaled_from(place, self.mask_width, self.mask_height)

    def share(self, area: float) -> float:
        """Return the fraction of the photo, 0..1, that `area` square working pixels cover."""
        return area / (self.mask_width * self.mask_height)
