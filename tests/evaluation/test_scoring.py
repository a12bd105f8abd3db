"""Measurements of a method, from rankings and stored answers."""

from dataclasses import replace

import numpy as np

from matir_cli.evaluation.methods import BoxMasks, EvaluationSetup, ask_judge
from matir_cli.progress import no_progress
from matir_cli.search.grounding import MatchOptions
from tests.evaluation.scenes import means, measure, method_of, sessions_of
from tests.support.fakes import ColourJudge, ColourText


def test_a_perfect_judge_scores_one(setup: EvaluationSetup) -> None:
    sessions = sessions_of(setup, ColourJudge())
    method = method_of(setup, sessions)
    ask_judge(setup, sessions, [method], no_progress)
    measurements = measure(setup, method)
    assert [query.text for query in setup.queries] == ["red", "green", "blue"]  # nothing is mauve
    assert means(measurements.matir) == means(measurements.boxes) == 1.0
    assert means(measurements.best_region_reranked) == 1.0
    assert measurements.refined is None


def test_the_best_fitting_region_is_taken_at_any_iou(setup: EvaluationSetup) -> None:
    sessions = sessions_of(setup, ColourJudge(shift=12))
    method = method_of(setup, sessions)
    ask_judge(setup, sessions, [method], no_progress)
    assert means(measure(setup, method).boxes) == 1.0
    strict = BoxMasks(setup, sessions, MatchOptions(min_iou=0.5))
    predicted = strict.predict(setup.queries[0], method.ranking(setup.queries[0]))
    assert set(predicted.values()) == {None}


def test_directions_match_regions_jointly(setup: EvaluationSetup) -> None:
    # 20 pixels off, the boxes of some squares meet their neighbours more.
    sessions = sessions_of(setup, ColourJudge(shift=20))
    by_iou = method_of(setup, sessions)
    ask_judge(setup, sessions, [by_iou], no_progress)
    directions = {query.id: 5 * ColourText().encode(query.text).vector[np.newaxis] for query in setup.queries}
    jointly = replace(by_iou, directions=directions)
    assert means(measure(setup, by_iou).boxes) < means(measure(setup, jointly).boxes) == 1.0
