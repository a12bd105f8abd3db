"""Sources of data sets: names, settings, and reading into a folder."""

from pathlib import Path

import pytest

from matir_cli.evaluation.datasets.source import coco_source, d3_source, world_source
from matir_cli.models.tiny.benchmark import WORLD, WORLD_LONG
from matir_cli.progress import no_progress


def test_the_world_is_drawn_when_it_is_read(tmp_path: Path) -> None:
    source = world_source(WORLD, "validation", 2)
    assert (source.name, source.settings) == ("world", {"split": "validation"})
    assert list(tmp_path.iterdir()) == []
    dataset = source.read(tmp_path, no_progress)
    assert len(dataset.images) == 2
    assert dataset.notes == ("a part of the drawn world: 2 of 400 pictures",)
    assert source.read_objects is not None
    objects = source.read_objects(tmp_path)
    assert set(objects) <= {image.id for image in dataset.images}
    assert sum(map(len, objects.values())) > 0


def test_benchmarks_in_one_folder_keep_their_own_queries(tmp_path: Path) -> None:
    short, long = (world_source(benchmark, "validation", 2) for benchmark in (WORLD, WORLD_LONG))
    read = [source.read(tmp_path, no_progress) for source in (short, long, short)]
    assert [dataset.name for dataset in read] == ["world", "world-long", "world"]
    assert [len(dataset.queries) for dataset in read] == [64, 300, 64]
    assert read[0] == read[2]
    first, second = ([image.path.read_bytes() for image in dataset.images] for dataset in read[:2])
    assert first == second


@pytest.mark.parametrize(("file", "name"), [("instances_val2017.json", "coco"), ("mine.json", "mine")])
def test_a_coco_file_gives_the_data_set_its_name(tmp_path: Path, file: str, name: str) -> None:
    source = coco_source(tmp_path, tmp_path / file, crowd=True)
    assert (source.name, source.annotations) == (name, tmp_path / file)
    assert source.settings == {"crowd annotations": "count"}
    assert source.read_objects is None


def test_d3_names_its_subset(tmp_path: Path) -> None:
    source = d3_source(tmp_path, tmp_path, "abs")
    assert (source.name, source.settings) == ("d3", {"subset": "abs"})
