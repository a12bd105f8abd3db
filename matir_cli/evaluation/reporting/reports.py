"""An evaluation's result as Markdown for people, JSON for programs and CSV for spreadsheets."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from matir_cli.atomic_write import atomic_write
from matir_cli.evaluation import metrics
from matir_cli.evaluation.coverage import LEVELS
from matir_cli.evaluation.datasets.dataset import Dataset, EvalQuery
from matir_cli.evaluation.metrics import Summary
from matir_cli.evaluation.reporting.tables import AblationTable, Row, Table
from matir_cli.evaluation.run import EvaluationOutcome
from matir_cli.output.printable import printable

_NOTHING = "–"

_TEXTS = ("method", "setting", "measure", "note")

PAPER_SETS = {"coco": ("COCO",), "d3": ("D3",), "world": ("COCO", "D3")}
"""Data set to the paper's figures that are shown beside its own."""


@dataclass(frozen=True, slots=True)
class Report:
    """A result with all that it depends on."""

    dataset: Dataset
    asked: tuple[EvalQuery, ...]
    """The queries that the means are over."""
    outcome: EvaluationOutcome
    settings: Mapping[str, str]
    """What a person needs to get the same figures again."""
    models: Mapping[str, str]
    """Part to name, hash of the weights and options."""
    versions: Mapping[str, str]
    """Package to version."""
    notes: tuple[str, ...]
    """What a reader should know, each a sentence without its full stop."""


def write_report(report: Report, folder: Path) -> str:
    """Write `tables.md`, `results.json` and `per_query.csv` into `folder`, replacing earlier ones.

    Returns:
        The Markdown.

    Raises:
        OutputError: they cannot be written.
    """
    text = report_markdown(report)
    with atomic_write(folder / "tables.md", force=True) as temporary:
        temporary.write_text(text, encoding="utf-8")
    with atomic_write(folder / "results.json", force=True) as temporary:
        temporary.write_bytes(msgspec.json.format(msgspec.json.encode(_values(report)), indent=1))
    with (
        atomic_write(folder / "per_query.csv", force=True) as temporary,
        temporary.open("w", encoding="utf-8", newline="") as stream,
    ):
        csv.writer(stream).writerows(_lines(report))
    return text


# Markdown
def report_markdown(report: Report) -> str:
    """The tables with the paper's figures beside them, then what produced them."""
    data, outcome = report.dataset, report.outcome
    lines = [
        f"# Evaluation on {_cell(data.name)}",
        "",
        f"Images: {len(data.images):,}. Queries: {len(data.queries):,}, of which {len(report.asked):,} "
        "have a relevant image and count. In per cent; each figure with the interval that holds "
        f"{metrics.LEVEL:.0%} of {metrics.SAMPLES:,} bootstrap means over queries. AP is divided by "
        "min(50, R); in the columns “by hits” by the hits among the first 50 instead.",
    ]
    lines += [f"\n> {_cell(note)}." for note in (*data.notes, *report.notes)]
    shown = PAPER_SETS.get(data.name, ())
    for table in outcome.tables:
        lines += ["", *_table(table, shown)]
    lines += ["", *_coverage(outcome)]
    groups = list(dict.fromkeys(group for query in report.asked for group in query.groups))
    if groups:
        lines += ["", *_by_group(outcome.tables, report.asked, groups)]
    for ablation in outcome.ablations:
        lines += ["", *_ablation(ablation)]
    lines += ["", "## What produced this", ""]
    for part in (report.settings, report.models, report.versions):
        lines += [f"- {_cell(name)}: {_cell(value)}" for name, value in part.items()]
    lines.append(f"- annotations: SHA-256 {data.digest}")
    return "\n".join(lines) + "\n"


def _table(table: Table, shown: Sequence[str]) -> Iterator[str]:
    yield f"## Table {table.number}: {table.title}, {table.measure}"
    yield ""
    papers = [f"paper, {name}" for name in shown]
    rows = [row for row in table.rows if shown or not row.theirs]
    notes = any(row.note for row in rows)
    yield from _head(["method", table.measure, "by hits", *papers, *(["note"] if notes else [])])
    for row in rows:
        figures = {"COCO": row.paper.coco, "D3": row.paper.d3}
        cells = [_cell(row.method), *_measured(row.summary)]
        cells += [f"{figures[name]:.2f}" if figures[name] is not None else _NOTHING for name in shown]
        yield _row([*cells, *([row.note] if notes else [])])


