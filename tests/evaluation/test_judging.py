"""Questions to the judge: which are asked, stored, and asked again."""

from dataclasses import replace

import pytest

from matir_cli.evaluation.methods import EvaluationSetup, ask_judge
from matir_cli.progress import no_progress
from matir_cli.search.grounding import MatchOptions, results_by_box
from matir_cli.search.rank import rank_photos
from matir_cli.search.rerank import order_by_verdict, rerank_candidates
from tests.evaluation.scenes import SCENES, Recorder, method_of, sessions_of
from tests.support.fakes import ColourJudge, ColourText


def test_each_photo_is_encoded_once_and_asked_all_its_questions(setup: EvaluationSetup) -> None:
    judge = Recorder()
    sessions = sessions_of(setup, judge)
    method = method_of(setup, sessions)
    ask_judge(setup, sessions, [method, replace(method, keep=1)], no_progress)
    assert [photo for photo, _ in judge.calls] == sorted(setup.image_index.images)
    assert {texts for _, texts in judge.calls} == {("red", "green", "blue")}
    # Boxes are asked for in relevant photos only, several photos in one batch.
    assert judge.batches == [3, 3, 3]
    ask_judge(setup, sessions_of(setup, None), [method], no_progress)


def test_stored_answers_equal_those_of_searching_query_by_query(setup: EvaluationSetup) -> None:
    sessions = sessions_of(setup, ColourJudge())
    ask_judge(setup, sessions, [method_of(setup, sessions)], no_progress, everywhere=True)
    silent, plain = sessions_of(setup, None), sessions_of(setup, ColourJudge(), key="another judge")
    for query in setup.queries:
        ranked = rank_photos(setup.gallery, ColourText().encode(query.text).vector, 50)
        results = []
        for session in (silent[query.text], plain[query.text]):
            judged = order_by_verdict(list(rerank_candidates(session, ranked)))
            results.append(list(results_by_box(session, judged, MatchOptions())))
        assert len(results[0]) == len(SCENES)
        assert results[0] == results[1]


def test_a_photo_about_which_the_judge_cannot_answer_is_noted(setup: EvaluationSetup) -> None:
    odd = min(setup.image_index.images)
    judge = ColourJudge(unjudged=frozenset({odd}), ungrounded=frozenset({odd + 1}))
    sessions = sessions_of(setup, judge)
    method = method_of(setup, sessions)
    ask_judge(setup, sessions, [method], no_progress, everywhere=True)
    assert {query for query, session in sessions.items() if odd in session.failed} == {"red", "green", "blue"}
    assert set().union(*(session.failed for session in sessions.values())) == {odd}
    # Ranking asks nothing again.
    asked = list(judge.asked)
    ranking = [item for query in setup.queries for item in method.ranking(query)]
    assert judge.asked == asked
    assert {item.candidate.photo_id for item in ranking if item.failed} == {odd}


def test_a_stopped_evaluation_resumes_at_the_photo_it_had_reached(setup: EvaluationSetup) -> None:
    impatient = Recorder(patience=2)
    sessions = sessions_of(setup, impatient)
    with pytest.raises(KeyboardInterrupt):
        ask_judge(setup, sessions, [method_of(setup, sessions)], no_progress)
    judge = Recorder()
    sessions = sessions_of(setup, judge)
    ask_judge(setup, sessions, [method_of(setup, sessions)], no_progress)
    assert len(impatient.calls) == 2
    assert [photo for photo, _ in impatient.calls + judge.calls] == sorted(setup.image_index.images)


def test_more_candidates_ask_only_new_questions(setup: EvaluationSetup) -> None:
    judge = Recorder()
    sessions = sessions_of(setup, judge)
    narrow, wide = method_of(setup, sessions, candidates=2), method_of(setup, sessions)
    ask_judge(setup, sessions, [narrow], no_progress)
    first = sum(len(texts) for _, texts in judge.calls)
    ask_judge(setup, sessions, [narrow, wide], no_progress)
    assert (first, sum(len(texts) for _, texts in judge.calls)) == (6, 3 * len(SCENES))
