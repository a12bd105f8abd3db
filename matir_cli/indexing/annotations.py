"""Annotations of a data set in COCO's form, as regions of photos.

Format: https://cocodataset.org/#format-data. The file may be a stranger's and large: what is wrong with
single annotations is counted, and an annotation is converted only when its photo is at hand. File names are
compared with those of photos that were found, and never opened.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from matir_cli import masks
from matir_cli.errors import PhotoUnreadable, RegionFileInvalid
from matir_cli.gallery.rows import LONGEST_LABEL
from matir_cli.photos.discover import stat_file
from matir_cli.records import Box, OriginKind, PhotoRecord, Region, RegionOrigin, Rle

MAX_BYTES = 2 << 30
"""Size limit of a file of annotations."""

MOST_REGIONS = 1000
"""Regions that one photo gets at most; each costs as much as one of the proposer's."""

NOT_A_RECORD = "not an annotation in COCO's form"
NO_IMAGE = "of an image that the file does not list"
WRONG_SIZE = "of an image whose size is not that of its photo"
MALFORMED = "with a malformed mask or box"
OUTSIDE = "empty, or outside of the picture"
TOO_SMALL = "too small to be seen at working size"
TOO_MANY = f"beyond the first {MOST_REGIONS:,} of a photo"
NO_OBJECT = "with a box in which the proposer finds no object"
"""Reasons why annotations are left out, as they are reported."""


class _File(msgspec.Struct):
    images: list[msgspec.Raw]
    annotations: list[msgspec.Raw]
    categories: list[msgspec.Raw] = []


class _Image(msgspec.Struct):
    id: int | str
    file_name: str
    width: int | None = None
    height: int | None = None


class _Category(msgspec.Struct):
    id: int | str
    name: str


class _Annotation(msgspec.Struct):
    image_id: int | str
    category_id: int | str | None = None
    segmentation: msgspec.Raw = msgspec.Raw(b"null")
    bbox: msgspec.Raw = msgspec.Raw(b"null")


_Record = TypeVar("_Record", _Image, _Category, _Annotation)


@dataclass(slots=True)
class AnnotatedImage:
    """An image of the file with its annotations, not checked yet."""

    width: int | None
    """Pixels of the annotations; None: those of the photo."""
    height: int | None
    annotations: list[_Annotation] = field(default_factory=list)
    used: bool = False
    """True once a photo of its name was found."""


@dataclass(frozen=True, slots=True)
class BoxPrompt:
    """An annotation that is a box, of which the proposer makes a mask."""

    box: Box
    """Working pixels, clipped to the photo."""
    origin: RegionOrigin


@dataclass(frozen=True, slots=True)
class PhotoAnnotations:
    """The annotations of one photo, in its working pixels."""

    regions: list[Region]
    boxes: list[BoxPrompt]


class AnnotationFile:
    """The annotations of a data set by image, and the count of those that are left out."""

    def __init__(
        self,
        by_name: dict[str, list[AnnotatedImage]],
        categories: dict[int | str, str],
        left_out: Counter[str],
    ) -> None:
        self._by_name = by_name
        self._categories = categories
        self.left_out = left_out
        """Reason to the number of annotations that are left out for it, so far."""

    @classmethod
    def read(cls, path: Path) -> AnnotationFile:
        """Read the file; masks are decoded later.

        Raises:
            RegionFileInvalid: the file cannot be read, is too large, or has not the form of COCO's.
        """
        file = _decode(path, read_limited(path, MAX_BYTES))
        left_out = Counter[str]()
        images: dict[int | str, AnnotatedImage] = {}
        by_name: dict[str, list[AnnotatedImage]] = {}
        for image in _records(file.images, _Image, Counter()):
            if image.id not in images:
                images[image.id] = AnnotatedImage(image.width, image.height)
                by_name.setdefault(_plain_name(image.file_name), []).append(images[image.id])
        for annotation in _records(file.annotations, _Annotation, left_out):
            if (annotated := images.get(annotation.image_id)) is None:
                left_out[NO_IMAGE] += 1
            else:
                annotated.annotations.append(annotation)
        categories = {
            each.id: name
            for each in _records(file.categories, _Category, Counter())
            if (name := each.name.strip()[:LONGEST_LABEL])
        }
        return cls(by_name, categories, left_out)

    def images_named(self, names: Sequence[str]) -> list[AnnotatedImage]:
        """Return the images that have one of these names, with / between folders; they count as used."""
        found = [image for name in names for image in self._by_name.get(name, ())]
        for image in found:
            image.used = True
        return found

    def count_unused(self) -> int:
        """Return the number of images of which no photo was found so far."""
        return sum(not image.used for images in self._by_name.values() for image in images)

    def convert(self, images: Sequence[AnnotatedImage], record: PhotoRecord) -> PhotoAnnotations:
        """Convert the annotations of a photo's images, without repetitions; count what is left out."""
        found: dict[Region, None] = {}
        boxes: dict[BoxPrompt, None] = {}
        for image in images:
            frame = _Frame.of(image, record)
            if frame is None:
                self.left_out[WRONG_SIZE] += len(image.annotations)
                continue
            for number, annotation in enumerate(image.annotations):
                if len(found) + len(boxes) >= MOST_REGIONS:
                    self.left_out[TOO_MANY] += len(image.annotations) - number
                    break
                origin = RegionOrigin(OriginKind.DATA_SET, self._label(annotation))
                try:
                    converted = _convert(annotation, frame, origin)
                except _LeftOut as error:
                    self.left_out[error.reason] += 1
                    continue
                if isinstance(converted, Region):
                    found[converted] = None
                else:
                    boxes[converted] = None
        return PhotoAnnotations([*found], [*boxes])

    def _label(self, annotation: _Annotation) -> str | None:
        return None if annotation.category_id is None else self._categories.get(annotation.category_id)


