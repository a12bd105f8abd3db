"""Records of `results.json`: all figures of an evaluation, for programs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from matir_cli.evaluation.coverage import IOU_LEVELS
from matir_cli.evaluation.datasets.dataset import EvalQuery
from matir_cli.evaluation.metrics import Summary
from matir_cli.evaluation.reporting.comparison import CurvePoint, MethodDifference
from matir_cli.evaluation.reporting.paper import PaperFigures
from matir_cli.evaluation.reporting.provenance import Provenance
from matir_cli.evaluation.reporting.tables import AblationTable, Row, Table
from matir_cli.evaluation.run import EvaluationOutcome


@dataclass(frozen=True, slots=True)
class DatasetRecord:
    """The data set that was evaluated."""

    name: str
    images: int
    queries: int
    queries_with_a_relevant_image: int
    """Number of queries that the means are over."""
    annotations_sha256: str
    """Hash of the annotations, hex."""
    notes: tuple[str, ...]
    """Remarks on the data set, the run and the models."""


@dataclass(frozen=True, slots=True)
class RowRecord:
    """A method in a table."""

    method: str
    summary: Summary | None
    """Left out where only the paper has figures."""
    verdicts_per_query: float | None
    """Mean number of photos per query that the judge was asked about; left out where it was not asked."""
    by_group: Mapping[str, Summary]
    """By kind of query."""
    paper: PaperFigures
    note: str


@dataclass(frozen=True, slots=True)
class TableRecord:
    """A table: methods by one measure."""

    number: int
    title: str
    measure: str
    """mAP@50, or mAP@50@50 where a mask must be right as well."""
    rows: tuple[RowRecord, ...]


@dataclass(frozen=True, slots=True)
class CurveRecord:
    """A method at one number of verdicts."""

    method: str
    candidates: int
    """Largest number of photos per query that the judge is asked about."""
    verdicts_per_query: float | None
    summary: Summary | None
    """By mAP@50."""


@dataclass(frozen=True, slots=True)
class SettingRecord:
    """A setting of an ablation."""

    setting: str
    stage_1: Summary | None
    """By mAP@50, before reranking."""
    matir: Summary | None
    """By mAP@50."""
    boxes: Summary | None
    """By mAP@50@50, masks from the judge's boxes."""


@dataclass(frozen=True, slots=True)
class AblationRecord:
    """An ablation: one setting per row, the first of which is the base."""

    ablation: str
    rows: tuple[SettingRecord, ...]


@dataclass(frozen=True, slots=True)
class CoverageRecord:
    """Annotated objects for which the proposer has a region."""

    objects: int
    covered: Mapping[str, int]
    """Least IoU to the number of objects."""


@dataclass(frozen=True, slots=True)
class ResultsRecord:
    """The figures of an evaluation: means of average precision, 0..1, and the paper's, in per cent."""

    dataset: DatasetRecord
    settings: Mapping[str, str]
    models: Mapping[str, str]
    """Part of the model set to name, hash of the weights and options."""
    versions: Mapping[str, str]
    """Package to version."""
    tables: tuple[TableRecord, ...]
    differences: tuple[MethodDifference, ...]
    verdicts: tuple[CurveRecord, ...]
    """Quality over verdicts asked."""
    ablations: tuple[AblationRecord, ...]
    coverage: CoverageRecord
    boxes_in_relevant_images: Mapping[str, int]
    """Outcome of grounding to the number of relevant images."""


def results_record(
    dataset: DatasetRecord,
    queries: Sequence[EvalQuery],
    outcome: EvaluationOutcome,
    provenance: Provenance,
    differences: Sequence[MethodDifference],
) -> ResultsRecord:
    """Make the record of an evaluation.

    Args:
        queries: those that the means are over.
    """
    coverage = outcome.coverage
    covered = {str(level): n for level, n in zip(IOU_LEVELS, coverage.covered, strict=True)}
    return ResultsRecord(
        dataset=dataset,
        settings=dict(provenance.settings),
        models=dict(provenance.models),
        versions=dict(provenance.versions),
        tables=tuple(_table(table, queries) for table in outcome.tables),
        differences=(*differences,),
        verdicts=tuple(map(_curve, outcome.comparison.curve)),
        ablations=tuple(map(_ablation, outcome.ablations)),
        coverage=CoverageRecord(coverage.objects, covered),
        boxes_in_relevant_images=dict(outcome.groundings),
    )


def _table(table: Table, queries: Sequence[EvalQuery]) -> TableRecord:
    rows = tuple(_row(row, queries) for row in table.rows)
    return TableRecord(table.number, table.title, table.measure, rows)


def _row(row: Row, queries: Sequence[EvalQuery]) -> RowRecord:
    by_group = row.by_group(queries) if row.values else {}
    return RowRecord(row.method, row.summary, row.verdicts_per_query, by_group, row.paper, row.note)


def _curve(point: CurvePoint) -> CurveRecord:
    row = point.row
    return CurveRecord(row.method, point.candidates, row.verdicts_per_query, row.summary)


def _ablation(table: AblationTable) -> AblationRecord:
    rows = (
        SettingRecord(row.setting, row.stage_1.summary, row.matir.summary, row.boxes.summary)
        for row in table.rows
    )
    return AblationRecord(table.ablation, tuple(rows))
