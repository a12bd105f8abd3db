"""Ways to rank and to segment: the whole method, its first stage alone, and its ablations.

Each goes through the steps of `find`: `find.candidates`, `rerank.rerank` and `in_order`, `answers`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from matir_cli.engines.protocols import TextEncoder
from matir_cli.evaluation import metrics
from matir_cli.evaluation.datasets.dataset import Dataset, EvalQuery
from matir_cli.evaluation.image_index import ImageIndex
from matir_cli.evaluation.judging import ground_photos_by_photo, judge_photos
from matir_cli.evaluation.metrics import AveragePrecision
from matir_cli.gallery.database import GalleryFile
from matir_cli.progress import ProgressObserver
from matir_cli.records import Candidate, Rle, Verdict
from matir_cli.search.filters import Filters
from matir_cli.search.grounding import MatchOptions, results_by_box, results_by_region
from matir_cli.search.pipeline import CANDIDATES, KEEP, rank_candidates
from matir_cli.search.rerank import JudgedCandidate, JudgeSession, order_by_verdict, rerank_candidates
from matir_cli.search.results import SearchResult

JudgeSessions = Mapping[str, JudgeSession]
"""Where each query is asked, by its text; all of one judge."""

PrecisionByQuery = Mapping[int, AveragePrecision]
"""Average precision by query id."""

PredictedMasks = Mapping[int, Rle | None]
"""Image id to the one mask predicted there, in the frame of the annotations."""


@dataclass(frozen=True, slots=True)
class EvaluationSetup:
    """What a method is put to."""

    dataset: Dataset
    gallery: GalleryFile
    indexed: ImageIndex

    @property
    def queries(self) -> tuple[EvalQuery, ...]:
        """Those that have a relevant image; the others count in no mean and need not be asked."""
        return tuple(query for query in self.dataset.queries if self.dataset.relevant(query.id))

    def image_values(self, rankings: Mapping[int, Sequence[int]]) -> PrecisionByQuery:
        """Average precision of rankings of images, query by query."""
        return {
            query: self._value(query, metrics.image_hits(self.dataset, query, ranking))
            for query, ranking in rankings.items()
        }

    def object_value(
        self, query_id: int, ranking: Sequence[int], predicted: PredictedMasks
    ) -> AveragePrecision:
        """Average precision of a ranking of images with one mask in each; no mask is a miss."""
        shown = ranking[: metrics.DEPTH]
        masks = [predicted.get(image) for image in shown]
        return self._value(query_id, metrics.object_hits(self.dataset, query_id, shown, masks))

    def _value(self, query_id: int, hits: NDArray[np.bool_]) -> AveragePrecision:
        return metrics.average_precision(hits, len(self.dataset.relevant(query_id)))

    def is_relevant(self, query_id: int, photo_id: int) -> bool:
        """Whether a mask in the photo can count at all."""
        return any(self.dataset.instances(query_id, image) for image in self.indexed.images[photo_id])


@dataclass(frozen=True, slots=True)
class Stage1Results:
    """Stage 1's answer to every query."""

    candidates: Mapping[int, Sequence[Candidate]]
    """By query id, best first."""
    truncated: int
    """Queries that are longer than the encoder reads; their ends were left out."""


def run_stage_1(
    bench: EvaluationSetup,
    gallery: GalleryFile,
    encoder: TextEncoder,
    depth: int,
    progress: ProgressObserver,
    within: Filters | None = None,
) -> Stage1Results:
    """Stage 1 over the images of the data set, whatever else `gallery` holds.

    Args:
        gallery: the bench's own, or one with other vectors for the same regions.
    """
    strangers = gallery.count_photos() - len(bench.indexed.images)
    found: dict[int, Sequence[Candidate]] = {}
    truncated = 0
    with progress("searching", len(bench.queries), "query") as advance:
        for query in bench.queries:
            asked = encoder.encode(query.text)
            truncated += asked.truncated
            ranked = rank_candidates(gallery, asked.vector, depth + strangers, filters=within)
            found[query.id] = [item for item in ranked if item.photo_id in bench.indexed.images][:depth]
            advance()
    return Stage1Results(found, truncated)