class _LeftOut(Exception):
    """An annotation is left out; `reason` is one of those above."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class _Frame:
    """The pixels that annotations refer to, and their way to the photo's working pixels."""

    width: int
    height: int
    orientation: int
    """EXIF orientation of the photo if the annotations refer to its pixels as stored, otherwise 1."""
    record: PhotoRecord

    @classmethod
    def of(cls, image: AnnotatedImage, record: PhotoRecord) -> _Frame | None:
        """Return the frame of an image's annotations; None if its size does not fit the photo.

        COCO's tools ignore the EXIF orientation, so where stored and upright photo have the same size, the
        annotations are taken to be of the stored pixels. They may be scaled alike in both directions.
        """
        width, height = image.width or record.width, image.height or record.height
        if not (0 < width <= masks.MAX_SIDE and 0 < height <= masks.MAX_SIDE):
            return None
        upright = record.width, record.height
        stored = upright[::-1] if record.orientation >= 5 else upright
        if image.width and is_scaled((width, height), stored):
            return cls(width, height, record.orientation, record)
        return cls(width, height, 1, record) if is_scaled((width, height), upright) else None

    def mask_to_working(self, mask: Rle) -> Rle:
        """Turn a mask upright and scale it to working pixels."""
        upright = masks.turn_upright(masks.decode(mask), self.orientation)
        return masks.encode(masks.resize(upright, self.record.mask_height, self.record.mask_width))

    def box_to_working(self, box: Box) -> Box:
        """Turn a box upright and scale it to working pixels."""
        turned = masks.turn_box_upright(box, self.orientation, self.width, self.height)
        width, height = (self.height, self.width) if self.orientation >= 5 else (self.width, self.height)
        return turned.scaled(self.record.mask_width / width, self.record.mask_height / height)


def is_scaled(size: tuple[int, int], other: tuple[int, int]) -> bool:
    """Return True if both sizes (width, height) have one aspect ratio, as far as whole pixels permit."""
    return abs(size[0] * other[1] - size[1] * other[0]) < max(other)


def _convert(annotation: _Annotation, frame: _Frame, origin: RegionOrigin) -> Region | BoxPrompt:
    """Convert an annotation to working pixels: its mask, or else its box.

    Raises:
        _LeftOut: it has neither, or one that cannot be used.
    """
    segmentation = _decode_field(annotation.segmentation, masks.RunLengths | list[list[float]] | None)
    if segmentation:
        try:
            rle = masks.segmentation_to_rle(segmentation, frame.height, frame.width)
        except ValueError as error:
            raise _LeftOut(MALFORMED) from error
        if not masks.area(rle):
            raise _LeftOut(OUTSIDE)
        region = given_region(frame.mask_to_working(rle), origin)
        if region is None:
            raise _LeftOut(TOO_SMALL)
        return region
    corners = _decode_field(annotation.bbox, tuple[float, float, float, float] | None)
    if corners is None or not all(map(math.isfinite, corners)):
        raise _LeftOut(MALFORMED)
    x, y, width, height = corners
    box = Box(max(x, 0.0), max(y, 0.0), min(x + width, frame.width), min(y + height, frame.height))
    if not box.area:
        raise _LeftOut(OUTSIDE)
    return BoxPrompt(frame.box_to_working(box), origin)


def given_region(rle: Rle, origin: RegionOrigin) -> Region | None:
    """Return the region of a mask in working pixels that was given, not proposed; None if it is empty."""
    area = masks.area(rle)
    return Region(rle, masks.box(rle), area, 1.0, 1.0, origin) if area else None


def read_limited(path: Path, limit: int) -> bytes:
    """Read a whole file of regions.

    Raises:
        RegionFileInvalid: it cannot be read, is no regular file, or has more than `limit` bytes.
    """
    try:
        size = stat_file(path).bytes
        if size > limit:
            raise RegionFileInvalid(path, f"it has {size:,} bytes, more than {limit:,}")
        return path.read_bytes()
    except PhotoUnreadable as error:
        raise RegionFileInvalid(path, error.reason) from error
    except OSError as error:
        raise RegionFileInvalid(path, (error.strerror or str(error)).lower()) from error


def _decode(path: Path, content: bytes) -> _File:
    try:
        return msgspec.json.decode(content, type=_File)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise RegionFileInvalid(path, f"it is not COCO's instances JSON: {error}") from error


def _records(raw: Sequence[msgspec.Raw], kind: type[_Record], left_out: Counter[str]) -> Iterator[_Record]:
    """Decode the records that can be decoded, and count the others."""
    decoder = msgspec.json.Decoder(kind)
    for each in raw:
        try:
            yield decoder.decode(each)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            left_out[NOT_A_RECORD] += 1


def _decode_field(raw: msgspec.Raw, kind: Any) -> Any:
    """Decode a field of an annotation; _LeftOut if it has not the type `kind`."""
    try:
        return msgspec.json.decode(raw, type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise _LeftOut(MALFORMED) from error


def _plain_name(name: str) -> str:
    """Return a file name with / between its folders, and no ./ before it."""
    plain = name.replace("\\", "/")
    while plain.startswith("./"):
        plain = plain[2:].lstrip("/")
    return plain
