"""Tests of the whole method's quality on a part of the drawn world.

The thresholds lie well below the figures of the whole split, since so small a part is noisy.
"""

import json
from typing import Any

import pytest

from tests.support.process import matir

IMAGES, QUERIES = 60, 64


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    out = tmp_path_factory.mktemp("quality") / "out"
    words = ("--limit-images", IMAGES, "--limit-queries", QUERIES, "--baselines", "whole")
    done = matir("eval", "world", *words, "--methods", "none", "--out", out)
    assert done.returncode == 0, done.stderr.decode()
    read: dict[str, Any] = json.loads((out / "results.json").read_text())
    return read


def figure(results: dict[str, Any], table: int, method: str, group: str | None = None) -> float:
    """Mean average precision in per cent, of all queries or of one group."""
    row = {row["method"]: row for row in results["tables"][table - 1]["rows"]}[method]
    summary = row["summary"] if group is None else row["by_group"][group]
    return 100 * float(summary["mean_by_relevant"])


STAGE_1 = "MaTIR without reranking (stage 1)"


def test_regions_beat_the_whole_image(results: dict[str, Any]) -> None:
    assert figure(results, 1, STAGE_1) > figure(results, 1, "whole image (alpha_clip_tiny_drawn_world)") + 10


@pytest.mark.parametrize("group", ["relational", "negated"])
def test_the_judge_finds_what_vectors_cannot(results: dict[str, Any], group: str) -> None:
    assert figure(results, 1, "MaTIR", group) > figure(results, 1, STAGE_1, group) + 10


def test_the_judges_boxes_find_the_mask(results: dict[str, Any]) -> None:
    by_box = figure(results, 4, "judge's box + mask matching (MaTIR)")
    assert by_box > 60
    assert by_box > figure(results, 4, "stage 1's best region, stage 1's order") + 15


def test_the_proposer_sees_the_objects(results: dict[str, Any]) -> None:
    covered = results["coverage"]
    assert covered["covered"]["0.75"] / covered["objects"] >= 0.85
