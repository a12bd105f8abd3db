"""Sources of data sets: where each comes from and how it is read."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from matir_cli.evaluation.datasets.coco import coco_name, read_coco
from matir_cli.evaluation.datasets.d3 import Subset, read_d3
from matir_cli.evaluation.datasets.dataset import Dataset
from matir_cli.evaluation.datasets.drawn_world import read_drawn_objects, read_world, write_world
from matir_cli.models.tiny.benchmark import WORLD, Benchmark
from matir_cli.progress import ProgressObserver
from matir_cli.records import Rle


@dataclass(frozen=True, slots=True)
class DatasetSource:
    """A data set that has not been read yet."""

    name: str
    annotations: Path
    """Named in error messages."""
    read: Callable[[Path, ProgressObserver], Dataset]
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
        lambda _, __: read_coco(images, annotations, crowd=crowd),
        {"crowd annotations": "count" if crowd else "do not count"},
    )


def d3_source(images: Path, annotations: Path, subset: Subset) -> DatasetSource:
    """D3; arguments as for `read_d3`."""
    return DatasetSource(
        "d3", annotations, lambda _, __: read_d3(images, annotations, subset=subset), {"subset": subset}
    )


def world_source(benchmark: Benchmark, split: str, limit: int | None) -> DatasetSource:
    """A benchmark on the drawn world, drawn when it is read.

    Args:
        limit: draw only the first so many pictures; None for all.
    """

    # Benchmarks that share pictures must not share the file of queries.
    place = Path(split) if benchmark is WORLD else Path(benchmark.name, split)

    def read(folder: Path, progress: ProgressObserver) -> Dataset:
        write_world(folder / place, benchmark, split, limit, progress)
        dataset = read_world(folder / place, benchmark.name)
        if len(dataset.images) == benchmark.pictures:
            return dataset
        note = f"a part of the drawn world: {len(dataset.images):,} of {benchmark.pictures:,} pictures"
        return replace(dataset, notes=(*dataset.notes, note))

    return DatasetSource(
        benchmark.name,
        Path("the drawn world"),
        read,
        {"split": split},
        lambda folder: read_drawn_objects(folder / place),
    )
