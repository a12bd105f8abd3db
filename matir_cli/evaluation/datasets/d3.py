"""D3 (d-cube; Xie et al., NeurIPS 2023): descriptions, each annotated on every image of every group.

The ground truth comes from the pickles, not from the JSON files beside them, which may hold
an image's own group of descriptions alone. Structure as in the d-cube toolkit (d_cube/d3.py,
doc.md): one dictionary a table by id; an annotation's segmentation, area, bbox and iscrowd
are lists, nearly always of one element, and a description has the ids of the annotations
that fulfil it, in whichever group they lie.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Literal, TypeVar

import msgspec

from matir_cli.errors import AnnotationsInvalid
from matir_cli.evaluation.datasets.coco import RunLengths, mask_of, union
from matir_cli.evaluation.datasets.dataset import (
    Dataset,
    EvalImage,
    EvalQuery,
    check_files,
    content_digest,
    image_path,
    read_bytes,
)
from matir_cli.evaluation.datasets.pickles import load_pickle
from matir_cli.records import Rle

Subset = Literal["full", "pres", "abs"]
"""All descriptions, those of something present, those of something absent."""

MAX_BYTES = 512 << 20
"""Of a pickle; the published ones have some ten million bytes."""

PAIRS = 24_282
"""Annotation-description pairs of the published set, according to its paper."""

SENTENCES = {"full": 422, "pres": 316, "abs": 106}
"""Descriptions of each published subset."""

IMAGES = 10_578


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
    """Bytes as pycocotools makes them, or the same as text."""


class _Annotation(msgspec.Struct):
    id: int
    image_id: int
    segmentation: list[_Mask] | _Mask


_Record = TypeVar("_Record", _Image, _Sentence, _Annotation)


def read_d3(images: Path, annotations: Path, *, subset: Subset = "full") -> Dataset:
    """The data set of D3's pickles, inter-group: a description is searched for in all images.

    Args:
        images: the folder of `d3_images.zip`; file names below it have a "/".
        annotations: the folder of `d3_pkl.zip`, or the one that holds it as "d3_pkl".

    Raises:
        AnnotationsInvalid: a pickle, a record of it (named by its id), or an image file.
    """
    folder = annotations / "d3_pkl" if (annotations / "d3_pkl").is_dir() else annotations
    paths = [folder / f"{table}.pkl" for table in ("images", "annotations", "sentences")]
    contents = [read_bytes(path, MAX_BYTES) for path in paths]
    with _named(paths[0]):
        shown = {each.id: _image(each, images) for each in _table(contents[0], _Image)}
    check_files(tuple(shown.values()), paths[0])
    with _named(paths[1]):
        found = {each.id: _instance(each, shown) for each in _table(contents[1], _Annotation)}
    with _named(paths[2]):
        sentences = list(_table(contents[2], _Sentence))
        truth = {each.id: _truth(each, found) for each in sentences}
    asked = tuple(_query(each) for each in sentences if subset in ("full", _kind(each)))
    pairs = sum(len(rles) for in_images in truth.values() for rles in in_images.values())
    return Dataset(
        "d3",
        tuple(shown.values()),
        asked,
        {query.id: truth[query.id] for query in asked},
        content_digest(*contents),
        tuple(_notes(subset, len(shown), len(asked), pairs)),
    )


@contextmanager
def _named(path: Path) -> Iterator[None]:
    """Says of which file a ValueError is."""
    try:
        yield
    except ValueError as error:
        raise AnnotationsInvalid(path, str(error)) from error


def _table(content: bytes, form: type[_Record]) -> Iterator[_Record]:
    """The records of one pickle in their form; ValueError names the one that is not."""
    kind = form.__name__.strip("_").lower()
    table = load_pickle(content)
    if not isinstance(table, dict):
        raise ValueError("not a dictionary by id")
    for number, fields in table.items():
        try:
            record = msgspec.convert(fields, form, builtin_types=(bytes,))
        except msgspec.ValidationError as error:
            raise ValueError(f"{kind} {number}: {error}") from error
        if record.id != number:
            raise ValueError(f"{kind} {number}: its id is {record.id}")
        yield record


def _image(record: _Image, images: Path) -> EvalImage:
    if record.width < 1 or record.height < 1:
        raise ValueError(f"image {record.id}: a size of {record.width} x {record.height} pixels")
    path = image_path(images, record.id, record.file_name)
    return EvalImage(record.id, record.file_name, path, record.width, record.height)


def _instance(record: _Annotation, images: Mapping[int, EvalImage]) -> tuple[int, Rle]:
    """The id of the image it lies in, and its mask."""
    if (image := images.get(record.image_id)) is None:
        raise ValueError(f"annotation {record.id}: there is no image {record.image_id}")
    parts = [record.segmentation] if isinstance(record.segmentation, _Mask) else record.segmentation
    try:
        made = [mask_of(_run_lengths(part), image.height, image.width) for part in parts]
        # The toolkit, too, takes the sum where an object comes in several parts.
        return image.id, union(made)
    except ValueError as error:
        raise ValueError(f"annotation {record.id}: {error}") from error


def _run_lengths(part: _Mask) -> RunLengths:
    counts = part.counts.decode("latin1") if isinstance(part.counts, bytes) else part.counts
    if not isinstance(counts, str):
        raise ValueError(f"counts of type {type(counts).__name__}")
    return RunLengths(part.size, counts)


def _truth(sentence: _Sentence, found: Mapping[int, tuple[int, Rle]]) -> dict[int, tuple[Rle, ...]]:
    """Image id to the masks there that fulfil the description."""
    if not sentence.raw_sent.strip():
        raise ValueError(f"sentence {sentence.id}: its text is empty")
    in_images: dict[int, list[Rle]] = {}
    for number in dict.fromkeys(sentence.anno_id):
        if number not in found:
            raise ValueError(f"sentence {sentence.id}: there is no annotation {number}")
        image, rle = found[number]
        in_images.setdefault(image, []).append(rle)
    return {image: tuple(rles) for image, rles in in_images.items()}


def _kind(sentence: _Sentence) -> str:
    return "abs" if sentence.is_negative else "pres"


def _query(sentence: _Sentence) -> EvalQuery:
    return EvalQuery(sentence.id, sentence.raw_sent, (_kind(sentence),))


def _notes(subset: Subset, images: int, sentences: int, pairs: int) -> Iterator[str]:
    """Where the files differ from the published set."""
    found = {"images": images, f"descriptions ({subset})": sentences, "annotation-description pairs": pairs}
    for (what, count), published in zip(found.items(), (IMAGES, SENTENCES[subset], PAIRS), strict=True):
        if count != published:
            yield f"the published D3 has {published:,} {what}, these files {count:,}"
