"""Methods beside the paper's: tables, differences, and quality over verdicts asked."""

import csv
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from matir_cli.evaluation.coverage import Coverage
from matir_cli.evaluation.methods import EvaluationSetup, Method, Stage1Results, ask_judge
from matir_cli.evaluation.metrics import AveragePrecision
from matir_cli.evaluation.reporting.comparison import (
    Comparison,
    MethodResult,
    comparison_tables,
    method_differences,
)
from matir_cli.evaluation.reporting.figure import draw_figure, write_figure
from matir_cli.evaluation.reporting.provenance import Provenance
from matir_cli.evaluation.reporting.reports import Report, write_report
from matir_cli.evaluation.reporting.tables import NO_JUDGE, paper_tables
from matir_cli.evaluation.run import EvaluationOutcome
from matir_cli.evaluation.scoring import Scorer
from matir_cli.progress import no_progress
from tests.evaluation.scenes import means, method_of, sessions_of
from tests.support.fakes import ColourJudge

BACKWARDS = "backwards"
"""Name of a method whose stage 1 has the worst photos first."""


def backwards(method: Method) -> Method:
    """A method with stage 1 turned around, and the best 4 of it judged."""
    turned = {
        query: [replace(item, score=-item.score) for item in reversed(items)]
        for query, items in method.stage_1.candidates.items()
    }
    return replace(method, stage_1=Stage1Results(turned, 0), candidates=4, name=BACKWARDS)


@pytest.fixture
def comparison(setup: EvaluationSetup) -> Comparison:
    sessions = sessions_of(setup, ColourJudge())
    base = method_of(setup, sessions)
    other = backwards(base)
    ask_judge(setup, sessions, [base, other], no_progress)
    scorer = Scorer(setup, base, no_progress)
    return scorer.compare(scorer.measure(), [other])


def test_each_method_is_measured_at_both_levels_before_and_after_the_judge(comparison: Comparison) -> None:
    first, second = comparison.methods
    assert (first.name, second.name) == ("MaTIR", BACKWARDS)
    assert (
        means(first.stage_1) == means(first.best_region) == means(first.reranked) == means(first.boxes) == 1
    )
    assert means(second.stage_1) < 0.6
    # A perfect judge that sees the 4 worst photos of 6: 2 of 4 red ones, 1 of 3 green ones, no blue one.
    assert second.reranked is not None
    found = {query: value.by_relevant for query, value in second.reranked.items()}
    assert found == pytest.approx({1: 2 / 4, 2: 1 / 3, 3: 0.0})
    assert first.verdicts == dict.fromkeys([1, 2, 3], 6)
    assert second.verdicts == dict.fromkeys([1, 2, 3], 4)


def test_the_curve_goes_from_stage_1_to_the_whole_method(comparison: Comparison) -> None:
    for method, verdicts in zip(comparison.methods, (6, 4), strict=True):
        points = [point for point in comparison.curve if point.row.method == method.name]
        assert points[0].candidates == 0
        assert points[0].row.values == method.stage_1
        assert points[-1].row.verdicts_per_query == verdicts
        assert means(points[-1].row.values) >= means(method.reranked)
    counts = {point.row.method: point.candidates for point in comparison.curve}
    assert counts == {"MaTIR": 100, BACKWARDS: 4}


def test_tables_5_and_6_have_a_row_per_method_and_stage(comparison: Comparison) -> None:
    image_level, object_level = comparison_tables(comparison)
    assert (image_level.number, image_level.measure) == (5, "mAP@50")
    assert (object_level.number, object_level.measure) == (6, "mAP@50@50")
    assert [row.verdicts_per_query for row in image_level.rows] == [0, 6, 0, 4]
    assert [row.method for row in object_level.rows][1::2] == ["MaTIR", BACKWARDS]
    unjudged = tuple(replace(each, reranked=None, boxes=None, verdicts=None) for each in comparison.methods)
    absent = comparison_tables(Comparison(unjudged))[0].rows[1]
    assert (absent.values, absent.note, absent.verdicts_per_query) == (None, NO_JUDGE, None)
    assert comparison_tables(Comparison(comparison.methods[:1])) == ()


