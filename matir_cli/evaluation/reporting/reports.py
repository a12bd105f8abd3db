"""Report files: Markdown for people, JSON for programs, CSV for spreadsheets."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from matir_cli.atomic_write import atomic_write
from matir_cli.evaluation import metrics
from matir_cli.evaluation.coverage import IOU_LEVELS
from matir_cli.evaluation.datasets.dataset import Dataset, EvalQuery
from matir_cli.evaluation.metrics import Difference, Summary
from matir_cli.evaluation.reporting.comparison import Comparison, method_differences
from matir_cli.evaluation.reporting.paper import NONE
from matir_cli.evaluation.reporting.provenance import Provenance
from matir_cli.evaluation.reporting.result_records import DatasetRecord, ResultsRecord, results_record
from matir_cli.evaluation.reporting.tables import AblationTable, Row, Table
from matir_cli.evaluation.run import EvaluationOutcome
from matir_cli.output.json_encoding import to_json
from matir_cli.output.printable import printable

_NO_FIGURE = "–"

_TEXT_COLUMNS = ("method", "setting", "difference", "measure", "note")

PAPER_SETS = {"coco": ("COCO",), "d3": ("D3",), "world": ("COCO", "D3")}
"""Name of a data set to the data sets of the paper whose figures are shown beside ours."""


@dataclass(frozen=True, slots=True)
class Report:
    """The results of an evaluation and everything that they depend on."""

    dataset: Dataset
    queries: tuple[EvalQuery, ...]
    """The queries that the means are over: those with a relevant image."""
    outcome: EvaluationOutcome
    provenance: Provenance
    unreadable_images: int = 0
    """Number of images that could not be read and count as not found."""

    @property
    def notes(self) -> tuple[str, ...]:
        """Remarks for the reader, sentences without a full stop: on the data set, the run, the models."""
        notes = [*self.dataset.notes]
        if self.unreadable_images:
            notes.append(f"images that could not be read and count as not found: {self.unreadable_images}")
        if self.outcome.truncated_queries:
            notes.append(
                f"queries cut off at the length that the encoder reads: {self.outcome.truncated_queries}"
            )
        if names := self.outcome.unanswered:
            listed = ", ".join(names[:5]) + (" and others" if len(names) > 5 else "")
            notes.append(f"images about which the judge could not answer: {len(names)} ({listed})")
        return (*notes, *self.provenance.notes)


def write_report(report: Report, folder: Path) -> str:
    """Write `tables.md`, `results.json` and `per_query.csv` into `folder`, replacing earlier ones.

    Returns:
        The Markdown.

    Raises:
        OutputError: a file cannot be written.
    """
    text = report_markdown(report)
    with atomic_write(folder / "tables.md", force=True) as temporary:
        temporary.write_text(text, encoding="utf-8")
    with atomic_write(folder / "results.json", force=True) as temporary:
        temporary.write_text(msgspec.json.format(to_json(_results(report)), indent=1))
    with (
        atomic_write(folder / "per_query.csv", force=True) as temporary,
        temporary.open("w", encoding="utf-8", newline="") as stream,
    ):
        csv.writer(stream).writerows(_csv_lines(report))
    return text


# Markdown
def report_markdown(report: Report) -> str:
    """Render the tables with the paper's figures beside ours, then what produced them."""
    data, outcome, provenance = report.dataset, report.outcome, report.provenance
    lines = [
        f"# Evaluation on {_cell(data.name)}",
        "",
        f"Images: {len(data.images):,}. Queries: {len(data.queries):,}, of which {len(report.queries):,} "
        "have a relevant image and count. In per cent; each figure with the interval that holds "
        f"{metrics.CONFIDENCE:.0%} of {metrics.BOOTSTRAP_SAMPLES:,} bootstrap means over queries. AP "
        "is divided by min(50, R); in the columns “by hits” by the hits among the first 50 instead.",
    ]
    lines += [f"\n> {_cell(note)}." for note in report.notes]
    paper_sets = PAPER_SETS.get(data.name, ())
    for table in outcome.tables:
        lines += ["", *_table(table, paper_sets)]
    lines += ["", *_coverage(outcome)]
    groups = list(dict.fromkeys(group for query in report.queries for group in query.groups))
    if groups:
        lines += ["", *_by_group(outcome.tables, report.queries, groups)]
    if len(outcome.comparison.methods) > 1:
        lines += ["", *_differences(outcome.comparison, report.queries, groups)]
    if outcome.comparison.curve:
        lines += ["", *_curve(outcome.comparison)]
    for ablation in outcome.ablations:
        lines += ["", *_ablation(ablation)]
    lines += ["", "## What produced this", ""]
    for part in (provenance.settings, provenance.models, provenance.versions):
        lines += [f"- {_cell(name)}: {_cell(value)}" for name, value in part.items()]
    lines.append(f"- annotations: SHA-256 {data.digest}")
    return "\n".join(lines) + "\n"


