"""The drawn world on disk: drawn, resumed, read and checked."""

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from matir_cli import masks
from matir_cli.errors import AnnotationsInvalid, OutputError
from matir_cli.evaluation.datasets.dataset import Dataset
from matir_cli.evaluation.datasets.drawn_world import read_world, write_world
from matir_cli.models.tiny import world
from matir_cli.models.tiny.benchmark import WORLD, Benchmark
from matir_cli.models.tiny.grammar import fulfils, parse
from matir_cli.progress import Advance


@pytest.fixture(scope="module")
def world_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("eval") / "world"
    write_world(folder, WORLD, "validation", 30)
    return folder


def test_the_world_reads_as_it_was_drawn(world_folder: Path) -> None:
    dataset: Dataset = read_world(world_folder)
    asked = WORLD.queries("validation")
    shown = {seed: world.picture(seed) for seed in WORLD.seeds("validation")[:30]}
    assert dataset.name == "world"
    assert [image.id for image in dataset.images] == list(shown)
    assert [query.text for query in dataset.queries] == [query.text for query in asked]
    for query, drawn_query in zip(dataset.queries, asked, strict=True):
        assert query.groups == (
            (drawn_query.group, "held out") if drawn_query.held_out else (drawn_query.group,)
        )
        expected = {seed for seed, picture in shown.items() if fulfils(drawn_query, picture)}
        assert dataset.relevant_images(query.id) == expected
        for seed in expected:
            things = fulfils(drawn_query, shown[seed])
            found = dataset.instances(query.id, seed)
            assert len(found) == len(things)
            assert np.array_equal(masks.decode(found[0]), shown[seed].mask(things[0]))
    assert any("held out" in query.groups for query in dataset.queries)


def state(folder: Path) -> dict[str, int]:
    """Relative path and modification time of each file in a folder."""
    return {str(p.relative_to(folder)): p.stat().st_mtime_ns for p in folder.rglob("*") if p.is_file()}


def test_a_complete_world_is_left_alone_and_an_incomplete_one_is_completed(
    world_folder: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "world"
    shutil.copytree(world_folder, folder)
    before = state(folder)
    assert len(before) == 32
    write_world(folder, WORLD, "validation", 30)
    assert state(folder) == before
    lost = min((folder / "images").iterdir())
    lost.unlink()
    (folder / ".writing").mkdir()
    (folder / ".writing" / "rest.png").write_bytes(b"cut")
    write_world(folder, WORLD, "validation", 31)
    after = state(folder)
    added = f"images/{WORLD.seeds('validation')[30]}.png"
    assert set(after) == {*before, added}
    written_now = {f"images/{lost.name}", added, "instances.json", "queries.json"}
    assert {name for name, time in after.items() if time != before.get(name)} == written_now
    assert len(read_world(folder).images) == 31


def test_an_interrupted_drawing_is_resumed(tmp_path: Path) -> None:
    benchmark = Benchmark("few", 5, 500_000, lambda _: [parse("ball")])

    @contextmanager
    def interrupt(name: str, total: int | None, unit: str, done: int = 0) -> Iterator[Advance]:
        assert (name, total, unit, done) == ("drawing", 5, "picture", 0)
        drawn = iter(range(3))
        yield lambda _=1: None if next(drawn, None) is not None else _interrupt()

    with pytest.raises(KeyboardInterrupt):
        write_world(tmp_path, benchmark, "validation", progress=interrupt)
    kept = {path: path.stat().st_mtime_ns for path in (tmp_path / "images").iterdir()}
    assert 3 <= len(kept) < 5
    with pytest.raises(AnnotationsInvalid):
        read_world(tmp_path)
    write_world(tmp_path, benchmark, "validation")
    assert {path: path.stat().st_mtime_ns for path in kept} == kept
    dataset = read_world(tmp_path, "few")
    assert (dataset.name, [image.id for image in dataset.images]) == ("few", [*benchmark.seeds("validation")])


def _interrupt() -> None:
    raise KeyboardInterrupt


def test_a_world_s_files_are_checked(world_folder: Path, tmp_path: Path) -> None:
    folder = tmp_path / "world"
    folder.mkdir()
    (folder / "images").symlink_to(world_folder / "images")
    (folder / "instances.json").write_bytes((world_folder / "instances.json").read_bytes())
    good = json.loads((world_folder / "queries.json").read_text())

    def refuse(content: object, reason: str) -> None:
        (folder / "queries.json").write_text(json.dumps(content))
        with pytest.raises(AnnotationsInvalid, match=f"queries.json .*: {reason}"):
            read_world(folder)

    image = str(read_world(world_folder).images[0].id)
    refuse([], "not the queries")
    refuse({"queries": [good["queries"][0], good["queries"][0]]}, "query 1 occurs twice")
    refuse(
        {"queries": [good["queries"][0] | {"annotations": {image: [10**6]}}]}, "query 1: .*annotation 1000000"
    )
    refuse({"queries": [good["queries"][0] | {"annotations": {"5": [1]}}]}, "query 1: .*in image 5")
    (folder / "queries.json").unlink()
    with pytest.raises(AnnotationsInvalid, match="no such file"):
        read_world(folder)


def test_a_world_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OutputError, match="file"):
        write_world(tmp_path / "file", WORLD, "test", 1)
