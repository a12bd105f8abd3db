"""`find --jsonl --stream`: what is known of a search, line by line, as soon as it is known."""

import json
import shutil
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.support.process import MATIR, PHOTOS, Indexed, matir, records

QUERY = "red house"


@pytest.fixture
def gallery(indexed: Indexed, tmp_path: Path) -> Path:
    """A copy of the indexed gallery, without any verdict."""
    return Path(shutil.copy(indexed.gallery, tmp_path / "gallery.db"))


def by_event(lines: list[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    found: dict[str, list[dict[str, Any]]] = {}
    for line in lines:
        found.setdefault(line["event"], []).append(line)
    return found


def test_events_come_in_order_and_end_with_what_jsonl_prints(
    gallery: Path, model_set: Path, tmp_path: Path
) -> None:
    fused = model_set.with_name("fused.toml")
    fused.write_text("fusion = 4.0\n" + model_set.read_text())
    words = ("--db", gallery, "--models", fused, "-n", 3, "--certainty", 1)
    done = matir("find", QUERY, "--jsonl", "--stream", *words, "--rle", "--masks", tmp_path / "masks")
    assert done.returncode == 0, done.stderr
    lines = records(done)
    assert all(line["query"] == QUERY for line in lines)
    kinds = [line["event"] for line in lines]
    assert kinds == ["stage1", *["verdict"] * PHOTOS, *["grounded"] * 3, "final"]
    found = by_event(lines)
    (stage_1,) = found["stage1"]
    plain = records(matir("find", QUERY, "--jsonl", "--no-rerank", *words))
    assert (stage_1["results"], stage_1["candidates"]) == (plain, PHOTOS)
    assert [line["asked"] for line in found["verdict"]] == [*range(1, PHOTOS + 1)]
    assert len({line["path"] for line in found["verdict"]}) == PHOTOS
    (final,) = found["final"]
    assert {key: final[key] for key in ("candidates", "judged", "complete")} == {
        "candidates": PHOTOS,
        "judged": PHOTOS,
        "complete": True,
    }
    assert final["results"] == records(
        matir("find", QUERY, "--jsonl", *words, "--rle", "--masks", tmp_path / "masks")
    )
    # The verdicts of the stream are enough to rank the photos.
    worth = {
        line["path"]: line["logit_margin"] + stage_1["fusion"] * line["stage1_score"]
        for line in found["verdict"]
    }
    assert stage_1["fusion"] > 0
    assert [line["path"] for line in final["results"]] == sorted(worth, key=lambda path: -worth[path])[:3]
    margins = {line["path"]: line["logit_margin"] for line in found["verdict"]}
    for grounded, result in zip(found["grounded"], final["results"], strict=True):
        assert margins[result["path"]] == result["logit_margin"]
        assert grounded["result"].items() <= result.items()


def test_each_line_says_which_query_it_belongs_to(gallery: Path, model_set: Path) -> None:
    words = ("--db", gallery, "--models", model_set, "-n", 2, "--no-ground", "--certainty", 1)
    lines = "red house\n\nunheard of\u00e9\nred house\n".encode()
    done = matir("find", "-", "--jsonl", "--stream", *words, given=lines)
    assert done.returncode == 0, done.stderr
    found = by_event(records(done))
    queries = ["red house", "unheard of\u00e9", "red house"]
    assert [line["query"] for line in found["stage1"]] == queries
    assert [line["query"] for line in found["final"]] == queries
    assert len(found["verdict"]) == 3 * PHOTOS
    answers = records(matir("find", "-", *words, given=lines))
    assert [line["results"] for line in found["final"]] == [answer["results"] for answer in answers]


def test_without_a_judge_there_is_a_ranking_and_an_end(indexed: Indexed) -> None:
    words = ("--db", indexed.gallery, "--no-rerank", "--jsonl", "--stream")
    lines = records(matir("find", QUERY, "-n", 4, *words))
    assert [line["event"] for line in lines] == ["stage1", "final"]
    assert lines[0]["results"] == lines[1]["results"]
    none = matir("find", QUERY, *words, "--min-score", 2)
    assert none.returncode == 1
    assert records(none)[-1]["results"] == []


@pytest.mark.parametrize("words", [[], ["--json"], ["--paths"], ["--jsonl", "--coco", "-"]])
def test_events_are_lines_of_json(words: list[str]) -> None:
    done = matir("find", QUERY, "--stream", *words, "--db", "nowhere.db")
    assert done.returncode == 2
    assert b"--jsonl" in done.stderr or b"standard output" in done.stderr


def test_a_reader_gets_each_line_at_once_and_ctrl_c_ends_with_what_was_judged(
    gallery: Path, model_set: Path
) -> None:
    slow = model_set.with_name("slow_stream.toml")
    slow.write_text(model_set.read_text().replace("max_pixels = 50176", "min_pixels = 802816"))
    words = ("--jsonl", "--stream", "--certainty", "1", "--db", str(gallery), "--models", str(slow))
    with subprocess.Popen(
        [*MATIR, "find", QUERY, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        read = [json.loads(process.stdout.readline()) for _ in range(3)]
        process.send_signal(signal.SIGINT)
        read += [json.loads(line) for line in process.stdout]
    assert process.returncode == 130
    assert [line["event"] for line in read[:3]] == ["stage1", "verdict", "verdict"]
    final = read[-1]
    assert (final["event"], final["complete"]) == ("final", False)
    assert 2 <= final["judged"] == len(final["results"]) < PHOTOS
