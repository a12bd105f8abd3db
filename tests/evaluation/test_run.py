"""One evaluation run, with queries encoded by colour."""

from collections import Counter
from pathlib import Path

from matir_cli.engines.protocols import QueryVector
from matir_cli.evaluation.coverage import annotated_objects
from matir_cli.evaluation.methods import EvaluationSetup, query_encoder
from matir_cli.evaluation.run import EvaluationPlan, open_judge_sessions, run_evaluation
from matir_cli.model_sets.catalogue import load_model_set
from matir_cli.model_sets.session import ModelSession
from matir_cli.progress import no_progress
from tests.support.fakes import ColourText


def test_sessions_are_of_one_judge_and_load_nothing(setup: EvaluationSetup) -> None:
    models = ModelSession(setup.gallery, load_model_set("tiny"), "cpu")
    sessions = open_judge_sessions(setup, models, query_encoder(setup.gallery, models))
    assert list(sessions) == ["red", "green", "blue"]
    assert all(session.query == text for text, session in sessions.items())
    assert "judge" not in vars(models)


def test_texts_are_encoded_once_for_each_way_to_search(setup: EvaluationSetup, tmp_path: Path) -> None:
    class Counting(ColourText):
        """Counts what it encodes."""

        def __init__(self) -> None:
            self.counts = Counter[str]()

        def encode(self, query: str) -> QueryVector:
            self.counts[query] += 1
            return super().encode(query)

    encoder = Counting()

    class CountingSession(ModelSession):
        text_encoder = encoder

    models = CountingSession(setup.gallery, load_model_set("tiny"), "cpu")
    assert (models.match, models.fusion > 0) == ("joint", True)
    plan = EvaluationPlan(judge=False, baselines=(), methods=("parts",))
    outcome = run_evaluation(
        setup, models, plan, annotated_objects(setup.dataset), tmp_path / "out", no_progress
    )
    assert len(outcome.comparison.methods) == 2
    # The paper's method and the one with parts; weights and directions of the latter take no further one.
    assert encoder.counts == {query.text: 2 for query in setup.queries}


def test_a_run_without_baselines_or_judge_fills_the_tables_of_stage_1(
    setup: EvaluationSetup, tmp_path: Path
) -> None:
    class ColourSession(ModelSession):
        """The tiny set's files, with queries encoded by colour."""

        text_encoder = ColourText()

    models = ColourSession(setup.gallery, load_model_set("tiny"), "cpu")
    plan = EvaluationPlan(judge=False, baselines=())
    outcome = run_evaluation(
        setup, models, plan, annotated_objects(setup.dataset), tmp_path / "out", no_progress
    )
    assert outcome.coverage.covered == (9, 9)
    assert outcome.groundings == {}
    assert {len(ranking) for ranking in outcome.rankings.values()} == {6}
    stage_1 = next(row for row in outcome.tables[0].rows if "stage 1" in row.method)
    assert stage_1.summary is not None
    assert stage_1.summary.mean_by_relevant == 1.0
    assert outcome.masks.keys() == outcome.rankings.keys() == {1, 2, 3}
