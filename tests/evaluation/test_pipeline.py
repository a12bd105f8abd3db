"""The pipeline on a few drawn pictures with the tiny models: prepare, index, evaluate, report, resume."""

from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from matir_cli.errors import AnnotationsInvalid, OutputExists
from matir_cli.evaluation.datasets.source import world_source
from matir_cli.evaluation.options import EvaluationOptions
from matir_cli.evaluation.pipeline import (
    PreparedEvaluation,
    evaluate_dataset,
    index_dataset,
    prepare_evaluation,
)
from matir_cli.evaluation.reporting.reports import Report, write_report
from matir_cli.gallery.database import GalleryFile
from matir_cli.indexing.outcomes import Added, Skipped, Unchanged
from matir_cli.model_sets.catalogue import load_model_set
from matir_cli.models.tiny.benchmark import WORLD
from matir_cli.progress import Advance, no_progress

IMAGES = 3

OPTIONS = EvaluationOptions(
    device="cpu",
    limit_images=IMAGES,
    limit_queries=30,
    baselines=("whole",),
    rerank=False,
    ablations=("whole-photo", "keep"),
)


@dataclass
class Steps:
    """Records the steps that have work to do."""

    names: list[str] = field(default_factory=list)

    def __call__(
        self, name: str, total: int | None, unit: str, done: int = 0
    ) -> AbstractContextManager[Advance]:
        if total:
            self.names.append(name)
        return no_progress(name, total, unit, done)


def prepare(folder: Path, options: EvaluationOptions = OPTIONS) -> PreparedEvaluation:
    return prepare_evaluation(
        world_source(WORLD, "validation", IMAGES), load_model_set("tiny"), (), options, folder
    )


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> PreparedEvaluation:
    return prepare(tmp_path_factory.mktemp("evaluation"))


@pytest.fixture(scope="module")
def gallery(prepared: PreparedEvaluation) -> Iterator[GalleryFile]:
    with GalleryFile.open(prepared.gallery_path, create=True) as opened:
        outcomes = list(index_dataset(prepared, opened))
        assert [type(outcome) for outcome in outcomes] == [Added] * IMAGES
        yield opened


@pytest.fixture(scope="module")
def report(prepared: PreparedEvaluation, gallery: GalleryFile) -> Report:
    return evaluate_dataset(prepared, gallery, no_progress)


def test_preparing_plans_what_can_be_run(prepared: PreparedEvaluation) -> None:
    assert len(prepared.dataset.images) == IMAGES
    assert len(prepared.dataset.queries) == 30
    assert not prepared.plan.judge
    assert not prepared.lacks_judge
    assert prepared.plan.ablations == ("whole-photo",)
    assert prepared.skipped_ablations == ("keep",)


def test_a_file_to_export_is_not_overwritten(tmp_path: Path) -> None:
    existing = tmp_path / "ranking.jsonl"
    existing.write_text("kept")
    options = replace(OPTIONS, export_ranking=existing)
    with pytest.raises(OutputExists):
        prepare(tmp_path, options)
    assert prepare(tmp_path, replace(options, force=True)).options.export_ranking == existing


def test_the_report_has_the_four_tables_and_their_provenance(
    prepared: PreparedEvaluation, report: Report
) -> None:
    assert [table.number for table in report.outcome.tables] == [1, 2, 3, 4, 5, 6]
    assert [table.ablation for table in report.outcome.ablations] == ["whole-photo"]
    measured = {row.method for table in report.outcome.tables for row in table.rows if row.summary}
    assert "MaTIR without reranking (stage 1)" in measured
    assert any(method.startswith("whole image") for method in measured)
    assert "MaTIR" not in measured
    assert "MaTIR with parts without reranking (stage 1)" in measured
    assert [method.name for method in report.outcome.comparison.methods] == ["MaTIR", "MaTIR with parts"]
    assert report.outcome.comparison.curve == ()
    assert report.unreadable_images == 0
    assert report.queries == tuple(
        query for query in prepared.dataset.queries if prepared.dataset.relevant_images(query.id)
    )
    assert report.provenance.settings["stages"] == "the first alone"
    assert report.provenance.settings["split"] == "validation"
    assert set(report.provenance.models) == {"proposer", "encoder", "judge"}


def test_running_again_computes_nothing_and_gives_the_same_report(
    prepared: PreparedEvaluation, gallery: GalleryFile, report: Report, tmp_path: Path
) -> None:
    assert {type(outcome) for outcome in index_dataset(prepared, gallery)} == {Unchanged}
    steps = Steps()
    again = evaluate_dataset(prepared, gallery, steps)
    assert set(steps.names) == {"coverage", "searching", "masks"}
    first, second = tmp_path / "first", tmp_path / "second"
    first.mkdir()
    second.mkdir()
    assert write_report(report, first) == write_report(again, second)
    for name in ("tables.md", "results.json", "per_query.csv"):
        assert (first / name).read_bytes() == (second / name).read_bytes()


def test_a_data_set_without_readable_images_is_refused(tmp_path: Path) -> None:
    prepared = prepare(tmp_path)
    for image in prepared.dataset.images:
        image.path.write_bytes(b"junk")
    with GalleryFile.open(prepared.gallery_path, create=True) as gallery:
        assert {type(outcome) for outcome in index_dataset(prepared, gallery)} == {Skipped}
        with pytest.raises(AnnotationsInvalid, match="none of its images can be read"):
            evaluate_dataset(prepared, gallery, no_progress)


def test_a_data_set_without_relevant_images_is_refused(
    prepared: PreparedEvaluation, gallery: GalleryFile
) -> None:
    empty = replace(prepared, dataset=replace(prepared.dataset, truth={}))
    with pytest.raises(AnnotationsInvalid, match="none of its queries has a relevant image"):
        evaluate_dataset(empty, gallery, no_progress)
