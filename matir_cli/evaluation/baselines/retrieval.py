"""Retrieval by CLIP baselines: every chosen baseline with every encoder."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, partial

import msgspec
import numpy as np

from matir_cli.engines.protocols import DenseEncoder
from matir_cli.engines.registry import load_dense_encoder, load_text_encoder
from matir_cli.evaluation import metrics
from matir_cli.evaluation.baselines.clip import CROPPING, Baseline, best_cosines
from matir_cli.evaluation.methods import EvaluationSetup, PrecisionByQuery
from matir_cli.gallery.score_store import ScoreStore, run_key
from matir_cli.photos.decode import decode_photo
from matir_cli.photos.discover import stat_file
from matir_cli.progress import ProgressObserver
from matir_cli.records import EngineConfig, FloatArray


@dataclass(frozen=True, slots=True)
class BaselineResult:
    """Average precision of one baseline with one encoder."""

    baseline: Baseline
    encoder: str
    """Name of the encoder."""
    values: PrecisionByQuery


@dataclass(frozen=True, slots=True)
class BaselinePlan:
    """Baselines and encoders to run; every baseline runs with every encoder."""

    baselines: Sequence[Baseline]
    encoders: Sequence[EngineConfig]
    proposer: EngineConfig
    """The proposer that made the gallery's regions."""
    device: str
    """Device that the encoders run on."""


def run_baselines(
    setup: EvaluationSetup, plan: BaselinePlan, store: ScoreStore, progress: ProgressObserver
) -> list[BaselineResult]:
    """Run every baseline with every encoder; scores that `store` holds are not computed again.

    Encoders are loaded one at a time, each only if a photo still lacks its scores.
    """
    results = []
    for config in plan.encoders:
        load_encoder = cache(partial(load_dense_encoder, config, plan.device))
        for baseline in plan.baselines:
            run = _BaselineRun(setup, config, load_encoder, baseline)
            depends_on = (plan.proposer,) if baseline is CROPPING else ()
            values = run.precision(store, depends_on, progress)
            results.append(BaselineResult(baseline, config.identity.name, values))
    return results


@dataclass(frozen=True, slots=True)
class _BaselineRun:
    """One baseline with one encoder over all photos."""

    setup: EvaluationSetup
    config: EngineConfig
    load_encoder: Callable[[], DenseEncoder]
    baseline: Baseline

    def precision(
        self, store: ScoreStore, depends_on: Sequence[EngineConfig], progress: ProgressObserver
    ) -> PrecisionByQuery:
        """Average precision by query.

        Args:
            depends_on: models that the vectors depend on apart from the encoder.
        """
        texts = [query.text for query in self.setup.queries]
        others = [[each.identity.weight_hash, each.options] for each in depends_on]
        settings = msgspec.json.encode(
            [self.baseline.settings, self.config.options, *others], order="deterministic"
        )
        key = run_key(self.baseline.name, self.config.identity.weight_hash, settings.decode(), texts)
        photo_ids = sorted(self.setup.image_index.images)
        digests = [self.setup.gallery.photo(photo_id).record.sha256 for photo_id in photo_ids]
        query_vectors = cache(self._query_vectors)
        name = f"{self.baseline.name} ({self.config.identity.name})"
        with progress(name, store.missing(key, digests, len(texts)), "photo") as advance:
            scores = store.scores_of(
                *(key, digests, len(texts)),
                lambda index: self._photo_scores(photo_ids[index], query_vectors()),
                advance,
            )
        return _precision_of_scores(self.setup, photo_ids, scores)

    def _query_vectors(self) -> FloatArray:
        """(q, d) float32 unit vectors of the setup's queries."""
        encoder = load_text_encoder(self.config)
        return np.stack([encoder.encode(query.text).vector for query in self.setup.queries])

    def _photo_scores(self, photo_id: int, queries: FloatArray) -> FloatArray:
        """(q,) scores of a photo, decoded from its file as for indexing, not taken from its preview."""
        digest = self.setup.gallery.photo(photo_id).record.sha256
        image = decode_photo(stat_file(self.setup.image_index.files[photo_id]), digest).image
        boxes = [stored.region.box for stored in self.setup.gallery.regions(photo_id)]
        return best_cosines(self.baseline.vectors(self.load_encoder(), image, boxes), queries)


def _precision_of_scores(
    setup: EvaluationSetup, photo_ids: Sequence[int], scores: FloatArray
) -> PrecisionByQuery:
    """Average precision of (photos, queries) scores; the queries are those of `setup`, in order."""
    row = {photo_id: index for index, photo_id in enumerate(photo_ids)}
    images = np.array(sorted(setup.image_index.photos), np.int64)
    rows = np.array([row[setup.image_index.photos[image]] for image in images.tolist()], np.int64)
    return setup.image_precision(
        {
            query.id: metrics.rank_images(images, scores[rows, column], depth=metrics.DEPTH).tolist()
            for column, query in enumerate(setup.queries)
        }
    )
