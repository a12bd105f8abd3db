"""COCO's instances JSON: categories are the queries, annotations the instances.

Format: https://cocodataset.org/#format-data. Masks come as polygons, as run lengths in a
list (crowds), or compressed into a string. pycocotools turns all of them into the one kind
that is kept, and trusts what it is given: everything is bounded before it gets there.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import msgspec
import numpy as np
from pycocotools import mask as pycoco

from matir_cli import masks
from matir_cli.errors import AnnotationsInvalid
from matir_cli.evaluation.datasets.dataset import (
    Dataset,
    EvalImage,
    EvalQuery,
    check_files,
    content_digest,
    image_path,
    read_bytes,
)
from matir_cli.records import Rle

MAX_BYTES = 2 << 30
"""Of a JSON file; COCO's largest, train2017, has 448 MB."""

VAL2017 = "instances_val2017"
"""Stem of the paper's file."""

VAL2017_SIZE = 5000, 80
"""Its images and categories."""

_MAX_OUTLINE = 4_000_000
"""Pixels along a polygon; pycocotools takes 40 bytes for each."""


class _Lists(msgspec.Struct):
    images: list[msgspec.Raw]
    annotations: list[msgspec.Raw]
    categories: list[msgspec.Raw]


class _Image(msgspec.Struct):
    id: int
    file_name: str
    width: int
    height: int


class _Category(msgspec.Struct):
    id: int
    name: str


class RunLengths(msgspec.Struct):
    """A mask as run lengths, before anything of it was checked."""

    size: tuple[int, int]
    """Rows, columns."""
    counts: str | list[int]


class _Annotation(msgspec.Struct):
    id: int
    image_id: int
    category_id: int
    segmentation: RunLengths | list[list[float]]
    iscrowd: int | bool = 0


class _Named(msgspec.Struct):
    """The id alone, of a record that does not read."""

    id: int


_Record = TypeVar("_Record", _Image, _Category, _Annotation)


@dataclass(frozen=True, slots=True)
class Instance:
    """One annotated object, or a crowd of them."""

    image_id: int
    category_id: int
    rle: Rle
    """At the image's size."""


@dataclass(frozen=True, slots=True)
class Instances:
    """What an instances JSON holds."""

    images: tuple[EvalImage, ...]
    categories: dict[int, str]
    """Category id to name."""
    annotations: dict[int, Instance]
    """By annotation id; crowds only where asked for."""
    content: bytes
    """Of the file."""


def read_coco(images: Path, annotations: Path, *, crowd: bool = False) -> Dataset:
    """The data set of any COCO instances JSON, such as a user's own.

    Args:
        images: the folder that the file names are relative to.
        crowd: count annotations of crowds as instances; without it they are passed over.

    Raises:
        AnnotationsInvalid: the file, a record of it (named by its id), or an image file.
    """
    read = read_instances(images, annotations, crowd=crowd)
    truth: dict[int, dict[int, list[Rle]]] = {category: {} for category in read.categories}
    for instance in read.annotations.values():
        truth[instance.category_id].setdefault(instance.image_id, []).append(instance.rle)
    published = annotations.stem == VAL2017
    return Dataset(
        "coco" if published else annotations.stem,
        read.images,
        tuple(EvalQuery(number, text) for number, text in read.categories.items()),
        {query: {i: tuple(rles) for i, rles in found.items()} for query, found in truth.items()},
        content_digest(read.content),
        _notes(len(read.images), len(read.categories)) if published else (),
    )


def _notes(images: int, categories: int) -> tuple[str, ...]:
    if (images, categories) == VAL2017_SIZE:
        return ()
    published = "the published val2017 has {:,} images and {} categories".format(*VAL2017_SIZE)
    return (f"{published}, this one {images:,} and {categories}",)


def read_instances(images: Path, annotations: Path, *, crowd: bool = False) -> Instances:
    """All records of the file, checked, and their masks made; arguments and errors as of `read_coco`."""
    content = read_bytes(annotations, MAX_BYTES)
    try:
        lists = msgspec.json.decode(content, type=_Lists)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise AnnotationsInvalid(annotations, f"not COCO's instances JSON: {error}") from error
    try:
        shown = {record.id: _image(record, images) for record in _records("image", lists.images, _Image)}
        categories = {each.id: _name(each) for each in _records("category", lists.categories, _Category)}
        kept = {
            record.id: _instance(record, shown, categories)
            for record in _records("annotation", lists.annotations, _Annotation)
            if crowd or not record.iscrowd
        }
    except ValueError as error:
        raise AnnotationsInvalid(annotations, str(error)) from error
    check_files(tuple(shown.values()), annotations)
    return Instances(tuple(shown.values()), categories, kept, content)


