"""Other segmenters on our list: the ranking goes out as JSON lines, masks come back as COCO results.

A result is `{"image_id", "category_id", "segmentation", "score"}`, the category being the
query's id (https://cocodataset.org/#format-results). Of several masks for one image and
query the one with the highest score counts, since a method predicts one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from matir_cli.atomic_write import atomic_write
from matir_cli.errors import AnnotationsInvalid
from matir_cli.evaluation import metrics
from matir_cli.evaluation.datasets.coco import MAX_BYTES, RunLengths, mask_of
from matir_cli.evaluation.datasets.dataset import Dataset, read_bytes
from matir_cli.evaluation.methods import EvaluationSetup, PredictedMasks
from matir_cli.records import Rle


@dataclass(frozen=True, slots=True)
class ImportedMasks:
    """A segmenter's masks."""

    name: str
    masks: Mapping[int, PredictedMasks]
    """By query id and image id, at the image's size."""


class _Listed(msgspec.Struct):
    """A line of the exported ranking."""

    query_id: int
    query: str
    rank: int
    """1 is the best."""
    image_id: int
    image: str
    """File name as in the annotations."""


class _Segmentation(msgspec.Struct):
    size: tuple[int, int]
    counts: str


class _Result(msgspec.Struct):
    image_id: int
    category_id: int
    segmentation: RunLengths | list[list[float]]
    score: float = 0.0


class _Written(msgspec.Struct):
    image_id: int
    category_id: int
    segmentation: _Segmentation
    score: float


def export_ranking(
    path: Path, bench: EvaluationSetup, rankings: Mapping[int, Sequence[int]], *, force: bool
) -> None:
    """Write, for each query, its ranked images.

    Raises:
        OutputExists, OutputError: it is there already, and not `force`; it cannot be written.
    """
    names = {image.id: image.name for image in bench.dataset.images}
    with atomic_write(path, force=force) as temporary, temporary.open("wb") as stream:
        for query in bench.queries:
            for rank, image in enumerate(rankings[query.id], start=1):
                line = _Listed(query.id, query.text, rank, image, names[image])
                stream.write(msgspec.json.encode(line) + b"\n")


def export_masks(
    path: Path,
    bench: EvaluationSetup,
    rankings: Mapping[int, Sequence[int]],
    predicted: Mapping[int, PredictedMasks],
    *,
    force: bool,
) -> None:
    """Write our own masks of the ranked images as COCO results, at the images' size; errors as above.

    The score falls with the rank.
    """
    sizes = {image.id: (image.height, image.width) for image in bench.dataset.images}
    with atomic_write(path, force=force) as temporary, temporary.open("wb") as stream:
        separator = b"["
        for query in bench.queries:
            for rank, image in enumerate(rankings[query.id], start=1):
                rle = predicted[query.id].get(image)
                if rle is None:
                    continue
                if (rle.height, rle.width) != sizes[image]:
                    rle = metrics.scaled(rle, *sizes[image])
                shape = _Segmentation((rle.height, rle.width), rle.counts.decode("ascii"))
                result = _Written(image, query.id, shape, 1.0 / rank)
                stream.write(separator + msgspec.json.encode(result))
                separator = b",\n"
        stream.write(b"[]" if separator == b"[" else b"]")


def import_masks(name: str, path: Path, dataset: Dataset) -> ImportedMasks:
    """Read a segmenter's masks.

    Args:
        dataset: in full; what is no image or query of it is an error.

    Raises:
        AnnotationsInvalid: the file, or a result in it, which is named by its place.
    """
    images = {image.id: image for image in dataset.images}
    queries = {query.id for query in dataset.queries}
    best: dict[tuple[int, int], float] = {}
    found: dict[int, dict[int, Rle | None]] = {}
    for place, raw in enumerate(_results(path), start=1):
        try:
            result = msgspec.json.decode(raw, type=_Result)
            if result.image_id not in images:
                raise ValueError(f"there is no image {result.image_id}")
            if result.category_id not in queries:
                raise ValueError(f"there is no query {result.category_id}")
            image = images[result.image_id]
            pair = result.category_id, result.image_id
            if result.score <= best.get(pair, float("-inf")):
                continue
            rle = mask_of(result.segmentation, image.height, image.width)
        except ValueError as error:  # msgspec's errors are some, too
            raise AnnotationsInvalid(path, f"result number {place}: {error}") from error
        best[pair] = result.score
        found.setdefault(pair[0], {})[pair[1]] = rle
    return ImportedMasks(name, found)


def _results(path: Path) -> list[msgspec.Raw]:
    try:
        return msgspec.json.decode(read_bytes(path, MAX_BYTES), type=list[msgspec.Raw])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise AnnotationsInvalid(path, f"not COCO's list of results: {error}") from error
