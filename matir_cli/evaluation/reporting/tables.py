"""The paper's four tables with our figures and the paper's side by side.

Tables of methods that are not the paper's are in `comparison`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from matir_cli.evaluation import metrics
from matir_cli.evaluation.baselines.clip import CLUSTER_CLIP, CROPPING, DENSE_CLIP, WHOLE_IMAGE, Baseline
from matir_cli.evaluation.baselines.retrieval import BaselineResult
from matir_cli.evaluation.datasets.dataset import EvalQuery
from matir_cli.evaluation.methods import PrecisionByQuery
from matir_cli.evaluation.metrics import Summary
from matir_cli.evaluation.reporting import paper
from matir_cli.evaluation.reporting.paper import PaperFigures

NO_JUDGE = "no judge was asked"

NOT_CHOSEN = "not among the baselines asked for"

NOT_IMPORTED = "no masks imported"

NOT_REFINED = "without --refine"


@dataclass(frozen=True)
class Row:
    """A method in a table."""

    method: str
    values: PrecisionByQuery | None
    """None where the method was not run; `note` says why."""
    paper: PaperFigures = paper.NONE
    note: str = ""
    paper_only: bool = False
    """True if only the paper has run this method."""
    verdicts: Mapping[int, int] | None = None
    """Query id to the number of photos that the judge was asked about; None where that does not apply."""

    @cached_property
    def summary(self) -> Summary | None:
        """The mean over all queries; None where the method was not run."""
        return metrics.summarise(list(self.values.values())) if self.values else None

    @property
    def verdicts_per_query(self) -> float | None:
        """Mean number of photos that the judge was asked about."""
        return sum(self.verdicts.values()) / len(self.verdicts) if self.verdicts else None

    def by_group(self, queries: Sequence[EvalQuery]) -> dict[str, Summary]:
        """The mean over the queries of each group, groups in order of appearance."""
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
    """One of the paper's tables."""

    number: int
    title: str
    measure: str
    """ "mAP@50", or "mAP@50@50" where a mask must be right as well."""
    rows: tuple[Row, ...]
    counts_verdicts: bool = False
    """True if the number of verdicts asked per query is shown."""


@dataclass(frozen=True, slots=True)
class SegmenterResult:
    """Another segmenter's masks, scored on our ranking."""

    values: PrecisionByQuery
    masks: int
    """Number of ranked images with a mask of this segmenter."""
    ranked_images: int
    """Number of all ranked images: the lines that `--export-ranking` writes."""


@dataclass(frozen=True, slots=True)
class Measurements:
    """Average precisions that the tables are made of."""

    baselines: Sequence[BaselineResult]
    stage_1: PrecisionByQuery
    best_region: PrecisionByQuery
    """Stage 1's masks in stage 1's order."""
    matir: PrecisionByQuery | None = None
    """The judge's order; this and all following are None where there is no judge."""
    best_region_reranked: PrecisionByQuery | None = None
    """Stage 1's masks in the judge's order."""
    boxes: PrecisionByQuery | None = None
    """Masks from the judge's boxes, in the judge's order."""
    refined: PrecisionByQuery | None = None
    """The same with `--refine`."""
    imported: Mapping[str, SegmenterResult] | None = None
    """By the segmenter's name."""


def paper_tables(measurements: Measurements) -> tuple[Table, ...]:
    """Arrange the measurements as tables 1 to 4."""
    unjudged = NO_JUDGE if measurements.matir is None else ""
    stage_1 = Row("MaTIR without reranking (stage 1)", measurements.stage_1, paper.STAGE_1)
    boxes = Row("judge's box + mask matching (MaTIR)", measurements.boxes, paper.MATIR_MASKS, unjudged)
    image_level = (
        Row("CLIP RN50x64, whole image", None, paper.CLIP_RN50X64, "see --clip", paper_only=True),
        *_baselines(measurements, WHOLE_IMAGE, paper.CLIP_VIT_L14),
        *_baselines(measurements, DENSE_CLIP, paper.DENSE_CLIP),
        *_baselines(measurements, CLUSTER_CLIP, paper.CLUSTER_CLIP),
        stage_1,
        Row("MaTIR", measurements.matir, paper.MATIR, unjudged),
    )
    region_features = (
        *_baselines(measurements, CROPPING, paper.CROPPING),
        Row("Alpha-CLIP regions", stage_1.values, stage_1.paper),
    )
    best_region = "stage 1's best region, {} order"
    localisation = (
        Row(best_region.format("stage 1's"), measurements.best_region, paper.BEST_REGION),
        Row(
            *(best_region.format("reranked"), measurements.best_region_reranked),
            *(paper.BEST_REGION, unjudged),
        ),
        boxes,
    )
    return (
        Table(1, "image level", "mAP@50", image_level),
        Table(2, "object level", "mAP@50@50", tuple(_segmenters(measurements, unjudged))),
        Table(3, "region features, without reranking", "mAP@50", region_features),
        Table(4, "localisation", "mAP@50@50", localisation),
    )


def _baselines(measurements: Measurements, baseline: Baseline, figures: PaperFigures) -> Iterator[Row]:
    """One row per encoder; the paper's figures stand in the first, that of the model set's own encoder."""
    results = [each for each in measurements.baselines if each.baseline is baseline]
    if not results:
        yield Row(baseline.name, None, figures, NOT_CHOSEN)
    for index, each in enumerate(results):
        yield Row(f"{baseline.name} ({each.encoder})", each.values, paper.NONE if index else figures)


def _segmenters(measurements: Measurements, unjudged: str) -> Iterator[Row]:
    """The paper's segmenters, then other imported ones, then MaTIR."""
    imported = dict(measurements.imported or {})
    for name, figures in paper.SEGMENTERS.items():
        known = next((given for given in imported if given.casefold() == name.casefold()), None)
        if known is None:
            yield Row(name, None, figures, NOT_IMPORTED, paper_only=True)
        else:
            yield _segmenter(name, imported.pop(known), figures)
    for name, result in imported.items():
        yield _segmenter(name, result, paper.NONE)
    yield Row("MaTIR", measurements.boxes, paper.MATIR_MASKS, unjudged)
    yield Row(
        "MaTIR with --refine",
        measurements.refined,
        note="" if measurements.refined else unjudged or NOT_REFINED,
    )


def _segmenter(name: str, result: SegmenterResult, figures: PaperFigures) -> Row:
    note = f"masks in {result.masks:,} of {result.ranked_images:,} ranked images"
    return Row(name, result.values, figures, note)


@dataclass(frozen=True)
class AblationRow:
    """The method at one setting."""

    setting: str
    stage_1: Row
    matir: Row
    """The judge's ranking."""
    boxes: Row
    """The judge's ranking with masks from its boxes."""


@dataclass(frozen=True, slots=True)
class AblationTable:
    """The method at several values of one setting."""

    ablation: str
    rows: tuple[AblationRow, ...]
    """The setting of all other tables comes first."""