def _table(table: Table, paper_sets: Sequence[str]) -> Iterator[str]:
    yield f"## Table {table.number}: {table.title}, {table.measure}"
    yield ""
    if not any(row.paper != NONE for row in table.rows):
        paper_sets = ()
    paper_columns = [f"paper, {name}" for name in paper_sets]
    rows = [row for row in table.rows if paper_sets or not row.paper_only]
    has_notes = any(row.note for row in rows)
    verdicts = ["verdicts per query"] if table.counts_verdicts else []
    notes = ["note"] if has_notes else []
    yield from _head(["method", *verdicts, table.measure, "by hits", *paper_columns, *notes])
    for row in rows:
        figures = {"COCO": row.paper.coco, "D3": row.paper.d3}
        cells = [_cell(row.method), *([_verdicts(row)] if verdicts else []), *_summary_cells(row.summary)]
        cells += [f"{figures[name]:.2f}" if figures[name] is not None else _NO_FIGURE for name in paper_sets]
        yield _row([*cells, *([row.note] if has_notes else [])])


def _summary_cells(summary: Summary | None) -> tuple[str, str]:
    """The means by relevant images and by hits, each with its interval, in per cent."""
    if summary is None:
        return _NO_FIGURE, _NO_FIGURE
    pairs = (
        (summary.mean_by_relevant, summary.interval),
        (summary.mean_by_hits, summary.interval_by_hits),
    )
    first, second = (f"{mean:.2%} ({each.low:.1%}–{each.high:.1%})".replace("%", "") for mean, each in pairs)
    return first, second


def _verdicts(row: Row) -> str:
    """The mean number of verdicts per query."""
    return _NO_FIGURE if row.verdicts_per_query is None else f"{row.verdicts_per_query:.1f}"


def _coverage(outcome: EvaluationOutcome) -> Iterator[str]:
    yield "## Masks"
    yield ""
    coverage = outcome.coverage
    for level, count in zip(IOU_LEVELS, coverage.covered, strict=True):
        share = count / coverage.objects if coverage.objects else 0.0
        yield (
            f"- proposer: {share:.1%} of {coverage.objects:,} annotated objects have a stored region "
            f"with an IoU of at least {level}"
        )
    total = sum(outcome.groundings.values())
    for word, count in sorted(outcome.groundings.items()):
        yield f"- judge's box in relevant images: {word} in {count / total:.1%} of {total:,}"


def _by_group(tables: Sequence[Table], queries: Sequence[EvalQuery], groups: Sequence[str]) -> Iterator[str]:
    yield "## By kind of query"
    yield ""
    counts = [sum(group in query.groups for query in queries) for group in groups]
    heads = [f"{_cell(group)} ({count})" for group, count in zip(groups, counts, strict=True)]
    yield from _head(["method", "measure", *heads])
    for table, row in _distinct(tables):
        summaries = row.by_group(queries)
        cells = [f"{100 * summaries[group].mean_by_relevant:.2f}" for group in groups]
        yield _row([_cell(row.method), table.measure, *cells])


