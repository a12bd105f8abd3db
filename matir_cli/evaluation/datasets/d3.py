"""Reader of D3 (d-cube): descriptions annotated on all images of all groups.

Source: Xie et al., NeurIPS 2023. The ground truth comes from the pickles, not from the JSON files
beside them, which may cover only the descriptions of an image's own group. Structure as in the
d-cube toolkit (d_cube/d3.py, doc.md): one dictionary per table, by id; an annotation's segmentation,
area, bbox and iscrowd are lists, nearly always of one element, and a description lists the ids of
the annotations that fulfil it, in any group.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Literal, TypeVar

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
from matir_cli.evaluation.datasets.pickles import load_pickle
from matir_cli.masks import RunLengths, merge_masks, segmentation_to_rle
from matir_cli.records import Rle

Subset = Literal["full", "pres", "abs"]
"""All descriptions, those of something present, or those of something absent."""

MAX_BYTES = 512 << 20
"""Size limit of a pickle; the published ones have some ten million bytes."""

PUBLISHED_PAIRS = 24_282
"""Annotation-description pairs of the published set, according to its paper."""

PUBLISHED_SENTENCES = {"full": 422, "pres": 316, "abs": 106}
"""Number of descriptions in each subset of the published set."""

PUBLISHED_IMAGES = 10_578
"""Number of images in the published set."""


class _Image(msgspec.Struct):
    id: int
    file_name: str
    height: int
    width: int


class _Sentence(msgspec.Struct):
    id: int
    anno_id: list[int]
    is_negative: bool | int
    raw_sent: str


class _Mask(msgspec.Struct):
    size: tuple[int, int]
    counts: object
    """Compressed run lengths: bytes as pycocotools makes them, or the same as text."""


class _Annotation(msgspec.Struct):
    id: int
    image_id: int
    segmentation: list[_Mask] | _Mask


_Record = TypeVar("_Record", _Image, _Sentence, _Annotation)


def read_d3(images: Path, annotations: Path, *, subset: Subset = "full") -> Dataset:
    """Read D3's pickles, inter-group: every description is searched for in all images.

    Args:
        images: the folder of `d3_images.zip`; file names are relative to it and contain "/".
        annotations: the folder of `d3_pkl.zip`, or its parent folder.

    Raises:
        AnnotationsInvalid: a pickle, one of its records (named by its id), or an image file is invalid.
    """
    folder = annotations / "d3_pkl" if (annotations / "d3_pkl").is_dir() else annotations
    paths = [folder / f"{table}.pkl" for table in ("images", "annotations", "sentences")]
    contents = [read_annotation_file(path, MAX_BYTES) for path in paths]
    with _name_file(paths[0]):
        image_by_id = {
            each.id: locate_image(images, each.id, each.file_name, each.width, each.height)
            for each in _records(contents[0], _Image)
        }
    check_image_files(tuple(image_by_id.values()), paths[0])
    with _name_file(paths[1]):
        instances = {each.id: _instance(each, image_by_id) for each in _records(contents[1], _Annotation)}
    with _name_file(paths[2]):
        sentences = list(_records(contents[2], _Sentence))
        truth = {each.id: _truth(each, instances) for each in sentences}
    queries = tuple(_query(each) for each in sentences if subset in ("full", _kind(each)))
    pairs = sum(len(rles) for in_images in truth.values() for rles in in_images.values())
    return Dataset(
        "d3",
        tuple(image_by_id.values()),
        queries,
        {query.id: truth[query.id] for query in queries},
        content_digest(*contents),
        tuple(_notes(subset, len(image_by_id), len(queries), pairs)),
    )


@contextmanager
def _name_file(path: Path) -> Iterator[None]:
    """Turn a ValueError into an AnnotationsInvalid that names the file."""
    try:
        yield
    except ValueError as error:
        raise AnnotationsInvalid(path, str(error)) from error


def _records(content: bytes, record_type: type[_Record]) -> Iterator[_Record]:
    """The records of one pickle; ValueError names the first that is invalid."""
    kind = record_type.__name__.strip("_").lower()
    table = load_pickle(content)
    if not isinstance(table, dict):
        raise ValueError("not a dictionary of records by id")
    for number, fields in table.items():
        try:
            record = msgspec.convert(fields, record_type, builtin_types=(bytes,))
        except msgspec.ValidationError as error:
            raise ValueError(f"{kind} {number}: {error}") from error
        if record.id != number:
            raise ValueError(f"{kind} {number}: its id is {record.id}")
        yield record


def _instance(record: _Annotation, images: Mapping[int, EvalImage]) -> tuple[int, Rle]:
    """The id of the annotation's image, and its mask at the image's size."""
    if (image := images.get(record.image_id)) is None:
        raise ValueError(f"annotation {record.id}: there is no image {record.image_id}")
    parts = [record.segmentation] if isinstance(record.segmentation, _Mask) else record.segmentation
    try:
        rles = [segmentation_to_rle(_run_lengths(part), image.height, image.width) for part in parts]
        # The toolkit, too, merges the parts of an object.
        return image.id, merge_masks(rles)
    except ValueError as error:
        raise ValueError(f"annotation {record.id}: {error}") from error


def _run_lengths(part: _Mask) -> RunLengths:
    counts = part.counts.decode("latin1") if isinstance(part.counts, bytes) else part.counts
    if not isinstance(counts, str):
        raise ValueError(f"counts of type {type(counts).__name__}")
    return RunLengths(part.size, counts)


def _truth(sentence: _Sentence, instances: Mapping[int, tuple[int, Rle]]) -> dict[int, tuple[Rle, ...]]:
    """Image id to the masks in that image that fulfil the description."""
    if not sentence.raw_sent.strip():
        raise ValueError(f"sentence {sentence.id}: its text is empty")
    in_images: dict[int, list[Rle]] = {}
    for number in dict.fromkeys(sentence.anno_id):
        if number not in instances:
            raise ValueError(f"sentence {sentence.id}: there is no annotation {number}")
        image, rle = instances[number]
        in_images.setdefault(image, []).append(rle)
    return {image: tuple(rles) for image, rles in in_images.items()}


def _kind(sentence: _Sentence) -> str:
    return "abs" if sentence.is_negative else "pres"


def _query(sentence: _Sentence) -> EvalQuery:
    return EvalQuery(sentence.id, sentence.raw_sent, (_kind(sentence),))


def _notes(subset: Subset, images: int, sentences: int, pairs: int) -> Iterator[str]:
    """Remarks where the files differ from the published set."""
    counts = (
        ("images", images, PUBLISHED_IMAGES),
        (f"descriptions ({subset})", sentences, PUBLISHED_SENTENCES[subset]),
        ("annotation-description pairs", pairs, PUBLISHED_PAIRS),
    )
    for unit, count, published in counts:
        if count != published:
            yield f"the published D3 has {published:,} {unit}, these files {count:,}"
