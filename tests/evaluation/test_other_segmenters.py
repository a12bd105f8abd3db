"""Exported rankings and masks, and imported masks."""

import json
from pathlib import Path

import pytest

from matir_cli import masks
from matir_cli.errors import AnnotationsInvalid, OutputExists
from matir_cli.evaluation.methods import EvaluationSetup, ask_judge
from matir_cli.evaluation.other_segmenters import export_masks, export_ranking, import_masks
from matir_cli.evaluation.reporting.tables import SegmenterResult
from matir_cli.evaluation.scoring import Scorer
from matir_cli.progress import no_progress
from tests.evaluation.scenes import SCENES, measure, method_of, sessions_of
from tests.support.fakes import ColourJudge


def test_exported_masks_score_the_same_when_imported(setup: EvaluationSetup, tmp_path: Path) -> None:
    sessions = sessions_of(setup, ColourJudge())
    method = method_of(setup, sessions)
    ask_judge(setup, sessions, [method], no_progress, everywhere=True)
    scorer = Scorer(setup, method, no_progress, all_masks=True)
    boxes = scorer.measure().boxes
    export_masks(tmp_path / "m.json", setup, scorer.rankings, scorer.masks, force=False)
    export_ranking(tmp_path / "r.jsonl", setup, scorer.rankings, force=False)
    lines = [json.loads(line) for line in (tmp_path / "r.jsonl").read_text().splitlines()]
    assert len(lines) == 3 * len(SCENES)
    assert [line["rank"] for line in lines] == 3 * [1, 2, 3, 4, 5, 6]
    first = scorer.rankings[1][0]
    name = next(image.name for image in setup.dataset.images if image.id == first)
    assert lines[0] == {"query_id": 1, "query": "red", "rank": 1, "image_id": first, "image": name}
    imported = import_masks("ours", tmp_path / "m.json", setup.dataset)
    back = measure(setup, method, imported=(imported,)).imported
    assert back is not None
    assert back["ours"] == SegmenterResult(boxes or {}, 9, 3 * len(SCENES))
    with pytest.raises(OutputExists):
        export_ranking(tmp_path / "r.jsonl", setup, scorer.rankings, force=False)


def result(setup: EvaluationSetup, image: int, query: int = 1, **fields: object) -> dict[str, object]:
    rle = setup.dataset.instances(1, 12)[0]
    shape = {"size": [rle.height, rle.width], "counts": rle.counts.decode()}
    return {"image_id": image, "category_id": query, "segmentation": shape, "score": 0.5, **fields}


def test_the_mask_with_the_highest_score_counts(setup: EvaluationSetup, tmp_path: Path) -> None:
    other = [[1, 1, 9, 1, 9, 9, 1, 9]]  # a polygon, as instances have it
    results = [
        result(setup, 12),
        result(setup, 12, segmentation=other, score=0.9),
        result(setup, 12, score=0.1),
    ]
    (tmp_path / "m.json").write_text(json.dumps(results))
    imported = import_masks("x", tmp_path / "m.json", setup.dataset)
    mask = imported.masks[1][12]
    assert mask is not None
    assert masks.area(mask) == 64


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"image_id": 99}, "result number 2: there is no image 99"),
        ({"category_id": 99}, "result number 2: there is no query 99"),
        ({"segmentation": {"size": [5, 5], "counts": "X"}}, "result number 2: a mask of 5 x 5 pixels"),
        (
            {"segmentation": {"size": [90, 120], "counts": "0"}},
            "result number 2: runs do not fill",
        ),
        ({"segmentation": None}, "result number 2: "),
        ({"score": "high"}, "result number 2: "),
    ],
)
def test_an_invalid_result_is_named_by_its_position(
    setup: EvaluationSetup, tmp_path: Path, change: dict[str, object], complaint: str
) -> None:
    results = [result(setup, 12), {**result(setup, 13), **change}]
    (tmp_path / "m.json").write_text(json.dumps(results))
    with pytest.raises(AnnotationsInvalid) as caught:
        import_masks("x", tmp_path / "m.json", setup.dataset)
    assert caught.value.reason.startswith(complaint)


@pytest.mark.parametrize("content", ["", "{}", "[1, 2", '{"annotations": []}', "\xff"])
def test_other_files_are_refused(setup: EvaluationSetup, tmp_path: Path, content: str) -> None:
    (tmp_path / "m.json").write_text(content, encoding="latin-1")
    with pytest.raises(AnnotationsInvalid, match="not COCO's list of results"):
        import_masks("x", tmp_path / "m.json", setup.dataset)