def test_a_difference_is_of_the_later_method_in_each_kind_of_query(setup: EvaluationSetup) -> None:
    def result(name: str, *values: float) -> MethodResult:
        precision = {query: AveragePrecision(value, value) for query, value in enumerate(values, start=1)}
        return MethodResult(name, precision, precision)

    methods = (result("a", 0.5, 0.5, 0.5), result("b", 0.5, 0.7, 0.9), result("c", 0.0, 0.0, 0.0))
    found = list(method_differences(Comparison(methods), setup.queries))
    assert [each.name for each in found][::2] == ["b − a, stage 1", "c − a, stage 1", "c − b, stage 1"]
    assert {each.measure for each in found} == {"mAP@50", "mAP@50@50"}
    first = found[0]
    assert first.overall.mean == pytest.approx(0.2)
    interval = first.overall.interval
    assert (interval.low, interval.high) == pytest.approx((0.0, 0.4))
    assert {group: each.mean for group, each in first.by_group.items()} == pytest.approx(
        {"r": 0.0, "g": 0.2, "b": 0.4}
    )


def report_of(setup: EvaluationSetup, comparison: Comparison) -> Report:
    base = Scorer(setup, method_of(setup, None), no_progress)
    tables = (*paper_tables(base.measure()), *comparison_tables(comparison))
    outcome = EvaluationOutcome(tables, (), Coverage(0, (0, 0)), {}, 0, {}, (), {}, comparison)
    return Report(setup.dataset, setup.queries, outcome, Provenance({}, {}, {}))


def test_the_report_has_verdicts_differences_and_the_curve(
    setup: EvaluationSetup, comparison: Comparison, tmp_path: Path
) -> None:
    text = write_report(report_of(setup, comparison), tmp_path)
    assert "## Table 5: methods, image level, mAP@50" in text
    assert "| MaTIR | 6.0 | 100.00 (100.0–100.0) | 100.00 (100.0–100.0) |" in text
    assert f"| {BACKWARDS} − MaTIR | mAP@50 | -" in text
    assert f"| {BACKWARDS} | 4 | 4.0 |" in text
    results = json.loads((tmp_path / "results.json").read_text())
    assert [row["verdicts_per_query"] for row in results["tables"][4]["rows"]] == [0, 6, 0, 4]
    difference = results["differences"][0]
    assert (difference["method"], difference["less"], difference["stage_1"]) == (BACKWARDS, "MaTIR", True)
    assert difference["overall"]["interval"]["low"] <= difference["overall"]["mean"] < 0
    assert set(difference["by_group"]) == {"r", "g", "b"}
    assert [point["candidates"] for point in results["verdicts"]] == [0, 16, 25, 35, 50, 100, 0, 4]
    with (tmp_path / "per_query.csv").open(newline="", encoding="utf-8") as stream:
        lines = [line for line in csv.DictReader(stream) if line["method"] == BACKWARDS]
    assert {line["verdicts"] for line in lines} == {"4"}
    assert {line["measure"] for line in lines} == {"mAP@50", "mAP@50@50"}


def test_the_figure_is_the_same_each_time_and_shows_every_method(
    comparison: Comparison, tmp_path: Path
) -> None:
    pytest.importorskip("matplotlib")
    assert write_figure(Comparison(), tmp_path) == ()
    for folder in ("first", "second"):
        svg, png = write_figure(comparison, tmp_path / folder)
        assert png.read_bytes().startswith(b"\x89PNG")
        text = svg.read_text()
        assert all(method.name in text for method in comparison.methods)
        assert "verdicts asked per query" in text
    assert (tmp_path / "first" / svg.name).read_bytes() == svg.read_bytes()
    lines = draw_figure(comparison).axes[0].get_lines()
    assert [np.asarray(line.get_xdata()).tolist() for line in lines] == [[0, 6, 6, 6, 6, 6], [0, 4]]
    assert np.asarray(lines[0].get_ydata()).tolist() == pytest.approx([100] * 6)
