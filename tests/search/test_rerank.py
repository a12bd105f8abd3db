"""Reranking: the order of verdicts, the cache, time limits and interruptions."""

from collections.abc import Generator, Iterator
from pathlib import Path

import pytest

from matir_cli.gallery.database import GalleryFile
from matir_cli.gallery.verdict_cache import VerdictCache
from matir_cli.indexing.pipeline import IndexingModels, add_photos
from matir_cli.records import Candidate, Verdict
from matir_cli.search.grounding import MatchOptions, results_by_box, results_by_region
from matir_cli.search.rerank import JudgedCandidate, order_by_verdict, rerank_candidates
from tests.search.judged_gallery import candidates, names, open_scenes, open_session
from tests.support.fakes import ColourEncoder, ColourJudge, ColourProposer
from tests.support.pictures import save_scenes


@pytest.fixture
def gallery(tmp_path: Path) -> Iterator[GalleryFile]:
    with open_scenes(tmp_path) as opened:
        yield opened


def test_the_judge_puts_candidates_in_its_order(gallery: GalleryFile) -> None:
    judged = list(rerank_candidates(open_session(gallery, ColourJudge()), candidates(gallery)))
    ranking = order_by_verdict(judged)
    found = list(results_by_region(gallery, ranking))
    assert names(found)[:3] == ["e", "c", "b"]
    assert [item.rank for item in found] == [1, 2, 3, 4, 5]
    scores = [item.score for item in found]
    assert scores == sorted(scores, reverse=True)
    assert 0 < scores[-1] < 0.5 < scores[0] < 1


def test_equal_margins_fall_back_to_stage_1_then_to_the_id() -> None:
    same = Verdict(900.0, 0.0)  # S' is 1.0 for both of these: only the margin tells them apart
    better = Verdict(901.0, 0.0)
    assert same.p_true == better.p_true == 1.0
    judged = [
        JudgedCandidate(Candidate(3, 0, 0.1), None),
        JudgedCandidate(Candidate(2, 0, 0.2), same),
        JudgedCandidate(Candidate(5, 0, 0.3), same),
        JudgedCandidate(Candidate(4, 0, 0.3), same),
        JudgedCandidate(Candidate(1, 0, 0.0), better),
        JudgedCandidate(Candidate(6, 0, 0.4), None),
    ]
    assert [item.candidate.photo_id for item in order_by_verdict(judged)] == [1, 4, 5, 2, 6, 3]


def test_stage_1_counts_by_its_weight_where_it_is_fused() -> None:
    judged = [
        JudgedCandidate(Candidate(1, 0, 0.9), Verdict(-1.0, 0.0)),
        JudgedCandidate(Candidate(2, 0, 0.2), Verdict(1.0, 0.0)),
        JudgedCandidate(Candidate(3, 0, 0.8), None),
    ]
    for fusion, expected in ((0.0, [2, 1, 3]), (2.8, [2, 1, 3]), (2.9, [1, 2, 3])):  # 2 / 0.7 = 2.857
        assert [item.candidate.photo_id for item in order_by_verdict(judged, fusion)] == expected


def test_an_interrupted_ranking_goes_on_where_it_stopped(gallery: GalleryFile) -> None:
    judge = ColourJudge()
    begun = rerank_candidates(open_session(gallery, judge), candidates(gallery))
    next(begun)
    next(begun)
    assert isinstance(begun, Generator)
    begun.close()
    judged = list(rerank_candidates(open_session(gallery, judge), candidates(gallery)))
    assert None not in [item.verdict for item in judged]
    assert judge.asked == [item.candidate.photo_id for item in judged]  # each once


def test_a_photo_that_cannot_be_judged_does_not_end_the_query(gallery: GalleryFile) -> None:
    judge = ColourJudge(unjudged=frozenset({3}))
    session = open_session(gallery, judge)
    judged = list(rerank_candidates(session, candidates(gallery)))
    assert {item.candidate.photo_id for item in judged if item.failed} == {3} == session.failed
    assert {item.candidate.photo_id for item in judged if item.verdict is None} == {3}
    assert order_by_verdict(judged)[-1].failed
    results = {item.photo.id: item.judge_failed for item in results_by_region(gallery, judged)}
    assert results == {1: False, 2: False, 3: True, 4: False, 5: False}
    assert session.cache.verdict(3) is None
    # In this session it is not asked about again, in the next one it is.
    list(rerank_candidates(session, candidates(gallery)))
    assert judge.asked.count(3) == 1
    list(rerank_candidates(open_session(gallery, judge), candidates(gallery)))
    assert sorted(judge.asked) == [1, 2, 3, 3, 4, 5]


def test_out_of_time_leaves_the_rest_unjudged(gallery: GalleryFile) -> None:
    judge = ColourJudge()
    judged = list(
        rerank_candidates(open_session(gallery, judge), candidates(gallery), lambda: len(judge.asked) < 2)
    )
    ranking = order_by_verdict(judged)
    assert [item.verdict is None for item in ranking] == [False, False, True, True, True]
    rest = [item.candidate.score for item in ranking[2:]]
    assert rest == sorted(rest, reverse=True)
    found = list(results_by_box(open_session(gallery, judge), ranking, MatchOptions()))
    assert [item.grounding is None for item in found] == [False, False, True, True, True]
    assert all(item.objects[0].mask is not None for item in found[2:])


def test_without_previews_the_file_is_looked_at_while_it_is_as_it_was(tmp_path: Path) -> None:
    (path,) = save_scenes(tmp_path / "photos", a="red")
    with GalleryFile.open(tmp_path / "gallery.db", create=True) as gallery:
        list(add_photos(gallery, [path], IndexingModels(ColourProposer, ColourEncoder), previews=False))
        (judged,) = rerank_candidates(open_session(gallery, ColourJudge()), candidates(gallery))
        assert judged.verdict is not None
        path.write_bytes(b"changed")
        (judged,) = rerank_candidates(open_session(gallery, None, fresh=True), candidates(gallery))
        assert judged.verdict is None


def test_the_cache_is_bounded_and_forgets_the_oldest_question(gallery: GalleryFile) -> None:
    for query in ("one", "two", "three", "four"):
        cache = VerdictCache(gallery, "k" * 64, query, limit=6)
        for photo_id in (1, 2, 3):
            cache.remember(photo_id, Verdict(1.0, 0.5))
    kept = [row[0] for row in gallery.connection.execute("select query from questions order by id")]
    assert kept == ["three", "four"]
    assert VerdictCache(gallery, "k" * 64, "three").verdict(2) == Verdict(1.0, 0.5)
    assert VerdictCache(gallery, "k" * 64, "one").verdict(2) is None
