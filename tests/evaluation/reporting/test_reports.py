"""Report files: figures, notes, and text from others made safe."""

import csv
import json
from dataclasses import replace
from pathlib import Path

import pytest

from matir_cli.evaluation.coverage import Coverage
from matir_cli.evaluation.methods import EvaluationSetup
from matir_cli.evaluation.reporting.provenance import Provenance
from matir_cli.evaluation.reporting.reports import Report, report_markdown, write_report
from matir_cli.evaluation.reporting.tables import paper_tables
from matir_cli.evaluation.run import EvaluationOutcome
from tests.evaluation.scenes import measure, method_of


@pytest.fixture
def report(setup: EvaluationSetup) -> Report:
    tables = paper_tables(measure(setup, method_of(setup, None)))
    outcome = EvaluationOutcome(
        tables, (), Coverage(4, (3, 1)), {"matched": 3, "no box": 1}, 2, {}, ("odd.png",), {}
    )
    provenance = Provenance({"N_C": "100"}, {"encoder": "a|b"}, {"Python": "3"}, ("toy models",))
    dataset = replace(setup.dataset, notes=("a subset",))
    return Report(dataset, setup.queries, outcome, provenance, unreadable_images=5)


def test_notes_go_from_the_data_set_to_the_models(report: Report) -> None:
    assert report.notes == (
        "a subset",
        "images that could not be read and count as not found: 5",
        "queries cut off at the length that the encoder reads: 2",
        "images about which the judge could not answer: 1 (odd.png)",
        "toy models",
    )


def test_the_markdown_has_every_figure(report: Report) -> None:
    text = report_markdown(report)
    assert "> a subset." in text
    assert "| MaTIR without reranking (stage 1) | 100.00 (100.0–100.0) | 100.00 (100.0–100.0) |" in text
    assert "- proposer: 75.0% of 4 annotated objects have a stored region with an IoU of at least 0.5" in text
    assert "- judge's box in relevant images: no box in 25.0% of 4" in text
    assert "| method | measure | r (1) | g (1) | b (1) |" in text
    assert "- encoder: a\\|b" in text  # no column of a table begins there


def test_the_files_agree(report: Report, tmp_path: Path) -> None:
    text = write_report(report, tmp_path)
    assert (tmp_path / "tables.md").read_text(encoding="utf-8") == text
    results = json.loads((tmp_path / "results.json").read_text())
    assert results["dataset"]["notes"] == list(report.notes)
    assert results["coverage"] == {"objects": 4, "covered": {"0.5": 3, "0.75": 1}}
    assert results["models"] == {"encoder": "a|b"}
    with (tmp_path / "per_query.csv").open(newline="", encoding="utf-8") as stream:
        lines = list(csv.DictReader(stream))
    stage_1 = [line for line in lines if "stage 1)" in line["method"]]
    assert [line["query"] for line in stage_1] == ["red", "green", "blue"]
    assert {line["ap"] for line in stage_1} == {"1.0"}
