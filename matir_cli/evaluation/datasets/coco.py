"""Reader of COCO's instances JSON: categories are the queries.

Format: https://cocodataset.org/#format-data. Masks come as polygons, as a list of run lengths
(crowds), or as run lengths compressed into a string. pycocotools converts all of them to compressed
run lengths; it trusts its input, so everything is checked and bounded before.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import msgspec

from matir_cli.errors import AnnotationsInvalid
from matir_cli.evaluation.datasets.dataset import (
    Dataset,
    EvalImage,
    EvalQuery,
    check_image_files,
    content_digest,
    locate_image,
    read_annotation_file,
)
from matir_cli.masks import RunLengths, segmentation_to_rle
from matir_cli.records import Rle

MAX_BYTES = 2 << 30
"""Size limit of a JSON file; COCO's largest, train2017, has 448 MB."""

VAL2017 = "instances_val2017"
"""Stem of the annotation file that the paper uses."""

VAL2017_SIZE = 5000, 80
"""Number of images and of categories in the published val2017."""


class _File(msgspec.Struct):
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


class _Annotation(msgspec.Struct):
    id: int
    image_id: int
    category_id: int
    segmentation: RunLengths | list[list[float]]
    iscrowd: int | bool = 0


class _Identified(msgspec.Struct):
    """The id of a record whose other fields are invalid."""

    id: int


_Record = TypeVar("_Record", _Image, _Category, _Annotation)


@dataclass(frozen=True, slots=True)
class Instance:
    """One annotated object, or a crowd."""

    image_id: int
    category_id: int
    rle: Rle
    """At the image's size."""


@dataclass(frozen=True, slots=True)
class InstancesFile:
    """The checked content of an instances JSON."""

    images: tuple[EvalImage, ...]
    categories: dict[int, str]
    """Category id to name."""
    annotations: dict[int, Instance]
    """By annotation id; crowds only if they are to count."""
    content: bytes
    """Bytes of the file."""


def read_coco(images: Path, annotations: Path, *, crowd: bool = False) -> Dataset:
    """Read any COCO instances JSON, such as a user's own, as a data set.

    Args:
        images: the folder that the file names are relative to.
        crowd: count annotations of crowds as instances; otherwise they are ignored.

    Raises:
        AnnotationsInvalid: the file, one of its records (named by its id), or an image file is invalid.
    """
    file = read_instances(images, annotations, crowd=crowd)
    truth: dict[int, dict[int, list[Rle]]] = {category: {} for category in file.categories}
    for instance in file.annotations.values():
        truth[instance.category_id].setdefault(instance.image_id, []).append(instance.rle)
    is_val2017 = annotations.stem == VAL2017
    return Dataset(
        coco_name(annotations),
        file.images,
        tuple(EvalQuery(category, text) for category, text in file.categories.items()),
        {query: {i: tuple(rles) for i, rles in in_images.items()} for query, in_images in truth.items()},
        content_digest(file.content),
        _notes(len(file.images), len(file.categories)) if is_val2017 else (),
    )


def coco_name(annotations: Path) -> str:
    """Name of the data set in an annotation file: "coco" for val2017, else the file's stem."""
    return "coco" if annotations.stem == VAL2017 else annotations.stem


def _notes(images: int, categories: int) -> tuple[str, ...]:
    """Remarks where the file differs from the published val2017."""
    if (images, categories) == VAL2017_SIZE:
        return ()
    published = "the published val2017 has {:,} images and {} categories".format(*VAL2017_SIZE)
    return (f"{published}, this one {images:,} and {categories}",)


def read_instances(images: Path, annotations: Path, *, crowd: bool = False) -> InstancesFile:
    """Read and check all records of the file; arguments and errors as for `read_coco`."""
    content = read_annotation_file(annotations, MAX_BYTES)
    try:
        file = msgspec.json.decode(content, type=_File)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise AnnotationsInvalid(annotations, f"not COCO's instances JSON: {error}") from error
    try:
        image_by_id = {
            each.id: locate_image(images, each.id, each.file_name, each.width, each.height)
            for each in _records("image", file.images, _Image)
        }
        categories = {each.id: _name(each) for each in _records("category", file.categories, _Category)}
        instances = {
            record.id: _instance(record, image_by_id, categories)
            for record in _records("annotation", file.annotations, _Annotation)
            if crowd or not record.iscrowd
        }
    except ValueError as error:
        raise AnnotationsInvalid(annotations, str(error)) from error
    all_images = tuple(image_by_id.values())
    check_image_files(all_images, annotations)
    return InstancesFile(all_images, categories, instances, content)


def _records(kind: str, raw: Sequence[msgspec.Raw], record_type: type[_Record]) -> Iterator[_Record]:
    """Decode the records; ValueError names the first that is invalid or has the id of another one."""
    decoder = msgspec.json.Decoder(record_type)
    seen: set[int] = set()
    for number, each in enumerate(raw, start=1):
        try:
            record = decoder.decode(each)
        except msgspec.ValidationError as error:
            raise ValueError(f"{_label(kind, number, each)}: {error}") from error
        if record.id in seen:
            raise ValueError(f"{kind} {record.id} occurs twice")
        seen.add(record.id)
        yield record


def _label(kind: str, number: int, raw: msgspec.Raw) -> str:
    """Name an invalid record: by its id if it has one, else by its position, from 1."""
    try:
        return f"{kind} {msgspec.json.decode(raw, type=_Identified).id}"
    except msgspec.ValidationError:
        return f"{kind} number {number}"


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
        rle = segmentation_to_rle(record.segmentation, image.height, image.width)
    except ValueError as error:
        raise ValueError(f"annotation {record.id}: {error}") from error
    return Instance(record.image_id, record.category_id, rle)
