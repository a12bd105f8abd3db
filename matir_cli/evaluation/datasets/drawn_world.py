"""The drawn world of the tiny models as a data set: drawn pictures and queries.

The pictures are drawn from seeds, the queries about them are fixed. On disk the data set is a folder
with `instances.json` (COCO), `queries.json` and `images/`.
"""

import shutil
from collections.abc import Iterator
from pathlib import Path

import msgspec

from matir_cli.errors import AnnotationsInvalid, OutputError
from matir_cli.evaluation.datasets.coco import Instance, read_instances
from matir_cli.evaluation.datasets.dataset import Dataset, EvalQuery, content_digest, read_annotation_file
from matir_cli.models.tiny.benchmark import Benchmark, write_coco
from matir_cli.models.tiny.world import Picture, picture
from matir_cli.progress import ProgressObserver, no_progress
from matir_cli.records import Rle

MAX_BYTES = 64 << 20
"""Size limit of queries.json; the largest has five million bytes."""

_INSTANCES = "instances.json"

_QUERIES = "queries.json"

_IMAGES = "images"

_UNFINISHED = ".writing"


class _Query(msgspec.Struct):
    id: int
    text: str
    group: str
    held_out: bool
    annotations: dict[int, list[int]]
    """Image id to the ids of the annotations in that image that fulfil the query."""


class _QueriesFile(msgspec.Struct):
    queries: list[_Query]


class _ImageId(msgspec.Struct):
    id: int


class _ImageIds(msgspec.Struct):
    images: list[_ImageId]


def write_world(
    folder: Path,
    benchmark: Benchmark,
    split: str,
    limit: int | None = None,
    progress: ProgressObserver = no_progress,
) -> None:
    """Draw the benchmark of a split into `folder`, unless it is complete there already.

    Pictures that exist are kept unchanged, so that what was indexed of them stays valid, and an interrupted
    call is resumed by the next one. No file with its final name is ever incomplete.

    Args:
        split: one of `matir_cli.models.tiny.world.SPLITS`.
        limit: draw only the first so many pictures; None for all. The queries are always those of all.

    Raises:
        OutputError: the folder cannot be written.
    """
    seeds = benchmark.seeds(split)[:limit]
    if _is_written(folder, seeds):
        return
    unfinished = folder / _UNFINISHED
    try:
        shutil.rmtree(unfinished, ignore_errors=True)
        queries = benchmark.queries(split)
        write_coco(unfinished, _draw(seeds, progress), queries, folder / _IMAGES)
        # Written last, and never beside the instances of another split: its presence means "complete".
        (folder / _QUERIES).unlink(missing_ok=True)
        (unfinished / _INSTANCES).replace(folder / _INSTANCES)
        (unfinished / _QUERIES).replace(folder / _QUERIES)
        shutil.rmtree(unfinished)
    except OSError as error:
        raise OutputError(folder, (error.strerror or str(error)).lower()) from error


def _draw(seeds: range, progress: ProgressObserver) -> Iterator[Picture]:
    with progress("drawing", len(seeds), "picture") as advance:
        for seed in seeds:
            yield picture(seed)
            advance()


def _is_written(folder: Path, seeds: range) -> bool:
    """Return whether the folder holds the pictures of these seeds, and queries."""
    try:
        listed = msgspec.json.decode((folder / _INSTANCES).read_bytes(), type=_ImageIds).images
    except (OSError, msgspec.DecodeError):
        return False
    return (
        (folder / _QUERIES).is_file()
        and [image.id for image in listed] == list(seeds)
        and all((folder / _IMAGES / f"{seed}.png").is_file() for seed in seeds)
    )


def read_world(folder: Path, name: str = "world") -> Dataset:
    """Read the data set that `write_world` wrote; queries count in their group and, if so, in "held out".

    Args:
        name: name of the data set.

    Raises:
        AnnotationsInvalid: a file, one of its records (named by its id), or a picture is invalid.
    """
    instances = read_instances(folder / _IMAGES, folder / _INSTANCES)
    path = folder / _QUERIES
    content = read_annotation_file(path, MAX_BYTES)
    try:
        queries = msgspec.json.decode(content, type=_QueriesFile).queries
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise AnnotationsInvalid(path, f"not the queries of a drawn world: {error}") from error
    truth: dict[int, dict[int, tuple[Rle, ...]]] = {}
    for query in queries:
        if query.id in truth:
            raise AnnotationsInvalid(path, f"query {query.id} occurs twice")
        try:
            truth[query.id] = _truth(query, instances.annotations)
        except ValueError as error:
            raise AnnotationsInvalid(path, f"query {query.id}: {error}") from error
    return Dataset(
        name,
        instances.images,
        tuple(EvalQuery(query.id, query.text, _groups(query)) for query in queries),
        truth,
        content_digest(instances.content, content),
    )


def read_drawn_objects(folder: Path) -> dict[int, list[Rle]]:
    """Image id to all objects drawn in it, also those that no query describes; errors as for `read_world`."""
    objects: dict[int, list[Rle]] = {}
    for instance in read_instances(folder / _IMAGES, folder / _INSTANCES).annotations.values():
        objects.setdefault(instance.image_id, []).append(instance.rle)
    return objects


def _truth(query: _Query, instances: dict[int, Instance]) -> dict[int, tuple[Rle, ...]]:
    """Image id to the masks in that image that fulfil the query."""
    for image, numbers in query.annotations.items():
        for number in numbers:
            if number not in instances or instances[number].image_id != image:
                raise ValueError(f"there is no annotation {number} in image {image}")
    return {
        image: tuple(instances[number].rle for number in numbers)
        for image, numbers in query.annotations.items()
        if numbers
    }


def _groups(query: _Query) -> tuple[str, ...]:
    return (query.group, "held out") if query.held_out else (query.group,)
