"""The evaluation of one model set on one data set, from an indexed gallery to the tables.

    baselines -> stage 1 -> stage 2, photo by photo -> rankings and masks -> average precision

Whatever took time is stored as it comes (vectors and verdicts in the gallery, baselines' scores
beside it), so that a stopped evaluation, or one with another option, computes only what is new.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from matir_cli import find, weights
from matir_cli.answers import Matching
from matir_cli.catalogue import ModelSet
from matir_cli.evaluation import ablations, contenders, coverage, methods, metrics, tables
from matir_cli.evaluation.ablations import Laboratory, Variant
from matir_cli.evaluation.baselines import BASELINES, Baseline
from matir_cli.evaluation.choices import Ablation
from matir_cli.evaluation.contenders import Contest
from matir_cli.evaluation.coverage import Coverage
from matir_cli.evaluation.dataset import EvalQuery
from matir_cli.evaluation.external import Imported
from matir_cli.evaluation.methods import Bench, BoxMasks, Method, Predicted, Rooms, Values
from matir_cli.evaluation.scores import ScoreStore
from matir_cli.evaluation.tables import AblationRow, AblationTable, Measured, Row, Segmented, Table
from matir_cli.loading import Engines
from matir_cli.records import Rle
from matir_cli.rerank import Judged
from matir_cli.watch import Watch

BEST_FIT = Matching(min_iou=0.0)
"""The paper's matching: the stored region that fits the judge's box best, however badly. In a table a wrong
mask costs no more than none; `find`, whose users see the masks, asks for an IoU of 0.5."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What to run."""

    candidates: int = find.CANDIDATES
    """N_C."""
    keep: int = find.KEEP
    """N_K."""
    judge: bool = True
    """False: stage 1 alone."""
    refine: bool = False
    """A row with masks asked of the proposer where no stored region fits."""
    baselines: tuple[Baseline, ...] = BASELINES
    clips: tuple[ModelSet, ...] = ()
    """Whose encoders the baselines are also run with."""
    ablations: tuple[Ablation, ...] = ()
    imported: tuple[Imported, ...] = ()
    all_masks: bool = False
    """Make a mask in every ranked image, not in the relevant ones alone: for export."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What an evaluation came to."""

    tables: tuple[Table, ...]
    ablations: tuple[AblationTable, ...]
    coverage: Coverage
    groundings: Mapping[str, int]
    """How the judge's boxes became masks in relevant images, by the words of `answers`."""
    truncated: int
    """Queries that the encoder did not read to their end."""
    rankings: Mapping[int, Sequence[int]]
    """Query id to image ids: the judge's order, or stage 1's where there is no judge."""
    predicted: Mapping[int, Predicted]
    """The masks in them."""


def evaluate(
    bench: Bench,
    engines: Engines,
    plan: Plan,
    objects: Mapping[int, Sequence[Rle]],
    folder: Path,
    watch: Watch,
) -> Outcome:
    """Run the plan.

    Args:
        objects: by image id, what the proposer should have found.
        folder: where scores and galleries of ablations are kept.

    Raises:
        MatirError: what the models, the gallery and the files raise.
    """
    covered = coverage.measure(bench, objects, watch)
    encoders = [engines.config("encoder"), *(weights.locate(each, "encoder") for each in plan.clips)]
    contest = Contest(plan.baselines, encoders, engines.config("proposer"), engines.device)
    with ScoreStore.open(folder / "scores.db") as store:
        found = contenders.run(bench, contest, store, watch)
    rooms = judge_rooms(bench, engines) if plan.judge else None
    depth = ablations.depth(plan.candidates, plan.ablations)
    retrieved = methods.retrieve(bench, bench.gallery, engines.text_encoder, depth, watch)
    base = Method(retrieved, rooms, plan.candidates, plan.keep)
    laboratory = Laboratory(bench, engines.config("encoder"), folder / "ablations", engines.device, watch)
    variants = [each for name in plan.ablations for each in laboratory.variants(name, base)]
    if rooms is not None:
        asked = [base, *(each.method for each in variants)]
        methods.ask(bench, rooms, asked, watch, everywhere=plan.all_masks)
        engines.release_judge()
    scoring = Scoring(bench, base, plan, watch)
    measured = replace(scoring.measured(engines), contenders=found)
    groundings = dict(scoring.boxes.outcomes)
    if "pixels" in plan.ablations:
        variants += _with_other_pixels(bench, engines, base, watch)
    return Outcome(
        tables.four(measured),
        tuple(scoring.ablation_tables(laboratory, measured, variants)),
        covered,
        groundings,
        retrieved.truncated,
        scoring.rankings,
        scoring.predicted,
    )


def judge_rooms(bench: Bench, engines: Engines) -> Rooms:
    """Where each query is asked of the judge of `engines`; loads nothing yet."""
    return {query.text: find.judge_room(bench.gallery, engines, query.text) for query in bench.queries}


def _with_other_pixels(bench: Bench, engines: Engines, base: Method, watch: Watch) -> Iterator[Variant]:
    """The ablation "pixels": each setting is another judge, asked and freed before the next."""
    for setting, changed in ablations.with_other_pixels(engines.models):
        others = Engines(bench.gallery, changed, engines.device)
        rooms = judge_rooms(bench, others)
        method = replace(base, rooms=rooms)
        methods.ask(bench, rooms, [method], watch)
        others.release_judge()
        yield Variant("pixels", setting, method)


