"""Methods under evaluation: the paper's, those of `matir find`, stage 1 alone, and ablations.

Each method runs the same steps as `matir find`: `search.stage_1.rank_each`, `search.rerank.rerank_candidates`
and `order_by_verdict`, then `search.grounding`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache

import numpy as np
from numpy.typing import NDArray

from matir_cli.engines.protocols import TextEncoder
from matir_cli.evaluation import metrics
from matir_cli.evaluation.datasets.dataset import Dataset, EvalQuery
from matir_cli.evaluation.image_index import ImageIndex
from matir_cli.evaluation.judging import ground_by_photo, judge_by_photo
from matir_cli.evaluation.metrics import AveragePrecision
from matir_cli.gallery.database import GalleryFile
from matir_cli.progress import ProgressObserver
from matir_cli.records import Candidate, FloatArray, Rle
from matir_cli.search.early_stopping import replay
from matir_cli.search.encoding import EncodedQuery, encode_query, fusion_weight, match_directions
from matir_cli.search.filters import Filters
from matir_cli.search.grounding import MatchOptions, results_by_box, results_by_region
from matir_cli.search.models import SearchModels
from matir_cli.search.pipeline import CANDIDATES, KEEP
from matir_cli.search.query import Query
from matir_cli.search.rerank import JudgedCandidate, JudgeSession, order_by_verdict, rerank_candidates
from matir_cli.search.results import SearchResult
from matir_cli.search.stage_1 import rank_each

JudgeSessions = Mapping[str, JudgeSession]
"""Query text to the session in which that query is asked; all sessions are of one judge."""

PrecisionByQuery = Mapping[int, AveragePrecision]
"""Query id to average precision."""

PredictedMasks = Mapping[int, Rle | None]
"""Image id to the one mask predicted in that image, in the frame of the annotations; None: no mask."""

EncodeQuery = Callable[[str], EncodedQuery]
"""Function that encodes a text for stage 1."""

Directions = Mapping[int, FloatArray]
"""Query id to the (k, d) directions in which regions are compared with the described object."""

MATIR = "MaTIR"
"""Name of the paper's method."""

WITH_PARTS = "MaTIR with parts"
"""Name of the method whose stage 1 scores the parts of descriptions, as `matir find` does by default."""

EARLY = "MaTIR with parts, stopping early"
"""Name of the method that in addition asks the judge no more than `search.early_stopping` finds necessary."""

NOT_ASKED = "not asked"
"""Outcome of a photo that the judge did not judge; its mask is stage 1's."""


@dataclass(frozen=True, slots=True)
class EvaluationSetup:
    """A data set and the gallery that holds its images."""

    dataset: Dataset
    gallery: GalleryFile
    image_index: ImageIndex

    @property
    def queries(self) -> tuple[EvalQuery, ...]:
        """Queries with at least one relevant image; the others count in no mean and are not asked."""
        return tuple(query for query in self.dataset.queries if self.dataset.relevant_images(query.id))

    def image_precision(self, rankings: Mapping[int, Sequence[int]]) -> PrecisionByQuery:
        """Average precision at image level of rankings (query id to image ids, best first)."""
        return {
            query: self._precision(query, metrics.image_hits(self.dataset, query, ranking))
            for query, ranking in rankings.items()
        }

    def object_precision(
        self, query_id: int, ranking: Sequence[int], predicted: PredictedMasks
    ) -> AveragePrecision:
        """Average precision at object level of a ranking of image ids; an image without a mask is a miss."""
        images = ranking[: metrics.DEPTH]
        masks = [predicted.get(image) for image in images]
        return self._precision(query_id, metrics.object_hits(self.dataset, query_id, images, masks))

    def _precision(self, query_id: int, hits: NDArray[np.bool_]) -> AveragePrecision:
        return metrics.average_precision(hits, len(self.dataset.relevant_images(query_id)))

    def is_relevant(self, query_id: int, photo_id: int) -> bool:
        """Return whether the photo holds an instance of the query; elsewhere no mask can be right."""
        return any(self.dataset.instances(query_id, image) for image in self.image_index.images[photo_id])


@dataclass(frozen=True, slots=True)
class Stage1Results:
    """Stage 1's candidates for every query."""

    candidates: Mapping[int, Sequence[Candidate]]
    """By query id, best first."""
    truncated: int
    """Number of queries longer than the encoder reads; their ends were cut off."""


def run_stage_1(
    setup: EvaluationSetup,
    gallery: GalleryFile,
    encoder: TextEncoder,
    depth: int,
    progress: ProgressObserver,
    filters: Filters | None = None,
) -> Stage1Results:
    """Run the paper's stage 1 for every query over the images of the data set.

    Other photos of `gallery` are ignored.

    Args:
        gallery: that of `setup`, or one with other vectors for the same regions.
        depth: number of candidates per query.
        filters: the part of the gallery to search; None for all of it.
    """

    def encode(text: str) -> EncodedQuery:
        encoded = encoder.encode(text)
        return EncodedQuery(encoded.vector[np.newaxis], encoded.truncated)

    return _rank_all(setup, gallery, encode, depth, progress, filters)


