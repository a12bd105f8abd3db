"""The drawn world of the tiny set as a data set: pictures from seeds and the fixed questions about them.

It lies in a folder as `instances.json` (COCO), `queries.json` and `images/`.
"""

import shutil
from pathlib import Path

import msgspec

from matir_cli.errors import AnnotationsInvalid, OutputError
from matir_cli.evaluation.datasets.coco import Instance, read_instances
from matir_cli.evaluation.datasets.dataset import Dataset, EvalQuery, content_digest, read_bytes
from matir_cli.models.tiny import benchmark
from matir_cli.models.tiny.world import picture
from matir_cli.records import Rle

MAX_BYTES = 64 << 20
"""Of queries.json; that of a split has half a million."""

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
    """Image id to the ids of the annotations there that fulfil it."""


class _Queries(msgspec.Struct):
    queries: list[_Query]


class _Numbered(msgspec.Struct):
    id: int


class _Images(msgspec.Struct):
    images: list[_Numbered]


def write_world(folder: Path, split: str, limit: int | None = None) -> None:
    """Draws the benchmark of a split into `folder`, unless it is there already.

    Pictures that are there are kept as they are, so that what was indexed of them stays
    valid; nothing under its final name is ever half written.

    Args:
        split: one of `matir_cli.models.tiny.world.SPLITS`.
        limit: the first so many pictures; all without it. The queries are those of all.

    Raises:
        OutputError: the folder cannot be written.
    """
    seeds = benchmark.seeds(split)[:limit]
    if _is_written(folder, seeds):
        return
    unfinished = folder / _UNFINISHED
    try:
        (folder / _IMAGES).mkdir(parents=True, exist_ok=True)
        shutil.rmtree(unfinished, ignore_errors=True)
        benchmark.write_coco(unfinished, map(picture, seeds), benchmark.queries(split))
        for drawn in sorted((unfinished / _IMAGES).iterdir()):
            if not (final := folder / _IMAGES / drawn.name).exists():
                drawn.replace(final)
        # Last of all, and never beside the instances of another split: its presence says "complete".
        (folder / _QUERIES).unlink(missing_ok=True)
        (unfinished / _INSTANCES).replace(folder / _INSTANCES)
        (unfinished / _QUERIES).replace(folder / _QUERIES)
        shutil.rmtree(unfinished)
    except OSError as error:
        raise OutputError(folder, (error.strerror or str(error)).lower()) from error


def _is_written(folder: Path, seeds: range) -> bool:
    """Whether the folder holds the pictures of these seeds, and what is asked of them."""
    try:
        listed = msgspec.json.decode((folder / _INSTANCES).read_bytes(), type=_Images).images
    except (OSError, msgspec.DecodeError):
        return False
    return (
        (folder / _QUERIES).is_file()
        and [image.id for image in listed] == list(seeds)
        and all((folder / _IMAGES / f"{seed}.png").is_file() for seed in seeds)
    )


def read_world(folder: Path) -> Dataset:
    """The data set that `write_world` made; a query is counted under its group and "held out".

    Raises:
        AnnotationsInvalid: a file, a record of it (named by its id), or a picture.
    """
    read = read_instances(folder / _IMAGES, folder / _INSTANCES)
    path = folder / _QUERIES
    content = read_bytes(path, MAX_BYTES)
    try:
        asked = msgspec.json.decode(content, type=_Queries).queries
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise AnnotationsInvalid(path, f"not the queries of a drawn world: {error}") from error
    truth: dict[int, dict[int, tuple[Rle, ...]]] = {}
    for query in asked:
        if query.id in truth:
            raise AnnotationsInvalid(path, f"query {query.id} is there twice")
        try:
            truth[query.id] = _truth(query, read.annotations)
        except ValueError as error:
            raise AnnotationsInvalid(path, f"query {query.id}: {error}") from error
    queries = tuple(EvalQuery(query.id, query.text, _groups(query)) for query in asked)
    return Dataset("world", read.images, queries, truth, content_digest(read.content, content))


def read_objects(folder: Path) -> dict[int, list[Rle]]:
    """Image id to all that is drawn there, asked for or not; errors as of `read_world`."""
    found: dict[int, list[Rle]] = {}
    for instance in read_instances(folder / _IMAGES, folder / _INSTANCES).annotations.values():
        found.setdefault(instance.image_id, []).append(instance.rle)
    return found


def _truth(query: _Query, instances: dict[int, Instance]) -> dict[int, tuple[Rle, ...]]:
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
