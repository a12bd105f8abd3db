"""Search results: their path and their score."""

import math
from pathlib import Path

import pytest

from matir_cli.gallery.rows import StoredPhoto
from matir_cli.records import Candidate, PhotoRecord, Verdict
from matir_cli.search.results import SearchResult


def result(*paths: Path, verdict: Verdict | None = None) -> SearchResult:
    photo = StoredPhoto(1, paths, PhotoRecord(bytes(32), 40, 30, 40, 30, 1))
    return SearchResult(1, photo, Candidate(1, 2, 0.25), (), verdict)


def test_the_path_is_that_of_the_first_file_that_exists(tmp_path: Path) -> None:
    missing, present, copy = (tmp_path / name for name in ("a.jpg", "b.jpg", "c.jpg"))
    present.touch()
    copy.touch()
    assert result(missing, present, copy).path == present
    assert result(missing).path == missing


def test_a_link_to_nothing_is_a_file_that_exists(tmp_path: Path) -> None:
    (tmp_path / "b.jpg").symlink_to(tmp_path / "nowhere")
    assert result(tmp_path / "a.jpg", tmp_path / "b.jpg").path == tmp_path / "b.jpg"


def test_the_score_is_the_judges_where_there_is_a_verdict(tmp_path: Path) -> None:
    assert result(tmp_path).score == 0.25
    judged = result(tmp_path, verdict=Verdict(math.log(3), 0.0))
    assert judged.score == pytest.approx(0.75)