@dataclass(frozen=True, slots=True)
class Method:
    """One way to rank."""

    retrieved: Stage1Results
    rooms: JudgeSessions | None
    """None where there is no judge: stage 1's order stays."""
    candidates: int = CANDIDATES
    """N_C."""
    keep: int = KEEP
    """N_K."""
    fusion: float = 0.0
    """lambda: ranked by zTrue - zFalse + lambda x stage 1's score."""

    def first_stage(self, query: EvalQuery) -> list[JudgedCandidate]:
        """The candidates in stage 1's order."""
        return [JudgedCandidate(item, None) for item in self.retrieved.candidates[query.id]]

    def ranking(self, query: EvalQuery) -> list[JudgedCandidate]:
        """The photos that are left, best first."""
        if self.rooms is None:
            return self.first_stage(query)[: self.keep]
        shown = self.retrieved.candidates[query.id][: self.candidates]
        judged = [self._fused(item) for item in rerank_candidates(self.rooms[query.text], shown)]
        return order_by_verdict(judged)[: self.keep]

    def _fused(self, item: JudgedCandidate) -> JudgedCandidate:
        if item.verdict is None or not self.fusion:
            return item
        lifted = item.verdict.z_true + self.fusion * item.candidate.score
        return replace(item, verdict=Verdict(lifted, item.verdict.z_false))


def photo_ids(ranking: Sequence[JudgedCandidate]) -> list[int]:
    return [item.candidate.photo_id for item in ranking]


def ask_judge(
    bench: EvaluationSetup,
    rooms: JudgeSessions,
    methods: Sequence[Method],
    progress: ProgressObserver,
    *,
    everywhere: bool = False,
) -> None:
    """Ask the judge all that the methods need of it; they share what they have in common.

    Where the object lies is asked only in photos that are relevant: elsewhere no mask can be right.

    Args:
        methods: all of these rooms.
        everywhere: ask where it lies in all photos that are left, for masks that leave the house.
    """
    wanted: dict[int, list[str]] = {}
    for method in methods:
        for query in bench.queries:
            for item in method.retrieved.candidates[query.id][: method.candidates]:
                wanted.setdefault(item.photo_id, []).append(query.text)
    judge_photos(rooms, wanted, progress)
    wanted = {}
    for method in methods:
        for query in bench.queries:
            for photo_id in photo_ids(method.ranking(query)):
                if everywhere or bench.is_relevant(query.id, photo_id):
                    wanted.setdefault(photo_id, []).append(query.text)
    ground_photos_by_photo(rooms, wanted, progress)


@dataclass(frozen=True, slots=True)
class BoxMasks:
    """Masks by the judge's boxes; what a photo came to is kept for the methods that share it."""

    bench: EvaluationSetup
    rooms: JudgeSessions
    matching: MatchOptions
    outcomes: Counter[str] = field(default_factory=Counter)
    """How the boxes became masks, by the words of `answers`; relevant photos alone."""
    _known: dict[tuple[int, int], Rle | None] = field(default_factory=dict)

    def predicted(
        self, query: EvalQuery, ranking: Sequence[JudgedCandidate], *, everywhere: bool = False
    ) -> PredictedMasks:
        """The masks in the ranked photos, those that are not relevant left out unless `everywhere`."""
        new = [
            item
            for item in ranking
            if (query.id, item.candidate.photo_id) not in self._known
            and (everywhere or self.bench.is_relevant(query.id, item.candidate.photo_id))
        ]
        for found in results_by_box(self.rooms[query.text], new, self.matching):
            self._known[query.id, found.photo.id] = _first_mask(found)
            if self.bench.is_relevant(query.id, found.photo.id):
                self.outcomes[found.grounding or NOT_ASKED] += 1
        masks = {
            photo_id: self._known[query.id, photo_id]
            for photo_id in photo_ids(ranking)
            if (query.id, photo_id) in self._known
        }
        return _in_images(self.bench, masks)


NOT_ASKED = "not asked"
"""A photo that the judge did not judge; its mask is stage 1's."""


def region_masks(
    bench: EvaluationSetup, query: EvalQuery, ranking: Sequence[JudgedCandidate], *, everywhere: bool = False
) -> PredictedMasks:
    """The masks of stage 1's best regions, in relevant photos alone unless `everywhere`."""
    shown = [item for item in ranking if everywhere or bench.is_relevant(query.id, item.candidate.photo_id)]
    found = results_by_region(bench.gallery, shown)
    return _in_images(bench, {item.photo.id: _first_mask(item) for item in found})


def _first_mask(found: SearchResult) -> Rle | None:
    """Of *the* object; other objects that the judge pointed at do not count."""
    return found.objects[0].mask if found.objects else None


def _in_images(bench: EvaluationSetup, masks: Mapping[int, Rle | None]) -> PredictedMasks:
    """Masks by photo as masks by image."""
    return {
        image: bench.indexed.framed(rle, image)
        for photo_id, rle in masks.items()
        for image in bench.indexed.images[photo_id]
    }
