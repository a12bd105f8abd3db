"""Scoring: rankings and stored answers of the judge become average precision."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Protocol

from matir_cli.evaluation import metrics
from matir_cli.evaluation.ablations import AblationRunner, Variant
from matir_cli.evaluation.datasets.dataset import EvalQuery
from matir_cli.evaluation.methods import (
    BoxMasks,
    EvaluationSetup,
    Method,
    PrecisionByQuery,
    PredictedMasks,
    count_asked,
    photo_ids,
    predict_region_masks,
)
from matir_cli.evaluation.other_segmenters import ImportedMasks
from matir_cli.evaluation.reporting.comparison import Comparison, CurvePoint, MethodResult
from matir_cli.evaluation.reporting.tables import (
    AblationRow,
    AblationTable,
    Measurements,
    Row,
    SegmenterResult,
)
from matir_cli.model_sets.session import ModelSession
from matir_cli.progress import ProgressObserver
from matir_cli.search.grounding import MatchOptions
from matir_cli.search.rerank import JudgedCandidate

BEST_FIT = MatchOptions(min_iou=0.0)
"""The paper's matching: the stored region that fits the judge's box best, at any IoU. In a table a wrong
mask costs no more than none; `find`, whose users see the masks, requires an IoU of 0.5."""


CURVE = (0, 16, 25, 35, 50, 100)
"""Numbers of candidates per query at which the quality over verdicts asked is measured."""


class MaskPredictor(Protocol):
    """Predicts one mask in each ranked photo."""

    def __call__(
        self, query: EvalQuery, ranking: Sequence[JudgedCandidate], *, everywhere: bool = False
    ) -> PredictedMasks:
        """Masks in the ranked photos: in relevant ones only, unless `everywhere`."""
        ...


class Scorer:
    """Measures the base method and its variants on one data set."""

    def __init__(
        self, setup: EvaluationSetup, base: Method, progress: ProgressObserver, *, all_masks: bool = False
    ) -> None:
        """Rank with `base`, whose questions the judge must have answered before.

        Args:
            all_masks: predict a mask in every ranked image, not only in relevant ones.
        """
        self._setup = setup
        self._base = base
        self._progress = progress
        self._all_masks = all_masks
        self._judged = {query.id: base.ranking(query) for query in setup.queries}
        self.box_masks = BoxMasks(setup, base.sessions or {}, BEST_FIT, base.directions)
        """Masks of the base method and of all variants that share its judge."""
        self.rankings = {query: self._images(ranking) for query, ranking in self._judged.items()}
        """Query id to image ids, best first."""
        self.masks: dict[int, PredictedMasks] = {}
        """Query id to the masks in the ranked images; empty until `measure` has run."""

    def measure(
        self, imported: Sequence[ImportedMasks] = (), refine_with: ModelSession | None = None
    ) -> Measurements:
        """Compute everything that the tables need, apart from the baselines.

        Args:
            imported: masks of other segmenters to score on this ranking.
            refine_with: models whose proposer makes the masks of the row "--refine"; None for no such row.
        """
        setup, base = self._setup, self._base
        stage_1 = {query.id: base.stage_1_ranking(query)[: metrics.DEPTH] for query in setup.queries}
        stage_1_images = {query: self._images(ranking) for query, ranking in stage_1.items()}
        best_region = self._object_precision(stage_1, self._predict_by_region)
        if base.sessions is None:
            self.masks = self._predict_all(self._predict_by_region)
            measurements = Measurements((), setup.image_precision(stage_1_images), best_region)
        else:
            self.masks = self._predict_all(self.box_masks.predict)
            measurements = Measurements(
                (),
                setup.image_precision(stage_1_images),
                best_region,
                setup.image_precision(self.rankings),
                self._object_precision(self._judged, self._predict_by_region),
                {
                    query: setup.object_precision(query, self.rankings[query], masks)
                    for query, masks in self.masks.items()
                },
                None if refine_with is None else self._refined_precision(refine_with),
            )
        return replace(measurements, imported={each.name: self._score_imported(each) for each in imported})

    def compare(self, measurements: Measurements, others: Sequence[Method]) -> Comparison:
        """Measure other methods as the base method was measured.

        Args:
            measurements: of the base method.
            others: methods whose questions the judge must have answered before.
        """
        base = self._base
        asked = None if base.sessions is None else self._count_asked(base)
        first = MethodResult(
            base.name,
            measurements.stage_1,
            measurements.best_region,
            measurements.matir,
            measurements.boxes,
            asked,
        )
        by_stage_1 = {id(base.stage_1): first}
        methods = [first]
        for each in others:
            result = self._measure_method(each)
            same = by_stage_1.setdefault(id(each.stage_1), result)
            methods.append(replace(result, stage_1=same.stage_1, best_region=same.best_region))
        curve = [
            point for each in (base, *others) if each.sessions is not None for point in self._curve(each)
        ]
        return Comparison(tuple(methods), tuple(curve))

    def _measure_method(self, method: Method) -> MethodResult:
        setup = self._setup
        stage_1 = {query.id: method.stage_1_ranking(query)[: metrics.DEPTH] for query in setup.queries}
        stage_1_images = {query: self._images(ranking) for query, ranking in stage_1.items()}
        result = MethodResult(
            method.name,
            setup.image_precision(stage_1_images),
            self._object_precision(stage_1, self._predict_by_region),
        )
        if method.sessions is None:
            return result
        judged = {query.id: method.ranking(query) for query in setup.queries}
        images = {query: self._images(ranking) for query, ranking in judged.items()}
        # Not the masks of the base method: a photo that was not judged has those of this stage 1.
        predict = BoxMasks(setup, method.sessions, BEST_FIT, method.directions).predict
        return replace(
            result,
            reranked=setup.image_precision(images),
            boxes=self._object_precision(judged, predict),
            verdicts=self._count_asked(method),
        )

    def _count_asked(self, method: Method) -> dict[int, int]:
        return {query.id: method.count_asked(query) for query in self._setup.queries}

    def _curve(self, method: Method) -> Iterator[CurvePoint]:
        """Measure the method with fewer candidates, the others following in stage 1's order.

        A method that stops by itself has one point.
        """
        if method.certainty is not None:
            rankings = {query.id: self._images(method.ranking(query)) for query in self._setup.queries}
            values = self._setup.image_precision(rankings)
            verdicts = self._count_asked(method)
            yield CurvePoint(method.candidates, Row(method.name, values, verdicts=verdicts))
            return
        judged = {query.id: method.judged(query) for query in self._setup.queries}
        for candidates in sorted({*(each for each in CURVE if each < method.candidates), method.candidates}):
            rankings, verdicts = {}, {}
            for query in self._setup.queries:
                asked = judged[query.id][:candidates]
                rest = method.stage_1_ranking(query)[len(asked) :]
                ranking = method.order(query, [*asked, *rest])[: metrics.DEPTH]
                rankings[query.id], verdicts[query.id] = self._images(ranking), count_asked(asked)
            values = self._setup.image_precision(rankings)
            yield CurvePoint(candidates, Row(method.name, values, verdicts=verdicts))

    def ablation_tables(
        self, runner: AblationRunner, measurements: Measurements, variants: Sequence[Variant]
    ) -> Iterator[AblationTable]:
        """One table per ablation; the base method's setting comes first."""
        base_values = measurements.stage_1, measurements.matir, measurements.boxes
        for name in dict.fromkeys(each.ablation for each in variants):
            rows = [_ablation_row(runner.base_setting(name, self._base), *base_values)]
            for variant in variants:
                if variant.ablation == name:
                    rows.append(_ablation_row(variant.setting, *self._measure_variant(variant.method)))
            yield AblationTable(name, tuple(rows))

    def _measure_variant(
        self, method: Method
    ) -> tuple[PrecisionByQuery, PrecisionByQuery | None, PrecisionByQuery | None]:
        """Precision of stage 1, of the judge's ranking, and of that ranking with masks."""
        setup = self._setup
        stage_1 = {query.id: self._images(method.stage_1_ranking(query)) for query in setup.queries}
        if method.sessions is None:
            return setup.image_precision(stage_1), None, None
        base = self._base
        is_shared = method.sessions is base.sessions and method.directions is base.directions
        box_masks = (
            self.box_masks if is_shared else BoxMasks(setup, method.sessions, BEST_FIT, method.directions)
        )
        judged = {query.id: method.ranking(query) for query in setup.queries}
        images = {query: self._images(ranking) for query, ranking in judged.items()}
        return (
            setup.image_precision(stage_1),
            setup.image_precision(images),
            self._object_precision(judged, box_masks.predict),
        )

    def _images(self, ranking: Sequence[JudgedCandidate]) -> list[int]:
        return self._setup.image_index.image_ranking(photo_ids(ranking))

    def _predict_by_region(
        self, query: EvalQuery, ranking: Sequence[JudgedCandidate], *, everywhere: bool = False
    ) -> PredictedMasks:
        return predict_region_masks(self._setup, query, ranking, everywhere=everywhere)

    def _predict_all(self, predict: MaskPredictor) -> dict[int, PredictedMasks]:
        with self._progress("masks", len(self._judged), "query") as advance:
            masks = {}
            for query in self._setup.queries:
                masks[query.id] = predict(query, self._judged[query.id], everywhere=self._all_masks)
                advance()
        return masks

    def _object_precision(
        self, rankings: Mapping[int, Sequence[JudgedCandidate]], predict: MaskPredictor
    ) -> PrecisionByQuery:
        precision = {}
        for query in self._setup.queries:
            ranking = rankings[query.id]
            masks = predict(query, ranking[: metrics.DEPTH])
            precision[query.id] = self._setup.object_precision(query.id, self._images(ranking), masks)
        return precision

    def _refined_precision(self, models: ModelSession) -> PrecisionByQuery:
        models.config("proposer")
        matching = MatchOptions(refiner=lambda: models.proposer)
        box_masks = BoxMasks(self._setup, self._base.sessions or {}, matching, self._base.directions)
        with self._progress("refining", len(self._judged), "query") as advance:

            def predict(
                query: EvalQuery, ranking: Sequence[JudgedCandidate], *, everywhere: bool = False
            ) -> PredictedMasks:
                advance()
                return box_masks.predict(query, ranking, everywhere=everywhere)

            return self._object_precision(self._judged, predict)

    def _score_imported(self, imported: ImportedMasks) -> SegmenterResult:
        values, mask_count, ranked_images = {}, 0, 0
        for query, ranking in self.rankings.items():
            masks = imported.masks.get(query, {})
            values[query] = self._setup.object_precision(query, ranking, masks)
            mask_count += sum(image in masks for image in ranking)
            ranked_images += len(ranking)
        return SegmenterResult(values, mask_count, ranked_images)


def _ablation_row(
    setting: str, stage_1: PrecisionByQuery, matir: PrecisionByQuery | None, boxes: PrecisionByQuery | None
) -> AblationRow:
    return AblationRow(setting, *(Row(setting, values) for values in (stage_1, matir, boxes)))
