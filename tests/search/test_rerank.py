from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from matir_cli import masks
from matir_cli.engines.protocols import GroundingQuestion, Judge, JudgePhoto
from matir_cli.gallery.database import GalleryFile
from matir_cli.gallery.files import forget_files, known_files
from matir_cli.gallery.verdict_cache import VerdictCache
from matir_cli.indexing.pipeline import IndexingModels, add_photos
from matir_cli.records import Candidate, Grounding, Verdict
from matir_cli.search.grounding import MatchOptions, results_by_box, results_by_region
from matir_cli.search.pipeline import rank_candidates
from matir_cli.search.rerank import JudgedCandidate, JudgeSession, order_by_verdict, rerank_candidates
from matir_cli.search.results import MATCHED, NO_BOX, REFINED, UNMATCHED, UNREADABLE, SearchResult
from tests.support.fakes import ColourEncoder, ColourJudge, ColourProposer, ColourText
from tests.support.pictures import save_scenes


@pytest.fixture
def gallery(tmp_path: Path) -> Iterator[GalleryFile]:
    save_scenes(tmp_path / "photos", a="green", b="red", c="red red", d="blue", e="red red red")
    models = IndexingModels(ColourProposer, ColourEncoder)
    with GalleryFile.open(tmp_path / "gallery.db", create=True) as opened:
        list(add_photos(opened, [tmp_path / "photos"], models, previews=True))
        yield opened


def refuse() -> Judge:
    raise AssertionError("the judge was loaded without need")


def session(
    gallery: GalleryFile, judge: ColourJudge | None, query: str = "red", *, fresh: bool = False
) -> JudgeSession:
    memory = VerdictCache(gallery, "k" * 64, query, fresh=fresh)
    return JudgeSession(gallery, refuse if judge is None else lambda: judge, memory, query)


def candidates(gallery: GalleryFile, query: str = "red") -> list[Candidate]:
    return rank_candidates(gallery, ColourText().encode(query).vector, 10)


def names(found: list[SearchResult]) -> list[str]:
    return [item.path.stem for item in found]


def test_the_judge_puts_candidates_in_its_order(gallery: GalleryFile) -> None:
    judged = list(rerank_candidates(session(gallery, ColourJudge()), candidates(gallery)))
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


def test_the_box_picks_the_stored_mask(gallery: GalleryFile) -> None:
    here = session(gallery, ColourJudge())
    ranking = order_by_verdict(list(rerank_candidates(here, candidates(gallery))))
    found = {item.path.stem: item for item in results_by_box(here, ranking, MatchOptions())}
    answer = found["b"].answers[0]
    assert found["b"].grounding == MATCHED
    assert answer.region is not None
    assert answer.region.ordinal == 1
    assert answer.iou is not None
    assert answer.iou > 0.9  # the preview is a JPEG
    assert answer.mask == answer.region.region.rle
    assert (answer.box.x0, answer.box.y0) == (10, 20)
    assert found["a"].grounding == NO_BOX
    assert found["a"].answers == ()


def test_boxes_come_back_in_photo_pixels(tmp_path: Path) -> None:
    from tests.support.pictures import scene

    (tmp_path / "photos").mkdir()
    scene("red", size=(120, 90)).resize((2400, 1800), 0).save(tmp_path / "photos" / "large.png")
    with GalleryFile.open(tmp_path / "gallery.db", create=True) as gallery:
        list(
            add_photos(
                gallery, [tmp_path / "photos"], IndexingModels(ColourProposer, ColourEncoder), previews=True
            )
        )
        here = session(gallery, ColourJudge())
        (found,) = results_by_box(here, list(rerank_candidates(here, candidates(gallery))), MatchOptions())
    box = found.answers[0].box
    assert [round(edge / 10) for edge in (box.x0, box.y0, box.x1, box.y1)] == [20, 40, 70, 90]


def test_a_box_that_no_region_fits_has_no_mask_unless_refined(gallery: GalleryFile) -> None:
    here = session(gallery, ColourJudge(shift=20))
    ranking = [item for item in rerank_candidates(here, candidates(gallery)) if item.verdict][:1]
    (found,) = results_by_box(here, ranking, MatchOptions())
    assert found.grounding == UNMATCHED
    (answer,) = found.answers
    assert answer.mask is None
    assert answer.region is not None
    assert answer.iou is not None
    assert answer.iou < 0.5
    (refined,) = results_by_box(here, ranking, MatchOptions(refiner=ColourProposer))
    assert refined.grounding == REFINED
    mask = refined.answers[0].mask
    assert mask is not None
    assert abs(masks.box(mask).x0 - answer.box.x0) <= 1
    (lenient,) = results_by_box(here, ranking, MatchOptions(min_iou=answer.iou))
    assert lenient.grounding == MATCHED


def test_an_answer_that_cannot_be_read_is_an_outcome_of_its_own(gallery: GalleryFile) -> None:
    here = session(gallery, ColourJudge(), "mauve")
    ranking = [JudgedCandidate(item, Verdict(1.0, 0.0)) for item in candidates(gallery)]
    found = list(results_by_box(here, ranking, MatchOptions()))
    assert {item.grounding for item in found} == {UNREADABLE}


