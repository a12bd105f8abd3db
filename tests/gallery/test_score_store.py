"""Stored scores: resumed, kept apart by run, checked."""

import sqlite3
from pathlib import Path

import numpy as np
import pytest

from matir_cli.errors import OutputError
from matir_cli.gallery.database import GalleryFile
from matir_cli.gallery.score_store import ScoreStore, run_key
from matir_cli.records import FloatArray

PHOTOS = [bytes([n]) * 32 for n in range(6)]


def row(index: int) -> FloatArray:
    return np.array([index, index / 3], np.float32)


class Stopped(Exception):
    """Ends a run in the middle."""


def test_a_stopped_run_resumes(tmp_path: Path) -> None:
    key = run_key("whole image", "ab", "", ["dog", "cat"])
    computed: list[int] = []
    done: list[str] = []

    def compute(index: int) -> FloatArray:
        if index == 3 and not done.count("stopped"):
            done.append("stopped")
            raise Stopped
        computed.append(index)
        return row(index)

    with pytest.raises(Stopped), ScoreStore.open(tmp_path / "new" / "scores.db") as store:
        store.scores_of(key, PHOTOS, 2, compute, lambda: done.append("photo"))
    assert done == ["photo"] * 3 + ["stopped"]
    with ScoreStore.open(tmp_path / "new" / "scores.db") as store:
        assert store.missing(key, PHOTOS, 2) == 3
        found = store.scores_of(key, PHOTOS, 2, compute, lambda: done.append("photo"))
        assert store.missing(key, PHOTOS, 2) == 0
    assert computed == [0, 1, 2, 3, 4, 5], "no photo twice"
    assert found.dtype == np.float32
    assert np.array_equal(found, np.stack([row(n) for n in range(6)]))


def test_photos_are_identified_by_name_not_position(tmp_path: Path) -> None:
    with ScoreStore.open(tmp_path / "scores.db") as store:
        store.scores_of("run", PHOTOS, 2, row)
        found = store.scores_of("run", [PHOTOS[4], b"new", PHOTOS[1]], 2, lambda index: row(10 + index))
    assert np.array_equal(found, np.stack([row(4), row(11), row(1)]))


def test_runs_do_not_mix(tmp_path: Path) -> None:
    keys = {
        run_key("whole image", "ab", "", ["dog", "cat"]),
        run_key("Dense-CLIP", "ab", "", ["dog", "cat"]),
        run_key("whole image", "cd", "", ["dog", "cat"]),
        run_key("whole image", "ab", "seed 1", ["dog", "cat"]),
        run_key("whole image", "ab", "", ["cat", "dog"]),
        run_key("whole image", "ab", "", ["dogcat"]),
        run_key("whole image", "a", "b", ["dog", "cat"]),
    }
    assert len(keys) == 7
    with ScoreStore.open(tmp_path / "scores.db") as store:
        for number, key in enumerate(keys):
            store.scores_of(key, PHOTOS, 2, lambda index: row(index + number))  # noqa: B023 - called at once
        for number, key in enumerate(keys):
            found = store.scores_of(key, PHOTOS, 2, lambda _: row(99))
            assert np.array_equal(found[0], row(number))


def test_incomplete_scores_are_computed_again(tmp_path: Path) -> None:
    path = tmp_path / "scores.db"
    with ScoreStore.open(path) as store:
        store.scores_of("run", PHOTOS, 2, row)
        with pytest.raises(ValueError, match="scores for 3 queries"):
            store.scores_of("run", PHOTOS, 3, row)
    with sqlite3.connect(path) as db:
        db.execute("update scores set scores = x'00' where photo = ?", (PHOTOS[2],))
    with ScoreStore.open(path) as store:
        assert store.missing("run", PHOTOS, 2) == 1
        assert np.array_equal(store.scores_of("run", PHOTOS, 2, row)[2], row(2))


def test_other_files_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "text.db").write_text("not a database " * 100)
    with sqlite3.connect(tmp_path / "other.db") as db:
        db.execute("create table t (x)")
    for name in ("text.db", "other.db"):
        before = (tmp_path / name).read_bytes()
        with pytest.raises(OutputError):
            ScoreStore.open(tmp_path / name)
        assert (tmp_path / name).read_bytes() == before
    with pytest.raises(OutputError):
        ScoreStore.open(tmp_path)
    with pytest.raises(OutputError):
        ScoreStore.open(tmp_path / "text.db" / "scores.db")


def test_a_gallery_is_not_a_file_of_scores(tmp_path: Path) -> None:
    path = tmp_path / "gallery.db"
    GalleryFile.open(path, create=True).connection.close()
    before = path.read_bytes()
    with pytest.raises(OutputError, match="not a file of scores"):
        ScoreStore.open(path)
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    "statement",
    [
        "create view v as select * from runs",
        "create trigger t after insert on runs begin delete from scores; end",
        "alter table runs add column more",
        "drop table scores",
    ],
)
def test_a_file_with_another_schema_is_refused(tmp_path: Path, statement: str) -> None:
    ScoreStore.open(tmp_path / "scores.db").__exit__(None, None, None)
    with sqlite3.connect(tmp_path / "scores.db") as plain:
        plain.execute(statement)
    plain.close()
    with pytest.raises(OutputError, match="not a file of scores"):
        ScoreStore.open(tmp_path / "scores.db")
