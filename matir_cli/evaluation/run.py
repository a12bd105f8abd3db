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

from matir_cli.evaluation import metrics
from matir_cli.evaluation.ablations import AblationRunner, Variant, candidates_needed, with_other_pixels
from matir_cli.evaluation.baselines.run import BaselinePlan, run_baselines
from matir_cli.evaluation.baselines.vectors import BASELINES, Baseline
from matir_cli.evaluation.coverage import Coverage, measure_coverage
from matir_cli.evaluation.datasets.dataset import EvalQuery
from matir_cli.evaluation.methods import (
    BoxMasks,
    EvaluationSetup,
    JudgeSessions,
    Method,
    PrecisionByQuery,
    PredictedMasks,
    ask_judge,
    photo_ids,
    region_masks,
    run_stage_1,
)
from matir_cli.evaluation.names import Ablation
from matir_cli.evaluation.other_segmenters import ImportedMasks
from matir_cli.evaluation.reporting.tables import (
    AblationRow,
    AblationTable,
    Measured,
    Row,
    Segmented,
    Table,
    paper_tables,
)
from matir_cli.gallery.score_store import ScoreStore
from matir_cli.model_sets.catalogue import ModelSet
from matir_cli.model_sets.session import ModelSession
from matir_cli.model_sets.weights import locate_files
from matir_cli.progress import ProgressObserver
from matir_cli.records import Rle
from matir_cli.search.grounding import MatchOptions
from matir_cli.search.pipeline import CANDIDATES, KEEP, open_judge_session
from matir_cli.search.rerank import JudgedCandidate

BEST_FIT = MatchOptions(min_iou=0.0)
"""The paper's matching: the stored region that fits the judge's box best, however badly. In a table a wrong
mask costs no more than none; `find`, whose users see the masks, asks for an IoU of 0.5."""


@dataclass(frozen=True, slots=True)
class EvaluationPlan:
    """What to run."""

    candidates: int = CANDIDATES
    """N_C."""
    keep: int = KEEP
    """N_K."""
    judge: bool = True
    """False: stage 1 alone."""
    refine: bool = False
    """A row with masks asked of the proposer where no stored region fits."""
    baselines: tuple[Baseline, ...] = BASELINES
    clips: tuple[ModelSet, ...] = ()
    """Whose encoders the baselines are also run with."""
    ablations: tuple[Ablation, ...] = ()
    imported: tuple[ImportedMasks, ...] = ()
    all_masks: bool = False
    """Make a mask in every ranked image, not in the relevant ones alone: for export."""


@dataclass(frozen=True, slots=True)
class EvaluationOutcome:
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
    predicted: Mapping[int, PredictedMasks]
    """The masks in them."""


def run_evaluation(
    bench: EvaluationSetup,
    engines: ModelSession,
    plan: EvaluationPlan,
    objects: Mapping[int, Sequence[Rle]],
    folder: Path,
    progress: ProgressObserver,
) -> EvaluationOutcome:
    """Run the plan.

    Args:
        objects: by image id, what the proposer should have found.
        folder: where scores and galleries of ablations are kept.

    Raises:
        MatirError: what the models, the gallery and the files raise.
    """
    covered = measure_coverage(bench, objects, progress)
    encoders = [engines.config("encoder"), *(locate_files(each, "encoder") for each in plan.clips)]
    contest = BaselinePlan(plan.baselines, encoders, engines.config("proposer"), engines.device)
    with ScoreStore.open(folder / "scores.db") as store:
        found = run_baselines(bench, contest, store, progress)
    rooms = open_judge_sessions(bench, engines) if plan.judge else None
    depth = candidates_needed(plan.candidates, plan.ablations)
    retrieved = run_stage_1(bench, bench.gallery, engines.text_encoder, depth, progress)
    base = Method(retrieved, rooms, plan.candidates, plan.keep)
    laboratory = AblationRunner(
        bench, engines.config("encoder"), folder / "ablations", engines.device, progress
    )
    variants = [each for name in plan.ablations for each in laboratory.variants(name, base)]
    if rooms is not None:
        asked = [base, *(each.method for each in variants)]
        ask_judge(bench, rooms, asked, progress, everywhere=plan.all_masks)
        engines.release_judge()
    scoring = Scoring(bench, base, plan, progress)
    measured = replace(scoring.measured(engines), contenders=found)
    groundings = dict(scoring.boxes.outcomes)
    if "pixels" in plan.ablations:
        variants += _with_other_pixels(bench, engines, base, progress)
    return EvaluationOutcome(
        paper_tables(measured),
        tuple(scoring.ablation_tables(laboratory, measured, variants)),
        covered,
        groundings,
        retrieved.truncated,
        scoring.rankings,
        scoring.predicted,
    )


