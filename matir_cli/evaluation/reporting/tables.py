"""The paper's four tables, ours beside its figures: which row is made of what."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from matir_cli.evaluation import metrics
from matir_cli.evaluation.baselines.run import BaselineResult
from matir_cli.evaluation.baselines.vectors import CLUSTER_CLIP, CROPPING, DENSE_CLIP, WHOLE_IMAGE, Baseline
from matir_cli.evaluation.datasets.dataset import EvalQuery
from matir_cli.evaluation.methods import PrecisionByQuery
from matir_cli.evaluation.metrics import Summary
from matir_cli.evaluation.reporting import paper
from matir_cli.evaluation.reporting.paper import Figures

NO_JUDGE = "no judge was asked"

NOT_CHOSEN = "not among the baselines asked for"

NOT_IMPORTED = "no masks imported"

NOT_REFINED = "without --refine"


@dataclass(frozen=True)
class Row:
    """A method in a table."""

    method: str
    values: PrecisionByQuery | None
    """None where it was not run; `note` says why."""
    paper: Figures = paper.NONE
    note: str = ""
    theirs: bool = False
    """Only the paper has run it."""

    @cached_property
    def summary(self) -> Summary | None:
        """The mean over all queries."""
        return metrics.summarise(list(self.values.values())) if self.values else None

    def by_group(self, queries: Sequence[EvalQuery]) -> dict[str, Summary]:
        """The mean over the queries of each kind, in order of appearance."""
        groups: dict[str, list[int]] = {}
        for query in queries:
            for group in query.groups:
                groups.setdefault(group, []).append(query.id)
        values = self.values or {}
        return {
            group: metrics.summarise([values[query] for query in ids])
            for group, ids in groups.items()
            if values
        }


@dataclass(frozen=True, slots=True)
class Table:
    """One of the paper's."""

    number: int
    title: str
    measure: str
    """ "mAP@50", or "mAP@50@50" where a mask must be right as well."""
    rows: tuple[Row, ...]


@dataclass(frozen=True, slots=True)
class Segmented:
    """A segmenter's masks on our list."""

    values: PrecisionByQuery
    masks: int
    """Ranked images with a mask of it."""
    ranked: int
    """All ranked images: the list that `--export-ranking` writes."""


@dataclass(frozen=True, slots=True)
class Measured:
    """What the tables are made of."""

    contenders: Sequence[BaselineResult]
    stage_1: PrecisionByQuery
    best_region: PrecisionByQuery
    """Stage 1's masks in stage 1's order."""
    matir: PrecisionByQuery | None = None
    """From here on None where there is no judge."""
    best_region_reranked: PrecisionByQuery | None = None
    """Stage 1's masks in the judge's order."""
    boxes: PrecisionByQuery | None = None
    """Masks by the judge's boxes."""
    refined: PrecisionByQuery | None = None
    """The same with `--refine`."""
    imported: Mapping[str, Segmented] | None = None
    """By the segmenter's name."""


def paper_tables(measured: Measured) -> tuple[Table, ...]:
    """Tables 1 to 4."""
    unjudged = NO_JUDGE if measured.matir is None else ""
    stage_1 = Row("MaTIR without reranking (stage 1)", measured.stage_1, paper.STAGE_1)
    boxes = Row("judge's box + mask matching (MaTIR)", measured.boxes, paper.MATIR_MASKS, unjudged)
    image_level = (
        Row("CLIP RN50x64, whole image", None, paper.CLIP_RN50X64, "see --clip", theirs=True),
        *_baselines(measured, WHOLE_IMAGE, paper.CLIP_VIT_L14),
        *_baselines(measured, DENSE_CLIP, paper.DENSE_CLIP),
        *_baselines(measured, CLUSTER_CLIP, paper.CLUSTER_CLIP),
        stage_1,
        Row("MaTIR", measured.matir, paper.MATIR, unjudged),
    )
    order = "stage 1's best region, {} order"
    return (
        Table(1, "image level", "mAP@50", image_level),
        Table(2, "object level", "mAP@50@50", tuple(_segmenters(measured, unjudged))),
        Table(
            *(3, "region features, without reranking", "mAP@50"),
            (*_baselines(measured, CROPPING, paper.CROPPING), Row("Alpha-CLIP regions", *_plain(stage_1))),
        ),
        Table(
            *(4, "localisation", "mAP@50@50"),
            (
                Row(order.format("stage 1's"), measured.best_region, paper.BEST_REGION),
                Row(
                    *(order.format("reranked"), measured.best_region_reranked),
                    *(paper.BEST_REGION, unjudged),
                ),
                boxes,
            ),
        ),
    )


def _plain(row: Row) -> tuple[PrecisionByQuery | None, Figures]:
    return row.values, row.paper


def _baselines(measured: Measured, baseline: Baseline, figures: Figures) -> Iterator[Row]:
    """A row an encoder; the paper's figure stands beside the first, the model set's own."""
    found = [each for each in measured.contenders if each.baseline is baseline]
    if not found:
        yield Row(baseline.name, None, figures, NOT_CHOSEN)
    for place, each in enumerate(found):
        yield Row(f"{baseline.name} ({each.encoder})", each.values, paper.NONE if place else figures)


def _segmenters(measured: Measured, unjudged: str) -> Iterator[Row]:
    """The paper's, those that were imported, and ours."""
    left = dict(measured.imported or {})
    for name, figures in paper.SEGMENTERS.items():
        known = next((given for given in left if given.casefold() == name.casefold()), None)
        if known is None:
            yield Row(name, None, figures, NOT_IMPORTED, theirs=True)
        else:
            yield _segmenter(name, left.pop(known), figures)
    for name, segmented in left.items():
        yield _segmenter(name, segmented, paper.NONE)
    yield Row("MaTIR", measured.boxes, paper.MATIR_MASKS, unjudged)
    yield Row(
        "MaTIR with --refine", measured.refined, note="" if measured.refined else unjudged or NOT_REFINED
    )


def _segmenter(name: str, segmented: Segmented, figures: Figures) -> Row:
    note = f"masks in {segmented.masks:,} of {segmented.ranked:,} ranked images"
    return Row(name, segmented.values, figures, note)


@dataclass(frozen=True)
class AblationRow:
    """The method at one setting."""

    setting: str
    stage_1: Row
    matir: Row
    boxes: Row


@dataclass(frozen=True, slots=True)
class AblationTable:
    """What one setting does."""

    ablation: str
    rows: tuple[AblationRow, ...]
    """The setting that everything else was run with comes first."""
