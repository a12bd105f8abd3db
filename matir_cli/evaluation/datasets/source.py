"""Sources of data sets: where each comes from and how it is read."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from matir_cli.evaluation.datasets.coco import coco_name, read_coco
from matir_cli.evaluation.datasets.d3 import Subset, read_d3
from matir_cli.evaluation.datasets.dataset import Dataset
from matir_cli.evaluation.datasets.drawn_world import read_drawn_objects, read_world, write_world
from matir_cli.models.tiny import benchmark
from matir_cli.records import Rle


@dataclass(frozen=True, slots=True)
class DatasetSource:
    """A data set that has not been read yet."""

    name: str
    annotations: Path
    """Named in error messages."""
    read: Callable[[Path], Dataset]
    """Reads the data set; files that it has to generate are written below the folder given."""
    settings: Mapping[str, str]
    """Choices made in reading it, for the report."""
    read_objects: Callable[[Path], Mapping[int, Sequence[Rle]]] | None = None
    """Reads, from the same folder, the objects that the proposer should find, by image id. None: the
    instances of the queries."""


def coco_source(images: Path, annotations: Path, *, crowd: bool) -> DatasetSource:
    """COCO, or a data set in its format; arguments as for `read_coco`."""
    return DatasetSource(
        coco_name(annotations),
        annotations,
        lambda _: read_coco(images, annotations, crowd=crowd),
        {"crowd annotations": "count" if crowd else "do not count"},
    )


def d3_source(images: Path, annotations: Path, subset: Subset) -> DatasetSource:
    """D3; arguments as for `read_d3`."""
    return DatasetSource(
        "d3", annotations, lambda _: read_d3(images, annotations, subset=subset), {"subset": subset}
    )


def world_source(split: str, limit: int | None) -> DatasetSource:
    """The drawn world, drawn when it is read.

    Args:
        limit: draw only the first so many pictures; None for all.
    """

    def read(folder: Path) -> Dataset:
        write_world(folder / split, split, limit)
        dataset = read_world(folder / split)
        if len(dataset.images) == benchmark.PICTURES:
            return dataset
        note = f"a part of the drawn world: {len(dataset.images)} of {benchmark.PICTURES} pictures"
        return replace(dataset, notes=(*dataset.notes, note))

    return DatasetSource(
        "world",
        Path("the drawn world"),
        read,
        {"split": split},
        lambda folder: read_drawn_objects(folder / split),
    )