def open_judge_sessions(bench: EvaluationSetup, engines: ModelSession) -> JudgeSessions:
    """Where each query is asked of the judge of `engines`; loads nothing yet."""
    return {query.text: open_judge_session(bench.gallery, engines, query.text) for query in bench.queries}


def _with_other_pixels(
    bench: EvaluationSetup, engines: ModelSession, base: Method, progress: ProgressObserver
) -> Iterator[Variant]:
    """The ablation "pixels": each setting is another judge, asked and freed before the next."""
    for setting, changed in with_other_pixels(engines.models):
        others = ModelSession(bench.gallery, changed, engines.device)
        rooms = open_judge_sessions(bench, others)
        method = replace(base, rooms=rooms)
        ask_judge(bench, rooms, [method], progress)
        others.release_judge()
        yield Variant("pixels", setting, method)


class MaskMaker(Protocol):
    """Gives the masks that a method predicts in ranked photos."""

    def __call__(
        self, query: EvalQuery, ranking: Sequence[JudgedCandidate], *, everywhere: bool = False
    ) -> PredictedMasks: ...


class Scoring:
    """From rankings and the judge's memory to average precision."""

    def __init__(
        self, bench: EvaluationSetup, base: Method, plan: EvaluationPlan, progress: ProgressObserver
    ) -> None:
        self._bench = bench
        self._base = base
        self._plan = plan
        self._progress = progress
        self._judged = {query.id: base.ranking(query) for query in bench.queries}
        self.boxes = BoxMasks(bench, base.rooms or {}, BEST_FIT)
        """Of the base and of all ablations that share its judge."""
        self.rankings = {query: self._images(ranking) for query, ranking in self._judged.items()}
        """Query id to image ids."""
        self.predicted: dict[int, PredictedMasks] = {}
        """The masks in them, once `measured` has run."""

    def measured(self, engines: ModelSession) -> Measured:
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
        self, laboratory: AblationRunner, measured: Measured, variants: Sequence[Variant]
    ) -> Iterator[AblationTable]:
        """A table an ablation; the setting of all other tables comes first."""
        first = measured.stage_1, measured.matir, measured.boxes
        for name in dict.fromkeys(each.ablation for each in variants):
            rows = [_ablation_row(laboratory.own_setting(name, self._base), *first)]
            for variant in variants:
                if variant.ablation == name:
                    rows.append(_ablation_row(variant.setting, *self._values(variant.method)))
            yield AblationTable(name, tuple(rows))

    def _values(
        self, method: Method
    ) -> tuple[PrecisionByQuery, PrecisionByQuery | None, PrecisionByQuery | None]:
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

    def _images(self, ranking: Sequence[JudgedCandidate]) -> list[int]:
        return self._bench.indexed.ranked(photo_ids(ranking))

    def _by_region(
        self, query: EvalQuery, ranking: Sequence[JudgedCandidate], *, everywhere: bool = False
    ) -> PredictedMasks:
        return region_masks(self._bench, query, ranking, everywhere=everywhere)

    def _all_predicted(self, masks: MaskMaker) -> dict[int, PredictedMasks]:
        with self._progress("masks", len(self._judged), "query") as advance:
            found = {}
            for query in self._bench.queries:
                found[query.id] = masks(query, self._judged[query.id], everywhere=self._plan.all_masks)
                advance()
        return found

    def _object_values(
        self, rankings: Mapping[int, Sequence[JudgedCandidate]], masks: MaskMaker
    ) -> PrecisionByQuery:
        found = {}
        for query in self._bench.queries:
            ranking = rankings[query.id]
            predicted = masks(query, ranking[: metrics.DEPTH])
            found[query.id] = self._bench.object_value(query.id, self._images(ranking), predicted)
        return found

    def _refined(self, engines: ModelSession) -> PrecisionByQuery:
        engines.config("proposer")
        boxes = BoxMasks(self._bench, self._base.rooms or {}, MatchOptions(refiner=lambda: engines.proposer))
        with self._progress("refining", len(self._judged), "query") as advance:

            def refined(
                query: EvalQuery, ranking: Sequence[JudgedCandidate], *, everywhere: bool = False
            ) -> PredictedMasks:
                advance()
                return boxes.predicted(query, ranking, everywhere=everywhere)

            return self._object_values(self._judged, refined)

    def _imported(self, given: ImportedMasks) -> Segmented:
        values, masks, ranked = {}, 0, 0
        for query, ranking in self.rankings.items():
            predicted = given.masks.get(query, {})
            values[query] = self._bench.object_value(query, ranking, predicted)
            masks += sum(image in predicted for image in ranking)
            ranked += len(ranking)
        return Segmented(values, masks, ranked)


def _ablation_row(
    setting: str, stage_1: PrecisionByQuery, matir: PrecisionByQuery | None, boxes: PrecisionByQuery | None
) -> AblationRow:
    return AblationRow(setting, *(Row(setting, values) for values in (stage_1, matir, boxes)))
