"""Rankings and masks of the methods under evaluation."""

from dataclasses import replace
from pathlib import Path

import pytest

from matir_cli.evaluation.methods import EARLY, NOT_ASKED, BoxMasks, EvaluationSetup, ask_judge
from matir_cli.progress import no_progress
from matir_cli.search.grounding import MatchOptions
from matir_cli.search.results import MATCHED
from tests.evaluation.scenes import SCENES, Recorder, method_of, sessions_of
from tests.support.fakes import ColourJudge


def test_unavailable_photos_are_skipped(setup: EvaluationSetup, paths: list[Path]) -> None:
    setup.gallery.connection.execute("delete from previews")
    paths[0].unlink()
    judge = Recorder()
    sessions = sessions_of(setup, judge)
    method = method_of(setup, sessions)
    ask_judge(setup, sessions, [method], no_progress)
    assert len(judge.calls) == len(SCENES) - 1
    query = setup.queries[1]  # "green", which the deleted photo shows
    assert method.ranking(query)[-1].verdict is None
    boxes = BoxMasks(setup, sessions, MatchOptions())
    assert boxes.predict(query, method.ranking(query)).keys() == {11, 13, 15}
    assert boxes.outcomes == {MATCHED: 2, NOT_ASKED: 1}


def test_average_precision_by_hand(setup: EvaluationSetup) -> None:
    # An invented ranking: red is right at ranks 2 and 4 of 4 relevant images, masks only at rank 4.
    order = [11, 12, 14, 13]
    value = setup.image_precision({1: order})[1]
    assert value.by_relevant == pytest.approx((1 / 2 + 2 / 4) / 4)
    assert value.by_hits == pytest.approx((1 / 2 + 2 / 4) / 2)
    right, wrong = setup.dataset.instances(1, 13)[0], setup.dataset.instances(2, 13)[0]
    value = setup.object_precision(1, order, {12: wrong, 13: right})
    assert value.by_relevant == pytest.approx((1 / 4) / 4)
    assert setup.object_precision(1, order, {}).by_relevant == 0.0


def test_fusion_adds_stage_1_to_the_margin(setup: EvaluationSetup) -> None:
    sessions = sessions_of(setup, ColourJudge())
    method = method_of(setup, sessions)
    ask_judge(setup, sessions, [method], no_progress)
    query = setup.queries[0]
    backwards = replace(method, fusion=-1e6).ranking(query)  # a weight so large that nothing else counts
    scores = [round(item.candidate.score, 3) for item in backwards]
    assert scores == sorted(scores)
    assert scores[0] < scores[-1]
    assert replace(method, fusion={query.id: -1e6}).ranking(query) == backwards
    fused = []
    for item in replace(method, fusion=10.0).ranking(query):
        assert item.verdict is not None
        fused.append(item.verdict.margin + 10 * item.candidate.score)
    assert fused == sorted(fused, reverse=True)


def test_a_method_that_stops_early_leaves_the_others_unjudged(setup: EvaluationSetup) -> None:
    sessions = sessions_of(setup, ColourJudge())
    method = method_of(setup, sessions, keep=1)
    ask_judge(setup, sessions, [method], no_progress)
    early = replace(method, name=EARLY, certainty=0.0)
    every = replace(method, certainty=1.0)
    query = setup.queries[2]  # "blue", of which stage 1 knows the two photos
    assert (method.count_asked(query), every.count_asked(query)) == (6, 6)
    assert 0 < early.count_asked(query) < 6
    wide = replace(early, keep=6).ranking(query)
    assert len(wide) == len({item.candidate.photo_id for item in wide}) == 6
    assert every.ranking(query) == method.ranking(query)
    assert early.ranking(query)[0].verdict == method.ranking(query)[0].verdict is not None