def test_nothing_is_asked_twice(gallery: GalleryFile) -> None:
    judge = ColourJudge()
    here = session(gallery, judge)
    first = list(
        results_by_box(
            here, order_by_verdict(list(rerank_candidates(here, candidates(gallery)))), MatchOptions()
        )
    )
    assert len(judge.asked) == len(judge.grounded) == 5
    again = session(gallery, None)
    ranking = order_by_verdict(list(rerank_candidates(again, candidates(gallery))))
    assert list(results_by_box(again, ranking, MatchOptions())) == first
    assert len(list(rerank_candidates(session(gallery, judge, fresh=True), candidates(gallery)))) == 5
    assert len(judge.asked) == 10


def test_an_interrupted_ranking_goes_on_where_it_stopped(gallery: GalleryFile) -> None:
    judge = ColourJudge()
    begun = rerank_candidates(session(gallery, judge), candidates(gallery))
    next(begun)
    next(begun)
    begun.close()
    judged = list(rerank_candidates(session(gallery, judge), candidates(gallery)))
    assert None not in [item.verdict for item in judged]
    assert judge.asked == [item.candidate.photo_id for item in judged]  # each once


def test_out_of_time_leaves_the_rest_unjudged(gallery: GalleryFile) -> None:
    judge = ColourJudge()
    judged = list(rerank_candidates(session(gallery, judge), candidates(gallery), lambda: len(judge.asked) < 2))
    ranking = order_by_verdict(judged)
    assert [item.verdict is None for item in ranking] == [False, False, True, True, True]
    rest = [item.candidate.score for item in ranking[2:]]
    assert rest == sorted(rest, reverse=True)
    found = list(results_by_box(session(gallery, judge), ranking, MatchOptions()))
    assert [item.grounding is None for item in found] == [False, False, True, True, True]
    assert all(item.answers[0].mask is not None for item in found[2:])


def test_without_previews_the_file_is_looked_at_while_it_is_as_it_was(tmp_path: Path) -> None:
    (path,) = save_scenes(tmp_path / "photos", a="red")
    with GalleryFile.open(tmp_path / "gallery.db", create=True) as gallery:
        list(add_photos(gallery, [path], IndexingModels(ColourProposer, ColourEncoder), previews=False))
        (judged,) = rerank_candidates(session(gallery, ColourJudge()), candidates(gallery))
        assert judged.verdict is not None
        path.write_bytes(b"changed")
        (judged,) = rerank_candidates(session(gallery, None, fresh=True), candidates(gallery))
        assert judged.verdict is None


def test_the_memory_is_bounded_and_forgets_the_oldest_question(gallery: GalleryFile) -> None:
    for query in ("one", "two", "three", "four"):
        memory = VerdictCache(gallery, "k" * 64, query, limit=6)
        for photo_id in (1, 2, 3):
            memory.remember(photo_id, Verdict(1.0, 0.5))
    kept = [row[0] for row in gallery.connection.execute("select query from questions order by id")]
    assert kept == ["three", "four"]
    assert VerdictCache(gallery, "k" * 64, "three").verdict(2) == Verdict(1.0, 0.5)
    assert VerdictCache(gallery, "k" * 64, "one").verdict(2) is None


class Forgetful(ColourJudge):
    """While it looks at a photo, another process takes a photo out of the gallery."""

    def __init__(self, gallery: GalleryFile, name: str, *, at: str) -> None:
        super().__init__()
        self.gallery, self.name, self.at = gallery, name, at

    def rerank(self, photo: JudgePhoto, queries: Sequence[str]) -> list[Verdict]:
        self.forget("rerank")
        return super().rerank(photo, queries)

    def ground(self, questions: Sequence[GroundingQuestion]) -> list[Grounding]:
        self.forget("ground")
        return super().ground(questions)

    def forget(self, moment: str) -> None:
        if moment == self.at:
            with GalleryFile.open(self.gallery.path) as other:
                known = [file.path for file in known_files(other)]
                list(forget_files(other, [path for path in known if path.name == self.name]))


@pytest.mark.parametrize("at", ["rerank", "ground"])
@pytest.mark.parametrize("name", ["a.png", "c.png", "e.png"])
@pytest.mark.parametrize("previews", [True, False])
def test_a_photo_that_another_process_forgets_is_left_out(
    gallery: GalleryFile, at: str, name: str, previews: bool
) -> None:
    if not previews:
        gallery.connection.execute("delete from previews")
    here = session(gallery, Forgetful(gallery, name, at=at))
    ranking = order_by_verdict(list(rerank_candidates(here, candidates(gallery))))
    found = list(results_by_box(here, ranking, MatchOptions()))
    assert sorted(names(found)) == [other for other in "abcde" if other != name[0]]
    assert [item.rank for item in found] == [1, 2, 3, 4]
    assert names(list(results_by_region(gallery, ranking))) == names(found)
    assert gallery.connection.execute("select count(distinct photo_id) from verdicts").get == 4
