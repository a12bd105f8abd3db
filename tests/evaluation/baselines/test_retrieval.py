"""Baselines over all photos with the tiny encoder: stored scores, and vectors of the files themselves."""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path

import numpy as np
import pytest

from matir_cli.engines.registry import load_dense_encoder, load_text_encoder
from matir_cli.evaluation.baselines.clip import CROPPING, WHOLE_IMAGE, best_cosines
from matir_cli.evaluation.baselines.retrieval import BaselinePlan, BaselineResult, run_baselines
from matir_cli.evaluation.methods import EvaluationSetup
from matir_cli.evaluation.metrics import rank_images
from matir_cli.gallery.score_store import ScoreStore
from matir_cli.model_sets.catalogue import load_model_set
from matir_cli.model_sets.weights import locate_files
from matir_cli.photos.decode import decode_photo
from matir_cli.photos.discover import stat_file
from matir_cli.progress import Advance, no_progress
from matir_cli.records import EngineConfig


@pytest.fixture(scope="module")
def encoder() -> EngineConfig:
    return locate_files(load_model_set("tiny"), "encoder")


def run(setup: EvaluationSetup, encoder: EngineConfig, store: Path) -> tuple[list[BaselineResult], list[int]]:
    """Run two baselines; also the number of photos that each had to score."""
    counts: list[int] = []

    def observe(name: str, total: int | None, unit: str, done: int = 0) -> AbstractContextManager[Advance]:
        counts.append(total or 0)
        return no_progress(name, total, unit, done)

    plan = BaselinePlan((WHOLE_IMAGE, CROPPING), [encoder], encoder, "cpu")
    with ScoreStore.open(store) as scores:
        return run_baselines(setup, plan, scores, observe), counts


def test_scores_are_stored_and_rank_the_images(
    setup: EvaluationSetup, encoder: EngineConfig, tmp_path: Path
) -> None:
    results, counts = run(setup, encoder, tmp_path / "scores.db")
    assert [result.baseline for result in results] == [WHOLE_IMAGE, CROPPING]
    assert {result.encoder for result in results} == {encoder.identity.name}
    assert counts == [6, 6]
    assert run(setup, encoder, tmp_path / "scores.db") == (results, [0, 0])
    assert results[0].values == setup.image_precision(
        {query.id: ranking for query, ranking in zip(setup.queries, rankings(setup, encoder), strict=True)}
    )


def rankings(setup: EvaluationSetup, encoder: EngineConfig) -> Sequence[list[int]]:
    """Image ids by whole-image cosine, computed from the files one by one."""
    dense, text = load_dense_encoder(encoder, "cpu"), load_text_encoder(encoder)
    queries = np.stack([text.encode(query.text).vector for query in setup.queries])
    scores = [
        best_cosines(dense.encode_whole([decode_photo(stat_file(image.path), b"").image]), queries)
        for image in setup.dataset.images
    ]
    ids = [image.id for image in setup.dataset.images]
    return [rank_images(ids, column).tolist() for column in np.stack(scores, axis=1)]