def query_encoder(gallery: GalleryFile, models: SearchModels) -> EncodeQuery:
    """Return a function that encodes a text as `matir find` does by default, each text once."""
    return cache(lambda text: encode_query(gallery, models, Query(text)))


def run_stage_1_with_parts(
    setup: EvaluationSetup, encode: EncodeQuery, depth: int, progress: ProgressObserver
) -> Stage1Results:
    """Run stage 1 as `matir find` does by default: with the parts of descriptions.

    Args:
        encode: of `query_encoder`.
        depth: number of candidates per query.
    """
    return _rank_all(setup, setup.gallery, encode, depth, progress)


def object_directions(setup: EvaluationSetup, encode: EncodeQuery) -> Directions:
    """Return the directions of each query's described object, as `matir find` computes it."""
    return {query.id: match_directions(setup.gallery, encode(query.text)) for query in setup.queries}


def fusion_weights(setup: EvaluationSetup, encode: EncodeQuery, models: SearchModels) -> dict[int, float]:
    """Return the weight of stage 1 beside the verdicts by query id, as `matir find` computes it."""
    return {query.id: fusion_weight(encode(query.text), models) for query in setup.queries}


def _rank_all(
    setup: EvaluationSetup,
    gallery: GalleryFile,
    encode: EncodeQuery,
    depth: int,
    progress: ProgressObserver,
    filters: Filters | None = None,
) -> Stage1Results:
    """Rank for every query, several in one pass over the index."""
    other_photos = gallery.count_photos() - len(setup.image_index.images)
    candidates: dict[int, Sequence[Candidate]] = {}
    truncated = 0

    def encode_each() -> Iterator[EncodedQuery]:
        nonlocal truncated
        for query in setup.queries:
            encoded = encode(query.text)
            truncated += encoded.truncated
            yield encoded

    with progress("searching", len(setup.queries), "query") as advance:
        rankings = rank_each(gallery, encode_each(), depth + other_photos, filters)
        for query, ranking in zip(setup.queries, rankings, strict=True):
            in_dataset = [item for item in ranking if item.photo_id in setup.image_index.images]
            candidates[query.id] = in_dataset[:depth]
            advance()
    return Stage1Results(candidates, truncated)


@dataclass(frozen=True, slots=True)
class Method:
    """One way to rank the photos of a gallery."""

    stage_1: Stage1Results
    sessions: JudgeSessions | None
    """None where there is no judge: stage 1's order is final."""
    candidates: int = CANDIDATES
    """N_C: photos per query that the judge reranks."""
    keep: int = KEEP
    """N_K: photos per query left after reranking."""
    fusion: float | Mapping[int, float] = 0.0
    """lambda, for all queries or by query id: photos are ranked by zTrue - zFalse + lambda x stage 1's score.
    """
    directions: Directions | None = None
    """With these, stored regions are matched to the judge's boxes jointly (`MatchOptions.directions`); None:
    by IoU, as in the paper."""
    name: str = MATIR
    """Name in the tables."""
    certainty: float | None = None
    """Judging ends when enough is known, see `search.early_stopping`; None: all candidates are judged."""

    def stage_1_ranking(self, query: EvalQuery) -> list[JudgedCandidate]:
        """All candidates of the query in stage 1's order, without verdicts."""
        return [JudgedCandidate(item, None) for item in self.stage_1.candidates[query.id]]

    def judged(self, query: EvalQuery) -> list[JudgedCandidate]:
        """The candidates of the query that the judge may be asked about, judged, in stage 1's order."""
        if self.sessions is None:
            return []
        candidates = self.stage_1.candidates[query.id][: self.candidates]
        return list(rerank_candidates(self.sessions[query.text], candidates))

    def order(self, query: EvalQuery, judged: Sequence[JudgedCandidate]) -> list[JudgedCandidate]:
        """Sort candidates of the query by their verdicts, best first; those without one come last."""
        return order_by_verdict(judged, self._weight(query))

    def _weight(self, query: EvalQuery) -> float:
        return self.fusion[query.id] if isinstance(self.fusion, Mapping) else self.fusion

    def ranking(self, query: EvalQuery) -> list[JudgedCandidate]:
        """The `keep` photos left for the query, best first."""
        if self.sessions is None:
            return self.stage_1_ranking(query)[: self.keep]
        if self.certainty is not None:
            return self._stop_early(query, self.certainty)[0][: self.keep]
        return self.order(query, self.judged(query))[: self.keep]

    def count_asked(self, query: EvalQuery) -> int:
        """Number of photos that the judge is asked about."""
        if self.certainty is not None:
            return self._stop_early(query, self.certainty)[1]
        return count_asked(self.judged(query))

    def _stop_early(self, query: EvalQuery, certainty: float) -> tuple[list[JudgedCandidate], int]:
        """Return the ranking if judging ends early, and the number of photos asked about.

        The verdicts are all known; those that would not have been asked for are left out.
        """
        judged = self.judged(query)
        scores = np.array([item.candidate.score for item in judged])
        margins = np.array([np.nan if item.verdict is None else item.verdict.margin for item in judged])
        replayed = replay(scores, margins, self.keep, certainty, bonus=self._weight(query) * scores)
        asked = set(replayed.asked.tolist())
        ranking = [
            judged[index] if index in asked else replace(judged[index], verdict=None, foreseen=True)
            for index in replayed.ranking.tolist()
        ]
        return ranking, len(asked)


