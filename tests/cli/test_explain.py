"""`matir find --explain` in the real process: the same numbers in the table and in JSON.

The tiny models put a text into one sentence.
"""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.support.process import PHOTOS, Indexed, matir, records


@pytest.fixture
def gallery(indexed: Indexed, tmp_path: Path) -> Path:
    """A copy of the indexed gallery, without any verdict."""
    return Path(shutil.copy(indexed.gallery, tmp_path / "gallery.db"))


def contributions(stage1: dict[str, Any]) -> float:
    each = [part["contribution"] for part in (*stage1["terms"], *stage1["relations"])]
    return float(sum(each) + stage1["whole_photo"])


def example_name(example: dict[str, Any]) -> str:
    return f"{example['path']}, box {','.join(str(round(edge)) for edge in example['box'])}"


def term_name(term: dict[str, Any]) -> str:
    if term["kind"] == "mean":
        return f"of {len(term['examples'])} examples"
    return str(term["text"]) if "text" in term else example_name(term["examples"][0])


@pytest.mark.parametrize(
    ("words", "kinds"),
    [
        (("red house",), ["text"]),
        (("house left of a tree",), ["text", "object"]),
        (("house without a door",), ["text", "object", "denied"]),
        (("red house", "--not", "blue car", "--not", "tree"), ["text", "not", "not"]),
        (("--image", "PHOTO"), ["example"]),
        (("red house", "--image", "PHOTO", "--weight", 0.3), ["text", "example"]),
        (("--image", "PHOTO", "--image", "OTHER", "--unlike", "THIRD"), ["example", "unlike"]),
        (("house", "--image", "PHOTO", "--image", "OTHER", "--examples", "mean"), ["text", "mean"]),
    ],
)
def test_table_and_json_add_up(
    gallery: Path, indexed: Indexed, words: tuple[object, ...], kinds: list[str]
) -> None:
    named = dict(zip(("PHOTO", "OTHER", "THIRD"), sorted(indexed.photos.glob("*.png")), strict=False))
    asked = [named.get(word, word) if isinstance(word, str) else word for word in words]
    plain = matir("find", *asked, "--no-rerank", "-n", 3, "--db", gallery)
    table = matir("find", *asked, "--no-rerank", "-n", 3, "--db", gallery, "--explain")
    found = records(matir("find", *asked, "--no-rerank", "-n", 3, "--db", gallery, "--explain", "--jsonl"))
    assert (table.returncode, len(found)) == (0, 3)
    lines = table.stdout.decode().splitlines()
    assert [line for line in lines if not line.startswith("      ")] == plain.stdout.decode().splitlines()
    shown = [line.strip() for line in lines if line.startswith("      ")]
    for record in found:
        stage1 = record["explanation"]["stage1"]
        assert [term["kind"] for term in stage1["terms"]] == kinds
        assert contributions(stage1) == pytest.approx(record["stage1_score"], abs=3e-5)
        assert stage1["score"] == record["stage1_score"]
        assert stage1["region"]["ordinal"] == record["region"]
        assert stage1["region"]["box"] == record["box"]
        assert any(line.startswith(f"stage 1: {record['stage1_score']:.6f} by ") for line in shown)
        for term in stage1["terms"]:
            name = f"{term['contribution']:+.6f}  {term['kind']} {term_name(term)}: "
            assert any(line.startswith(name) for line in shown)
            examples = term.get("examples", ())
            for each in examples if len(examples) > 1 else ():
                assert f"cosine {each['cosine']:+.6f}  {example_name(each)}" in shown
            assert len(term.get("prompts", ())) == (1 if term["kind"] == "text" else 0)
        assert "verdict" not in record["explanation"]
    assert shown.count("mask: that of stage 1's best region: the judge was not asked in this search") == 3


def test_judge_boxes_and_masks(gallery: Path, model_set: Path) -> None:
    words = ("find", "red house", "--db", gallery, "--models", model_set, "-n", PHOTOS, "--certainty", 1)
    found = records(matir(*words, "--explain", "--jsonl"))
    assert len(found) == PHOTOS
    for record in found:
        explanation = record["explanation"]
        verdict = explanation["verdict"]
        assert verdict["p_true"] == record["p_true"]
        assert verdict["z_true"] - verdict["z_false"] == pytest.approx(record["logit_margin"], abs=1e-5)
        assert explanation["mask"].startswith("none: ") == (record["grounding"] != "matched")
        assert ("box" in record) == bool(explanation["boxes"])
        for box in explanation["boxes"][:1]:
            assert box["box"] == record["box"]
            assert box["matches"][0]["iou"] == record["iou"]
            assert box["matches"][0]["chosen"] == (record["grounding"] == "matched")
    assert [record["explanation"]["verdict"]["ranked_by"] for record in found] == sorted(
        (record["explanation"]["verdict"]["ranked_by"] for record in found), reverse=True
    )
    table = matir(*words, "--explain").stdout.decode()
    assert table.count("      judge: p ") == PHOTOS
    assert table.count("      mask: ") == PHOTOS
    never = records(matir(*words, "--explain", "--jsonl", "--min-iou", 1))
    unmatched = [r["explanation"]["mask"] for r in never if r["grounding"] == "unmatched"]
    assert {*unmatched} <= {"none: no region's box reaches the IoU 1 with the judge's box (--min-iou)"}


def test_saved_searches_and_queries_on_standard_input_are_explained(gallery: Path) -> None:
    assert matir("saved", "add", "reds", "red house", "--no-rerank", "--db", gallery).returncode == 0
    (first, *_) = records(matir("saved", "run", "reds", "--db", gallery, "--explain", "--jsonl"))
    answer = matir("find", "-", "--no-rerank", "--explain", "--db", gallery, given=b"red house\n")
    assert json.loads(answer.stdout)["results"][0] == first
    assert "explanation" in first
    (plain, *_) = records(matir("saved", "run", "reds", "--db", gallery, "--jsonl"))
    assert "explanation" not in plain


def test_it_goes_with_the_table_and_json_alone(gallery: Path) -> None:
    for words in (("--paths",), ("-0",), ("--coco", "-")):
        done = matir("find", "house", "--no-rerank", "--db", gallery, "--explain", *words)
        assert done.returncode == 2
        assert b"--explain goes with the table, --json and --jsonl." in done.stderr


def test_texts_cannot_control_the_terminal(gallery: Path) -> None:
    done = matir(
        "find", "a red\x1b[31m house", "--no-rerank", "--db", gallery, "--explain", "--not", "c\x9bar"
    )
    assert done.returncode == 0
    assert b"\\x1b[31m" in done.stdout
    assert b"\x1b" not in done.stdout
    assert "\x9b" not in done.stdout.decode()