class MaskMaker(Protocol):
    """Gives the masks that a method predicts in ranked photos."""

    def __call__(
        self, query: EvalQuery, ranking: Sequence[Judged], *, everywhere: bool = False
    ) -> Predicted: ...


class Scoring:
    """From rankings and the judge's memory to average precision."""

    def __init__(self, bench: Bench, base: Method, plan: Plan, watch: Watch) -> None:
        self._bench = bench
        self._base = base
        self._plan = plan
        self._watch = watch
        self._judged = {query.id: base.ranking(query) for query in bench.queries}
        self.boxes = BoxMasks(bench, base.rooms or {}, BEST_FIT)
        """Of the base and of all ablations that share its judge."""
        self.rankings = {query: self._images(ranking) for query, ranking in self._judged.items()}
        """Query id to image ids."""
        self.predicted: dict[int, Predicted] = {}
        """The masks in them, once `measured` has run."""

    def measured(self, engines: Engines) -> Measured:
        """All that the tables need, but for the baselines."""
        bench, base = self._bench, self._base
        stage_1 = {query.id: base.first_stage(query)[: metrics.DEPTH] for query in bench.queries}
        in_order = {query: self._images(ranking) for query, ranking in stage_1.items()}
        by_region = self._object_values(stage_1, self._by_region)
        if base.rooms is None:
            self.predicted = self._all_predicted(self._by_region)
            found = Measured((), bench.image_values(in_order), by_region)
        else:
            self.predicted = self._all_predicted(self.boxes.predicted)
            found = Measured(
                (),
                bench.image_values(in_order),
                by_region,
                bench.image_values(self.rankings),
                self._object_values(self._judged, self._by_region),
                {
                    query: bench.object_value(query, self.rankings[query], masks)
                    for query, masks in self.predicted.items()
                },
                self._refined(engines) if self._plan.refine else None,
            )
        imported = {each.name: self._imported(each) for each in self._plan.imported}
        return replace(found, imported=imported)

    def ablation_tables(
        self, laboratory: Laboratory, measured: Measured, variants: Sequence[Variant]
    ) -> Iterator[AblationTable]:
        """A table an ablation; the setting of all other tables comes first."""
        first = measured.stage_1, measured.matir, measured.boxes
        for name in dict.fromkeys(each.ablation for each in variants):
            rows = [_ablation_row(laboratory.own_setting(name, self._base), *first)]
            for variant in variants:
                if variant.ablation == name:
                    rows.append(_ablation_row(variant.setting, *self._values(variant.method)))
            yield AblationTable(name, tuple(rows))

    def _values(self, method: Method) -> tuple[Values, Values | None, Values | None]:
        """Of a variant: stage 1, after the judge, with masks."""
        bench = self._bench
        first = {query.id: self._images(method.first_stage(query)) for query in bench.queries}
        if method.rooms is None:
            return bench.image_values(first), None, None
        shared = method.rooms is self._base.rooms
        boxes = self.boxes if shared else BoxMasks(bench, method.rooms, BEST_FIT)
        judged = {query.id: method.ranking(query) for query in bench.queries}
        images = {query: self._images(ranking) for query, ranking in judged.items()}
        return (
            bench.image_values(first),
            bench.image_values(images),
            self._object_values(judged, boxes.predicted),
        )

    def _images(self, ranking: Sequence[Judged]) -> list[int]:
        return self._bench.indexed.ranked(methods.photo_ids(ranking))

    def _by_region(
        self, query: EvalQuery, ranking: Sequence[Judged], *, everywhere: bool = False
    ) -> Predicted:
        return methods.region_masks(self._bench, query, ranking, everywhere=everywhere)

    def _all_predicted(self, masks: MaskMaker) -> dict[int, Predicted]:
        with self._watch(len(self._judged), "masks", "query") as advance:
            found = {}
            for query in self._bench.queries:
                found[query.id] = masks(query, self._judged[query.id], everywhere=self._plan.all_masks)
                advance()
        return found

    def _object_values(self, rankings: Mapping[int, Sequence[Judged]], masks: MaskMaker) -> Values:
        found = {}
        for query in self._bench.queries:
            ranking = rankings[query.id]
            predicted = masks(query, ranking[: metrics.DEPTH])
            found[query.id] = self._bench.object_value(query.id, self._images(ranking), predicted)
        return found

    def _refined(self, engines: Engines) -> Values:
        engines.config("proposer")
        boxes = BoxMasks(self._bench, self._base.rooms or {}, Matching(refiner=lambda: engines.proposer))
        with self._watch(len(self._judged), "refining", "query") as advance:

            def refined(
                query: EvalQuery, ranking: Sequence[Judged], *, everywhere: bool = False
            ) -> Predicted:
                advance()
                return boxes.predicted(query, ranking, everywhere=everywhere)

            return self._object_values(self._judged, refined)

    def _imported(self, given: Imported) -> Segmented:
        values, masks, ranked = {}, 0, 0
        for query, ranking in self.rankings.items():
            predicted = given.masks.get(query, {})
            values[query] = self._bench.object_value(query, ranking, predicted)
            masks += sum(image in predicted for image in ranking)
            ranked += len(ranking)
        return Segmented(values, masks, ranked)


def _ablation_row(setting: str, stage_1: Values, matir: Values | None, boxes: Values | None) -> AblationRow:
    return AblationRow(setting, *(Row(setting, values) for values in (stage_1, matir, boxes)))