def count_asked(judged: Sequence[JudgedCandidate]) -> int:
    """Number of candidates that the judge was asked about."""
    return sum(item.verdict is not None or item.failed for item in judged)


def photo_ids(ranking: Sequence[JudgedCandidate]) -> list[int]:
    """Photo ids of a ranking, in its order."""
    return [item.candidate.photo_id for item in ranking]


def ask_judge(
    setup: EvaluationSetup,
    sessions: JudgeSessions,
    methods: Sequence[Method],
    progress: ProgressObserver,
    *,
    everywhere: bool = False,
) -> None:
    """Ask the judge all questions that the methods need; a question that several need is asked once.

    Boxes are asked for in relevant photos only: elsewhere no mask can be right.

    Args:
        methods: all of these sessions.
        everywhere: ask for boxes in all ranked photos, for masks that are exported.
    """
    questions: dict[int, list[str]] = {}
    for method in methods:
        for query in setup.queries:
            for item in method.stage_1.candidates[query.id][: method.candidates]:
                questions.setdefault(item.photo_id, []).append(query.text)
    judge_by_photo(sessions, questions, progress)
    questions = {}
    for method in methods:
        for query in setup.queries:
            for photo_id in photo_ids(method.ranking(query)):
                if everywhere or setup.is_relevant(query.id, photo_id):
                    questions.setdefault(photo_id, []).append(query.text)
    ground_by_photo(sessions, questions, progress)


@dataclass(frozen=True, slots=True)
class BoxMasks:
    """Masks made from the judge's boxes, each made once and shared by the methods of one judge."""

    setup: EvaluationSetup
    sessions: JudgeSessions
    matching: MatchOptions
    directions: Directions | None = None
    """As in `Method`."""
    outcomes: Counter[str] = field(default_factory=Counter)
    """How the boxes became masks, in the words of `search.results`; relevant photos only."""
    _masks: dict[tuple[int, int], Rle | None] = field(default_factory=dict)
    """By query id and photo id, working pixels."""

    def predict(
        self, query: EvalQuery, ranking: Sequence[JudgedCandidate], *, everywhere: bool = False
    ) -> PredictedMasks:
        """Masks in the ranked photos: in relevant ones only, unless `everywhere`."""
        new = [
            item
            for item in ranking
            if (query.id, item.candidate.photo_id) not in self._masks
            and (everywhere or self.setup.is_relevant(query.id, item.candidate.photo_id))
        ]
        directions = None if self.directions is None else self.directions[query.id]
        matching = replace(self.matching, directions=directions)
        for result in results_by_box(self.sessions[query.text], new, matching):
            self._masks[query.id, result.photo.id] = _first_mask(result)
            if self.setup.is_relevant(query.id, result.photo.id):
                self.outcomes[result.grounding or NOT_ASKED] += 1
        masks = {
            photo_id: self._masks[query.id, photo_id]
            for photo_id in photo_ids(ranking)
            if (query.id, photo_id) in self._masks
        }
        return _by_image(self.setup, masks)


def predict_region_masks(
    setup: EvaluationSetup, query: EvalQuery, ranking: Sequence[JudgedCandidate], *, everywhere: bool = False
) -> PredictedMasks:
    """Masks of stage 1's best region in the ranked photos: in relevant ones only, unless `everywhere`."""
    masked = [item for item in ranking if everywhere or setup.is_relevant(query.id, item.candidate.photo_id)]
    results = results_by_region(setup.gallery, masked)
    return _by_image(setup, {result.photo.id: _first_mask(result) for result in results})


def _first_mask(result: SearchResult) -> Rle | None:
    """The mask of the first object; a method predicts one mask per image."""
    return result.objects[0].mask if result.objects else None


def _by_image(setup: EvaluationSetup, masks: Mapping[int, Rle | None]) -> PredictedMasks:
    """Convert masks by photo id, working pixels, to masks by image id, in the annotations' frame."""
    return {
        image: setup.image_index.to_annotation_frame(rle, image)
        for photo_id, rle in masks.items()
        for image in setup.image_index.images[photo_id]
    }