def _differences(
    comparison: Comparison, queries: Sequence[EvalQuery], groups: Sequence[str]
) -> Iterator[str]:
    yield "## Differences between methods"
    yield ""
    yield (
        f"In points, each with the interval that holds {metrics.CONFIDENCE:.0%} of the bootstrap means of "
        "the differences per query."
    )
    yield ""
    yield from _head(["difference", "measure", "all", *map(_cell, groups)])
    for each in method_differences(comparison, queries):
        cells = [_difference(each.overall), *(_difference(each.by_group[group]) for group in groups)]
        yield _row([_cell(each.name), each.measure, *cells])


def _difference(value: Difference) -> str:
    low, high = 100 * value.interval.low, 100 * value.interval.high
    return f"{100 * value.mean:+.1f} ({low:.1f} to {high:.1f})"


def _curve(comparison: Comparison) -> Iterator[str]:
    yield "## Quality over verdicts asked"
    yield ""
    yield "The judge is asked about the best N_C photos; the others follow in the order of stage 1."
    yield ""
    yield from _head(["method", "N_C", "verdicts per query", "mAP@50"])
    for point in comparison.curve:
        figures = _summary_cells(point.row.summary)[0]
        yield _row([_cell(point.row.method), str(point.candidates), _verdicts(point.row), figures])


def _ablation(table: AblationTable) -> Iterator[str]:
    yield f"## Ablation: {table.ablation}"
    yield ""
    yield from _head(["setting", "stage 1, mAP@50", "mAP@50", "mAP@50@50"])
    for row in table.rows:
        cells = [_summary_cells(each.summary)[0] for each in (row.stage_1, row.matir, row.boxes)]
        yield _row([_cell(row.setting), *cells])


def _distinct(tables: Sequence[Table]) -> Iterator[tuple[Table, Row]]:
    """Yield each row that was run once, with its table; some rows stand in two tables."""
    seen: set[int] = set()
    for table in tables:
        for row in table.rows:
            if row.values and id(row.values) not in seen:
                seen.add(id(row.values))
                yield table, row


def _head(cells: Sequence[str]) -> Iterator[str]:
    """Column names and alignment; figures are aligned to the right."""
    yield _row(cells)
    yield _row([":--" if cell in _TEXT_COLUMNS else "--:" for cell in cells])


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _cell(text: str) -> str:
    """Make untrusted text safe for a terminal and for a Markdown table."""
    return printable(text).replace("|", "\\|")


# JSON and CSV
def _results(report: Report) -> ResultsRecord:
    data = report.dataset
    dataset = DatasetRecord(
        data.name, len(data.images), len(data.queries), len(report.queries), data.digest, report.notes
    )
    differences = [*method_differences(report.outcome.comparison, report.queries)]
    return results_record(dataset, report.queries, report.outcome, report.provenance, differences)


def _csv_lines(report: Report) -> Iterator[Sequence[object]]:
    """One CSV line per query and method, after a header line."""
    columns = "query_id", "query", "groups", "relevant_images", "measure", "method", "ap", "ap_by_hits"
    yield (*columns, "verdicts")
    rows = list(_distinct(report.outcome.tables))
    # A row that stands in two tables has its verdicts in one.
    asked = {
        id(row.values): row.verdicts for table in report.outcome.tables for row in table.rows if row.verdicts
    }
    for query in report.queries:
        relevant = report.dataset.relevant_images(query.id)
        start = query.id, query.text, ";".join(query.groups), len(relevant)
        for table, row in rows:
            value = (row.values or {})[query.id]
            verdicts = asked[id(row.values)][query.id] if id(row.values) in asked else ""
            yield (*start, table.measure, row.method, value.by_relevant, value.by_hits, verdicts)