def _measured(summary: Summary | None) -> tuple[str, str]:
    if summary is None:
        return _NOTHING, _NOTHING
    pairs = (
        (summary.mean_by_relevant, summary.interval),
        (summary.mean_by_hits, summary.interval_by_hits),
    )
    first, second = (f"{mean:.2%} ({each.low:.1%}–{each.high:.1%})".replace("%", "") for mean, each in pairs)
    return first, second


def _coverage(outcome: EvaluationOutcome) -> Iterator[str]:
    yield "## Masks"
    yield ""
    covered = outcome.coverage
    for level, count in zip(LEVELS, covered.covered, strict=True):
        share = count / covered.objects if covered.objects else 0.0
        yield (
            f"- proposer: {share:.1%} of {covered.objects:,} annotated objects have a stored region "
            f"with an IoU of at least {level}"
        )
    total = sum(outcome.groundings.values())
    for word, count in sorted(outcome.groundings.items()):
        yield f"- judge's box in relevant images: {word} in {count / total:.1%} of {total:,}"


def _by_group(tables: Sequence[Table], asked: Sequence[EvalQuery], groups: Sequence[str]) -> Iterator[str]:
    yield "## By kind of query"
    yield ""
    counts = [sum(group in query.groups for query in asked) for group in groups]
    heads = [f"{_cell(group)} ({count})" for group, count in zip(groups, counts, strict=True)]
    yield from _head(["method", "measure", *heads])
    for table, row in _distinct(tables):
        found = row.by_group(asked)
        cells = [f"{100 * found[group].mean_by_relevant:.2f}" for group in groups]
        yield _row([_cell(row.method), table.measure, *cells])


def _ablation(table: AblationTable) -> Iterator[str]:
    yield f"## Ablation: {table.ablation}"
    yield ""
    yield from _head(["setting", "stage 1, mAP@50", "mAP@50", "mAP@50@50"])
    for row in table.rows:
        cells = [_measured(each.summary)[0] for each in (row.stage_1, row.matir, row.boxes)]
        yield _row([_cell(row.setting), *cells])


def _distinct(tables: Sequence[Table]) -> Iterator[tuple[Table, Row]]:
    """Each row that was run, once: some stand in two tables."""
    seen: set[int] = set()
    for table in tables:
        for row in table.rows:
            if row.values and id(row.values) not in seen:
                seen.add(id(row.values))
                yield table, row


def _head(cells: Sequence[str]) -> Iterator[str]:
    """The names of the columns; all but texts are aligned to the right."""
    yield _row(cells)
    yield _row([":--" if cell in _TEXTS else "--:" for cell in cells])


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _cell(text: str) -> str:
    """A stranger's text, harmless for a terminal and for a table."""
    return printable(text).replace("|", "\\|")


# JSON and CSV
def _values(report: Report) -> dict[str, object]:
    outcome, data = report.outcome, report.dataset
    return {
        "dataset": {
            "name": data.name,
            "images": len(data.images),
            "queries": len(data.queries),
            "queries_with_a_relevant_image": len(report.asked),
            "annotations_sha256": data.digest,
            "notes": [*data.notes, *report.notes],
        },
        "settings": report.settings,
        "models": report.models,
        "versions": report.versions,
        "tables": [
            {
                "number": table.number,
                "title": table.title,
                "measure": table.measure,
                "rows": [_row_values(row, report.asked) for row in table.rows],
            }
            for table in outcome.tables
        ],
        "ablations": [
            {
                "ablation": table.ablation,
                "rows": [
                    {
                        "setting": row.setting,
                        "stage_1": row.stage_1.summary,
                        "mAP@50": row.matir.summary,
                        "mAP@50@50": row.boxes.summary,
                    }
                    for row in table.rows
                ],
            }
            for table in outcome.ablations
        ],
        "coverage": {
            "objects": outcome.coverage.objects,
            **{f"iou_{level}": n for level, n in zip(LEVELS, outcome.coverage.covered, strict=True)},
        },
        "boxes_in_relevant_images": outcome.groundings,
    }


def _row_values(row: Row, asked: Sequence[EvalQuery]) -> dict[str, object]:
    return {
        "method": row.method,
        "summary": row.summary,
        "by_group": row.by_group(asked) if row.values else {},
        "paper": row.paper,
        "note": row.note,
    }


def _lines(report: Report) -> Iterator[Sequence[object]]:
    """One line a query and method."""
    yield ("query_id", "query", "groups", "relevant_images", "measure", "method", "ap", "ap_by_hits")
    rows = list(_distinct(report.outcome.tables))
    for query in report.asked:
        known = query.id, query.text, ";".join(query.groups), len(report.dataset.relevant(query.id))
        for table, row in rows:
            value = (row.values or {})[query.id]
            yield (*known, table.measure, row.method, value.by_relevant, value.by_hits)
