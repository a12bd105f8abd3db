"""The values that travel between modules: frozen, documented field by field.

Coordinate frames. *Photo pixels*: the photo at its true size, EXIF orientation
applied, origin at the top left corner. *Working pixels*: the same photo scaled down
to a long side of at most 1024, in which masks are kept. Boxes are XYXY with
continuous edges: a mask whose only pixel is (0, 0) has the box (0, 0, 1, 1).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

from matir_cli.errors import OutOfRange

ImageArray: TypeAlias = NDArray[np.uint8]
"""(height, width, 3) uint8, RGB."""

MaskArray: TypeAlias = NDArray[np.bool_]
"""(height, width) bool."""

FloatArray: TypeAlias = NDArray[np.float32]

MAX_PIXELS = 400_000_000
"""A larger photo, which takes 2 to 4 GB to decode, is taken for a decompression bomb."""


@dataclass(frozen=True, slots=True)
class Box:
    """An axis-parallel box, XYXY, continuous edges; the frame is said where it is used."""

    x0: float
    y0: float
    x1: float
    y1: float

    @property
    def area(self) -> float:
        """In square pixels; 0 for an inverted box."""
        return max(0.0, self.x1 - self.x0) * max(0.0, self.y1 - self.y0)

    def rounded(self, digits: int) -> tuple[float, float, float, float]:
        """x0, y0, x1, y1 with so many digits after the point."""
        return round(self.x0, digits), round(self.y0, digits), round(self.x1, digits), round(self.y1, digits)

    def scaled(self, x: float, y: float) -> Box:
        """The box in a frame that is `x` times as wide and `y` times as high."""
        return Box(self.x0 * x, self.y0 * y, self.x1 * x, self.y1 * y)


@dataclass(frozen=True, slots=True)
class Point:
    """A place in a photo; the frame is said where it is used."""

    x: float
    y: float

    def scaled(self, x: float, y: float) -> Point:
        """The point in a frame that is `x` times as wide and `y` times as high."""
        return Point(self.x * x, self.y * y)


Place = TypeVar("Place", Box, Point)
"""A box or a point: both are scaled alike."""


@dataclass(frozen=True, slots=True)
class Rle:
    """A mask as COCO's compressed run-length encoding, byte for byte what pycocotools makes."""

    height: int
    """Rows, in working pixels."""
    width: int
    """Columns, in working pixels."""
    counts: bytes
    """Run lengths in column-major order, LEB128-like ASCII (pycocotools' `counts`)."""


@dataclass(frozen=True, slots=True)
class Region:
    """What a proposer found in a photo: a mask and what is known of it."""

    rle: Rle
    """The mask, working pixels."""
    box: Box
    """Tight around the mask, working pixels."""
    area: int
    """Mask area in working pixels."""
    predicted_iou: float
    """The proposer's own estimate of the mask's IoU with a real object, 0..1."""
    stability: float
    """IoU between the mask cut at a higher and at a lower threshold, 0..1."""


@dataclass(frozen=True, slots=True)
class ModelIdentity:
    """Which model, and exactly which weights: what a gallery remembers and compares."""

    name: str
    """For people, such as "sam2.1_hiera_large"."""
    weight_hash: str
    """SHA-256 over the SHA-256 of every file the model is loaded from, and over the settings that what it
    gives depends on (`engines.fully_identified`), hex."""


@dataclass(frozen=True, slots=True)
class EngineConfig:
    """One engine of a model set, its files found on disk: all that an engine needs to load."""

    engine: str
    """The engine's name in the registry, such as "sam2"."""
    options: Mapping[str, object]
    """The engine's own settings as the TOML has them; the engine checks them."""
    files: Mapping[str, Path]
    """Role (such as "checkpoint") to local file."""
    identity: ModelIdentity


@dataclass(frozen=True, slots=True)
class Candidate:
    """A photo that stage 1 found."""

    photo_id: int
    region_id: int
    """Its best region."""
    score: float
    """Cosine of that region and the query, -1..1 (eq. 1)."""


def check_range(name: str, value: float | None, least: float, most: float = math.inf) -> None:
    """Make sure that the argument `name` lies between bounds, both included; None is no number to check.

    Raises:
        OutOfRange: it does not, or is not a number.
    """
    if value is not None and not least <= value <= most:
        raise OutOfRange(name, value, least, most)


@dataclass(frozen=True, slots=True)
class Verdict:
    """A judge's answer to "does this image contain the described object?" (eq. 2)."""

    z_true: float
    """Logit of "True" at the answer position."""
    z_false: float
    """Logit of "False" at the answer position."""

    @property
    def margin(self) -> float:
        """zTrue - zFalse, float64: what candidates are ranked by, since S' saturates."""
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
    """A judge's answer to "where is the described object?"."""

    boxes: tuple[Box, ...]
    """Pixels of the image asked about, clipped to it, in the order of the answer."""
    answer: str
    """The answer as it came, for the record."""
    readable: bool
    """The answer had the form asked for; a readable answer may still hold no box."""


@dataclass(frozen=True, slots=True)
class FileRecord:
    """A file as it was when it was last read."""

    path: Path
    """Absolute."""
    bytes: int
    mtime_ns: int


@dataclass(frozen=True, slots=True)
class PhotoRecord:
    """What is stored of a photo beside its regions; one photo may lie in several files."""

    sha256: bytes
    """Of the file, 32 bytes."""
    width: int
    """Photo pixels, orientation applied."""
    height: int
    mask_width: int
    """Working pixels."""
    mask_height: int
    orientation: int
    """EXIF orientation of the file, 1 to 8."""
    taken_at: str | None = None
    """ISO 8601, the camera's local time."""
    camera: str | None = None
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
