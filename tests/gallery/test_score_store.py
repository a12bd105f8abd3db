"""Scores on disk: a stopped run continues, another kind of file is left alone."""

from pathlib import Path

import numpy as np
import pytest

from matir_cli.errors import OutputError
from matir_cli.gallery.database import GalleryFile
from matir_cli.gallery.score_store import ScoreStore, run_key
from matir_cli.records import FloatArray

PHOTOS = [b"a", b"b", b"c"]


def test_scores_are_computed_once(tmp_path: Path) -> None:
    computed: list[int] = []

    def compute(index: int) -> FloatArray:
        computed.append(index)
        return np.array([index, index / 3], np.float32)

    key = run_key("method", "hash", "settings", ["dog", "cat"])
    with ScoreStore.open(tmp_path / "new" / "scores.db") as store:
        store.scores_of(key, PHOTOS[:2], 2, compute)
        assert store.missing(key, PHOTOS, 2) == 1
        assert store.missing(run_key("other", "hash", "settings", ["dog", "cat"]), PHOTOS, 2) == 3
    with ScoreStore.open(tmp_path / "new" / "scores.db") as store:
        scores = store.scores_of(key, PHOTOS, 2, compute)
    assert computed == [0, 1, 2]
    assert np.array_equal(scores, np.array([[0, 0], [1, 1 / 3], [2, 2 / 3]], np.float32))


def test_a_gallery_is_not_a_file_of_scores(tmp_path: Path) -> None:
    path = tmp_path / "gallery.db"
    GalleryFile.open(path, create=True).connection.close()
    before = path.read_bytes()
    with pytest.raises(OutputError, match="not a file of scores"):
        ScoreStore.open(path)
    assert path.read_bytes() == before


def test_a_file_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OutputError):
        ScoreStore.open(tmp_path / "file" / "scores.db")
