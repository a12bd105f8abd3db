"""Exchange with other segmenters: rankings out, masks in and out.

Rankings are written as JSON lines, masks as COCO results (https://cocodataset.org/#format-results):
`{"image_id", "category_id", "segmentation", "score"}`, where the category is the query's id. Of
several masks for one image and query, the one with the highest score counts, since a method predicts
one mask.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from matir_cli import masks
from matir_cli.atomic_write import atomic_write
from matir_cli.errors import AnnotationsInvalid
from matir_cli.evaluation.datasets.coco import MAX_BYTES
from matir_cli.evaluation.datasets.dataset import Dataset, read_annotation_file
from matir_cli.evaluation.methods import EvaluationSetup, PredictedMasks
from matir_cli.masks import RunLengths, segmentation_to_rle
from matir_cli.records import Rle


@dataclass(frozen=True, slots=True)
class ImportedMasks:
    """Masks of another segmenter."""

    name: str
    masks: Mapping[int, PredictedMasks]
    """Query id to the masks by image id, at the image's size."""


class _RankedImage(msgspec.Struct):
    """One line of the exported ranking."""

    query_id: int
    query: str
    rank: int
    """1 is the best."""
    image_id: int
    image: str
    """File name in the annotations."""


class _Segmentation(msgspec.Struct):
    size: tuple[int, int]
    counts: str


class _ImportedResult(msgspec.Struct):
    image_id: int
    category_id: int
    segmentation: RunLengths | list[list[float]]
    score: float = 0.0


class _ExportedResult(msgspec.Struct):
    image_id: int
    category_id: int
    segmentation: _Segmentation
    score: float


def export_ranking(
    path: Path, setup: EvaluationSetup, rankings: Mapping[int, Sequence[int]], *, force: bool
) -> None:
    """Write the ranked images of each query as JSON lines.

    Args:
        rankings: query id to image ids, best first.
        force: replace an existing file.

    Raises:
        OutputExists: the file exists and `force` is false.
        OutputError: the file cannot be written.
    """
    names = {image.id: image.name for image in setup.dataset.images}
    with atomic_write(path, force=force) as temporary, temporary.open("wb") as stream:
        for query in setup.queries:
            for rank, image in enumerate(rankings[query.id], start=1):
                line = _RankedImage(query.id, query.text, rank, image, names[image])
                stream.write(msgspec.json.encode(line) + b"\n")


def export_masks(
    path: Path,
    setup: EvaluationSetup,
    rankings: Mapping[int, Sequence[int]],
    predicted: Mapping[int, PredictedMasks],
    *,
    force: bool,
) -> None:
    """Write predicted masks in the ranked images as COCO results, at the images' size; score = 1 / rank.

    Args:
        rankings: query id to image ids, best first.
        predicted: query id to masks by image id.
        force: replace an existing file.

    Raises:
        OutputExists: the file exists and `force` is false.
        OutputError: the file cannot be written.
    """
    sizes = {image.id: (image.height, image.width) for image in setup.dataset.images}
    with atomic_write(path, force=force) as temporary, temporary.open("wb") as stream:
        separator = b"["
        for query in setup.queries:
            for rank, image in enumerate(rankings[query.id], start=1):
                rle = predicted[query.id].get(image)
                if rle is None:
                    continue
                rle = masks.scale(rle, *sizes[image])
                segmentation = _Segmentation((rle.height, rle.width), rle.counts.decode("ascii"))
                result = _ExportedResult(image, query.id, segmentation, 1.0 / rank)
                stream.write(separator + msgspec.json.encode(result))
                separator = b",\n"
        stream.write(b"[]" if separator == b"[" else b"]")


def import_masks(name: str, path: Path, dataset: Dataset) -> ImportedMasks:
    """Read another segmenter's masks.

    Args:
        name: of the segmenter, for the tables.
        dataset: the whole data set; results for other images or queries are an error.

    Raises:
        AnnotationsInvalid: the file, or a result in it (named by its position, from 1), is invalid.
    """
    images = {image.id: image for image in dataset.images}
    queries = {query.id for query in dataset.queries}
    best: dict[tuple[int, int], float] = {}
    masks: dict[int, dict[int, Rle | None]] = {}
    for number, raw in enumerate(_results(path), start=1):
        try:
            result = msgspec.json.decode(raw, type=_ImportedResult)
            if result.image_id not in images:
                raise ValueError(f"there is no image {result.image_id}")
            if result.category_id not in queries:
                raise ValueError(f"there is no query {result.category_id}")
            image = images[result.image_id]
            pair = result.category_id, result.image_id
            if result.score <= best.get(pair, float("-inf")):
                continue
            rle = segmentation_to_rle(result.segmentation, image.height, image.width)
        except ValueError as error:  # msgspec's errors are ValueErrors, too
            raise AnnotationsInvalid(path, f"result number {number}: {error}") from error
        best[pair] = result.score
        masks.setdefault(pair[0], {})[pair[1]] = rle
    return ImportedMasks(name, masks)


def _results(path: Path) -> list[msgspec.Raw]:
    try:
        return msgspec.json.decode(read_annotation_file(path, MAX_BYTES), type=list[msgspec.Raw])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise AnnotationsInvalid(path, f"not COCO's list of results: {error}") from error