def _records(kind: str, raw: Sequence[msgspec.Raw], form: type[_Record]) -> Iterator[_Record]:
    """Each record in its form; ValueError names the one that is not, or whose id another one has."""
    decoder = msgspec.json.Decoder(form)
    seen: set[int] = set()
    for place, each in enumerate(raw, start=1):
        try:
            record = decoder.decode(each)
        except msgspec.ValidationError as error:
            raise ValueError(f"{_label(kind, place, each)}: {error}") from error
        if record.id in seen:
            raise ValueError(f"{kind} {record.id} is there twice")
        seen.add(record.id)
        yield record


def _label(kind: str, place: int, raw: msgspec.Raw) -> str:
    """Names a record that does not read: by its id if it has one, else by its place."""
    try:
        return f"{kind} {msgspec.json.decode(raw, type=_Named).id}"
    except msgspec.ValidationError:
        return f"{kind} number {place}"


def _image(record: _Image, images: Path) -> EvalImage:
    if record.width < 1 or record.height < 1:
        raise ValueError(f"image {record.id}: a size of {record.width} x {record.height} pixels")
    path = image_path(images, record.id, record.file_name)
    return EvalImage(record.id, record.file_name, path, record.width, record.height)


def _name(record: _Category) -> str:
    if not record.name.strip():
        raise ValueError(f"category {record.id}: its name is empty")
    return record.name


def _instance(
    record: _Annotation, images: Mapping[int, EvalImage], categories: Mapping[int, str]
) -> Instance:
    if (image := images.get(record.image_id)) is None:
        raise ValueError(f"annotation {record.id}: there is no image {record.image_id}")
    if record.category_id not in categories:
        raise ValueError(f"annotation {record.id}: there is no category {record.category_id}")
    try:
        rle = mask_of(record.segmentation, image.height, image.width)
    except ValueError as error:
        raise ValueError(f"annotation {record.id}: {error}") from error
    return Instance(record.image_id, record.category_id, rle)


def mask_of(segmentation: RunLengths | Sequence[Sequence[float]], height: int, width: int) -> Rle:
    """The mask that COCO's `segmentation` means, for an image of height x width; safe to decode.

    Raises:
        ValueError: it is of another size, empty, malformed, or larger than masks may be.
    """
    if max(height, width) > masks.MAX_SIDE:
        raise ValueError(f"a mask of {width} x {height} pixels, more than {masks.MAX_SIDE} a side")
    if not isinstance(segmentation, RunLengths):
        made = _polygons(segmentation, height, width)
    elif segmentation.size != (height, width):
        rows, columns = segmentation.size
        raise ValueError(f"a mask of {columns} x {rows} pixels for an image of {width} x {height}")
    elif isinstance(segmentation.counts, list):
        made = _listed(segmentation.counts, height, width)
    else:
        made = Rle(height, width, segmentation.counts.encode())
    masks.check(made)
    return made


def _listed(counts: list[int], height: int, width: int) -> Rle:
    """Run lengths of a list, compressed."""
    if min(counts, default=0) < 0 or sum(counts) != height * width:
        raise ValueError("runs do not fill the mask")
    made = pycoco.frPyObjects({"size": [height, width], "counts": counts}, height, width)
    return Rle(height, width, made["counts"])


def _polygons(polygons: Sequence[Sequence[float]], height: int, width: int) -> Rle:
    """The union of polygons, each x0, y0, x1, y1, ...; they may reach a little out of the image."""
    if not polygons:
        raise ValueError("it has no mask")  # pycocotools would look at the first
    side = max(height, width)
    for polygon in polygons:
        # pycocotools takes four numbers for a box, and reads on behind an odd one's end.
        if len(polygon) < 6 or len(polygon) % 2:
            raise ValueError(f"a polygon of {len(polygon)} numbers")
        points = np.array(polygon).reshape(-1, 2)
        if not ((-side <= points) & (points <= 2 * side)).all():
            raise ValueError("a polygon far outside of its image")
        if np.abs(np.diff(points, axis=0, append=points[:1])).max(axis=1).sum() > _MAX_OUTLINE:
            raise ValueError("a polygon of endless outline")
    parts = pycoco.frPyObjects(polygons, height, width)
    return union([Rle(height, width, part["counts"]) for part in parts])


def union(parts: Sequence[Rle]) -> Rle:
    """One mask of several of the same size; ValueError if there is none."""
    if not parts:
        raise ValueError("it has no mask")
    if len(parts) == 1:
        return parts[0]
    merged = pycoco.merge([masks.to_coco(part) for part in parts])
    return Rle(parts[0].height, parts[0].width, merged["counts"])
