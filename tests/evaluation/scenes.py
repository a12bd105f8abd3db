"""Coloured scenes as a data set, with a judge and methods by colour."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from matir_cli import masks
from matir_cli.engines.protocols import GroundingQuestion, Judge, JudgePhoto
from matir_cli.evaluation.datasets.dataset import Dataset, EvalImage, EvalQuery
from matir_cli.evaluation.methods import EvaluationSetup, JudgeSessions, Method, PrecisionByQuery, run_stage_1
from matir_cli.evaluation.other_segmenters import ImportedMasks
from matir_cli.evaluation.reporting.tables import Measurements
from matir_cli.evaluation.scoring import Scorer
from matir_cli.gallery.verdict_cache import VerdictCache
from matir_cli.progress import no_progress
from matir_cli.records import Grounding, Rle, Verdict
from matir_cli.search.pipeline import CANDIDATES, KEEP
from matir_cli.search.rerank import JudgeSession
from tests.support.fakes import COLOURS, ColourJudge, ColourText, near

SCENES = {"a": "green", "b": "red", "c": "red green", "d": "blue", "e": "green red", "f": "blue red"}
QUERIES = {1: "red", 2: "green", 3: "blue", 4: "mauve"}


class Recorder(ColourJudge):
    """Records photo and queries of each call; raises KeyboardInterrupt after `patience` calls."""

    def __init__(self, patience: int = 1000, shift: float = 0.0) -> None:
        super().__init__(shift)
        self.calls: list[tuple[int, tuple[str, ...]]] = []
        self.batches: list[int] = []
        self.patience = patience

    def rerank(self, photo: JudgePhoto, queries: Sequence[str]) -> Sequence[Verdict | None]:
        if len(self.calls) == self.patience:
            raise KeyboardInterrupt
        self.calls.append((photo.key, tuple(queries)))
        return super().rerank(photo, queries)

    def ground(self, questions: Sequence[GroundingQuestion]) -> Sequence[Grounding | None]:
        self.batches.append(len(questions))
        return super().ground(questions)


def refuse() -> Judge:
    """Fail the test that loads a judge."""
    raise AssertionError("the judge was loaded without need")


def dataset_of(paths: Sequence[Path]) -> Dataset:
    """The scenes as a data set; all pixels of a colour are one instance."""
    truth: dict[int, dict[int, tuple[Rle, ...]]] = {query: {} for query in QUERIES}
    images = []
    for number, path in enumerate(paths, start=11):
        pixels = np.asarray(Image.open(path).convert("RGB"))
        images.append(EvalImage(number, path.name, path, pixels.shape[1], pixels.shape[0]))
        for query, colour in QUERIES.items():
            if colour in COLOURS and (mask := near(pixels, colour)).any():
                truth[query][number] = (masks.encode(mask),)
    queries = tuple(EvalQuery(number, text, (text[0],)) for number, text in QUERIES.items())
    return Dataset("scenes", tuple(images), queries, truth, "0" * 64)


def sessions_of(setup: EvaluationSetup, judge: Judge | None, key: str = "k") -> JudgeSessions:
    """Sessions of all queries; without a judge, asking one fails the test."""
    load = refuse if judge is None else lambda: judge
    return {
        query.text: JudgeSession(
            setup.gallery, load, VerdictCache(setup.gallery, key, query.text), query.text
        )
        for query in setup.queries
    }


def method_of(
    setup: EvaluationSetup,
    sessions: JudgeSessions | None,
    *,
    candidates: int = CANDIDATES,
    keep: int = KEEP,
) -> Method:
    """The method with stage 1 run by colour."""
    stage_1 = run_stage_1(setup, setup.gallery, ColourText(), 50, no_progress)
    return Method(stage_1, sessions, candidates, keep)


def measure(setup: EvaluationSetup, method: Method, imported: Sequence[ImportedMasks] = ()) -> Measurements:
    """All measurements of a method without refinement."""
    return Scorer(setup, method, no_progress).measure(imported)


def means(values: PrecisionByQuery | None) -> float:
    """Mean average precision, divided by min(50, R)."""
    assert values is not None
    return float(np.mean([value.by_relevant for value in values.values()]))
