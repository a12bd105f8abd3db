"""Comparison of the paper's method with others: tables, differences, and quality over verdicts asked."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

from matir_cli.evaluation.datasets.dataset import EvalQuery
from matir_cli.evaluation.methods import PrecisionByQuery
from matir_cli.evaluation.metrics import Difference, paired_difference
from matir_cli.evaluation.reporting.tables import NO_JUDGE, Row, Table

IMAGE_LEVEL, OBJECT_LEVEL = "mAP@50", "mAP@50@50"


@dataclass(frozen=True, slots=True)
class MethodResult:
    """Average precision of one method, and what it asked the judge."""

    name: str
    stage_1: PrecisionByQuery
    """Stage 1's order; methods with the same stage 1 have the same object, which is shown once."""
    best_region: PrecisionByQuery
    """Stage 1's order and masks."""
    reranked: PrecisionByQuery | None = None
    """The judge's order; this and all following are None or empty where there is no judge."""
    boxes: PrecisionByQuery | None = None
    """The judge's order, masks from its boxes."""
    verdicts: Mapping[int, int] | None = None
    """Query id to the number of photos that the judge was asked about."""


@dataclass(frozen=True)
class CurvePoint:
    """A method at one number of verdicts."""

    candidates: int
    """Largest number of photos per query that the judge is asked about, the best of stage 1."""
    row: Row
    """The ranking in which the photos that were not judged follow in stage 1's order."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """The paper's method, which comes first, and others on the same queries."""

    methods: tuple[MethodResult, ...] = ()
    curve: tuple[CurvePoint, ...] = ()
    """Points of all methods, by method and number of verdicts."""


@dataclass(frozen=True, slots=True)
class MethodDifference:
    """A measure of one method less that of another."""

    method: str
    less: str
    """The method that is subtracted."""
    stage_1: bool
    """True for stage 1 alone, False after reranking."""
    measure: str
    overall: Difference
    by_group: Mapping[str, Difference]
    """By kind of query."""

    @property
    def name(self) -> str:
        """The difference in words."""
        return f"{self.method} − {self.less}{', stage 1' if self.stage_1 else ''}"


def comparison_tables(comparison: Comparison) -> tuple[Table, ...]:
    """Arrange the methods as tables 5 and 6, which the paper does not have; none without another method."""
    if len(comparison.methods) < 2:
        return ()
    rows: dict[str, list[Row]] = {IMAGE_LEVEL: [], OBJECT_LEVEL: []}
    for number, each in enumerate(comparison.methods):
        unjudged = NO_JUDGE if each.reranked is None else ""
        stage_1 = f"{each.name} without reranking (stage 1)"
        none_asked = dict.fromkeys(each.stage_1, 0)
        if all(each.stage_1 is not earlier.stage_1 for earlier in comparison.methods[:number]):
            rows[IMAGE_LEVEL].append(Row(stage_1, each.stage_1, verdicts=none_asked))
            rows[OBJECT_LEVEL].append(Row(stage_1, each.best_region, verdicts=none_asked))
        rows[IMAGE_LEVEL].append(Row(each.name, each.reranked, note=unjudged, verdicts=each.verdicts))
        rows[OBJECT_LEVEL].append(Row(each.name, each.boxes, note=unjudged, verdicts=each.verdicts))
    titles = {IMAGE_LEVEL: "methods, image level", OBJECT_LEVEL: "methods, object level"}
    return tuple(
        Table(number, titles[measure], measure, tuple(rows[measure]), counts_verdicts=True)
        for number, measure in enumerate(rows, start=5)
    )


def method_differences(comparison: Comparison, queries: Sequence[EvalQuery]) -> Iterator[MethodDifference]:
    """Yield the differences of every two methods: each later one less each earlier one, all four measures."""
    first_with = {id(each.stage_1): each.name for each in reversed(comparison.methods)}
    for earlier, later in combinations(comparison.methods, 2):
        for stage_1, measure, values, others in (
            (True, IMAGE_LEVEL, later.stage_1, earlier.stage_1),
            (True, OBJECT_LEVEL, later.best_region, earlier.best_region),
            (False, IMAGE_LEVEL, later.reranked, earlier.reranked),
            (False, OBJECT_LEVEL, later.boxes, earlier.boxes),
        ):
            if stage_1 and later.name != first_with[id(later.stage_1)]:
                continue
            if values is not None and others is not None:
                overall = _difference(values, others, [*values])
                by_group = {
                    group: _difference(values, others, ids) for group, ids in _groups(queries).items()
                }
                yield MethodDifference(later.name, earlier.name, stage_1, measure, overall, by_group)


def _difference(values: PrecisionByQuery, others: PrecisionByQuery, ids: Sequence[int]) -> Difference:
    return paired_difference([values[query] for query in ids], [others[query] for query in ids])


def _groups(queries: Sequence[EvalQuery]) -> dict[str, list[int]]:
    """Ids of the queries of each group, groups in order of appearance."""
    groups: dict[str, list[int]] = {}
    for query in queries:
        for group in query.groups:
            groups.setdefault(group, []).append(query.id)
    return groups
