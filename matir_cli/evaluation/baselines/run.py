"""CLIP's baselines over the photos of a gallery: every chosen baseline with every encoder."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, partial

import msgspec
import numpy as np

from matir_cli.engines.protocols import DenseEncoder
from matir_cli.engines.registry import load_dense_encoder, load_text_encoder
from matir_cli.evaluation import metrics
from matir_cli.evaluation.baselines.vectors import CROPPING, Baseline, score
from matir_cli.evaluation.methods import EvaluationSetup, PrecisionByQuery
from matir_cli.gallery.score_store import ScoreStore, run_key
from matir_cli.photos.decode import decode_photo
from matir_cli.photos.discover import stat_file
from matir_cli.progress import ProgressObserver
from matir_cli.records import EngineConfig, FloatArray


@dataclass(frozen=True, slots=True)
class BaselineResult:
    """A baseline with an encoder, and what it came to."""

    baseline: Baseline
    encoder: str
    """The encoder's name."""
    values: PrecisionByQuery


@dataclass(frozen=True, slots=True)
class BaselinePlan:
    """Who takes part."""

    chosen: Sequence[Baseline]
    encoders: Sequence[EngineConfig]
    proposer: EngineConfig
    """What made the gallery's regions."""
    device: str
    """Where the encoders run."""


def run_baselines(
    bench: EvaluationSetup, contest: BaselinePlan, store: ScoreStore, progress: ProgressObserver
) -> list[BaselineResult]:
    """The chosen baselines with each encoder; scores that `store` has are not computed again."""
    found = []
    for config in contest.encoders:
        # One encoder at a time, loaded if there is a photo left for it.
        dense = cache(partial(load_dense_encoder, config, contest.device))
        for baseline in contest.chosen:
            look = _BaselineRun(bench, config, dense, baseline)
            seen = (contest.proposer,) if baseline is CROPPING else ()
            found.append(BaselineResult(baseline, config.identity.name, look.values(store, seen, progress)))
    return found


@dataclass(frozen=True, slots=True)
class _BaselineRun:
    """One baseline with one encoder over the photos."""

    bench: EvaluationSetup
    config: EngineConfig
    dense: Callable[[], DenseEncoder]
    baseline: Baseline

    def values(
        self, store: ScoreStore, seen: Sequence[EngineConfig], progress: ProgressObserver
    ) -> PrecisionByQuery:
        """Its average precision; `seen` is what its vectors depend on beside the encoder."""
        texts = [query.text for query in self.bench.queries]
        others = [[each.identity.weight_hash, each.options] for each in seen]
        settings = msgspec.json.encode(
            [self.baseline.settings, self.config.options, *others], order="deterministic"
        )
        key = run_key(self.baseline.name, self.config.identity.weight_hash, settings.decode(), texts)
        photo_ids = sorted(self.bench.indexed.images)
        digests = [self.bench.gallery.photo(photo_id).record.sha256 for photo_id in photo_ids]
        encoded = cache(self._queries)
        name = f"{self.baseline.name} ({self.config.identity.name})"
        with progress(name, store.missing(key, digests, len(texts)), "photo") as advance:
            scores = store.scores_of(
                *(key, digests, len(texts)), lambda place: self._scores(photo_ids[place], encoded()), advance
            )
        return _ranked_values(self.bench, photo_ids, scores)

    def _queries(self) -> FloatArray:
        """(q, d) of the queries that count."""
        encoder = load_text_encoder(self.config)
        return np.stack([encoder.encode(query.text).vector for query in self.bench.queries])

    def _scores(self, photo_id: int, queries: FloatArray) -> FloatArray:
        """(q,) of a photo as the gallery's encoder saw it, not of its preview."""
        digest = self.bench.gallery.photo(photo_id).record.sha256
        image = decode_photo(stat_file(self.bench.indexed.files[photo_id]), digest).image
        boxes = [stored.region.box for stored in self.bench.gallery.regions(photo_id)]
        return score(self.baseline.vectors(self.dense(), image, boxes), queries)


def _ranked_values(bench: EvaluationSetup, photo_ids: Sequence[int], scores: FloatArray) -> PrecisionByQuery:
    """From (photos, queries) scores to average precision."""
    row = {photo_id: place for place, photo_id in enumerate(photo_ids)}
    images = np.array(sorted(bench.indexed.photos), np.int64)
    rows = np.array([row[bench.indexed.photos[image]] for image in images.tolist()], np.int64)
    return bench.image_values(
        {
            query.id: metrics.ranked(images, scores[rows, place], depth=metrics.DEPTH).tolist()
            for place, query in enumerate(bench.queries)
        }
    )
