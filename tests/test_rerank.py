from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from matir_cli import answers, files, find, masks, rerank
from matir_cli.add import Models, add
from matir_cli.answers import Found, Matching
from matir_cli.gallery import GalleryFile
from matir_cli.protocols import Grounding, GroundingQuestion, Judge, JudgePhoto, Verdict
from matir_cli.records import Candidate
from matir_cli.rerank import Judged, JudgeRoom
from matir_cli.verdicts import Verdicts
from tests.fakes import ColourEncoder, ColourJudge, ColourProposer, ColourText
from tests.pictures import save_scenes


@pytest.fixture
def gallery(tmp_path: Path) -> Iterator[GalleryFile]:
    save_scenes(tmp_path / "photos", a="green", b="red", c="red red", d="blue", e="red red red")
    models = Models(ColourProposer, ColourEncoder)
    with GalleryFile.open(tmp_path / "gallery.db", create=True) as opened:
        list(add(opened, [tmp_path / "photos"], models, previews=True))
        yield opened


def refuse() -> Judge:
    raise AssertionError("the judge was loaded without need")


def room(
    gallery: GalleryFile, judge: ColourJudge | None, query: str = "red", *, fresh: bool = False
) -> JudgeRoom:
    memory = Verdicts(gallery, "k" * 64, query, fresh=fresh)
    return JudgeRoom(gallery, refuse if judge is None else lambda: judge, memory, query)


def candidates(gallery: GalleryFile, query: str = "red") -> list[Candidate]:
    return find.candidates(gallery, ColourText().encode(query).vector, 10)


def names(found: list[Found]) -> list[str]:
    return [item.path.stem for item in found]


def test_the_judge_puts_candidates_in_its_order(gallery: GalleryFile) -> None:
    judged = list(rerank.rerank(room(gallery, ColourJudge()), candidates(gallery)))
    ranking = rerank.in_order(judged)
    found = list(answers.by_region(gallery, ranking))
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
        Judged(Candidate(3, 0, 0.1), None),
        Judged(Candidate(2, 0, 0.2), same),
        Judged(Candidate(5, 0, 0.3), same),
        Judged(Candidate(4, 0, 0.3), same),
        Judged(Candidate(1, 0, 0.0), better),
        Judged(Candidate(6, 0, 0.4), None),
    ]
    assert [item.candidate.photo_id for item in rerank.in_order(judged)] == [1, 4, 5, 2, 6, 3]


def test_the_box_picks_the_stored_mask(gallery: GalleryFile) -> None:
    here = room(gallery, ColourJudge())
    ranking = rerank.in_order(list(rerank.rerank(here, candidates(gallery))))
    found = {item.path.stem: item for item in answers.by_box(here, ranking, Matching())}
    answer = found["b"].answers[0]
    assert found["b"].grounding == answers.MATCHED
    assert answer.region is not None
    assert answer.region.ordinal == 1
    assert answer.iou is not None
    assert answer.iou > 0.9  # the preview is a JPEG
    assert answer.mask == answer.region.region.rle
    assert (answer.box.x0, answer.box.y0) == (10, 20)
    assert found["a"].grounding == answers.NO_BOX
    assert found["a"].answers == ()


def test_boxes_come_back_in_photo_pixels(tmp_path: Path) -> None:
    from tests.pictures import scene

    (tmp_path / "photos").mkdir()
    scene("red", size=(120, 90)).resize((2400, 1800), 0).save(tmp_path / "photos" / "large.png")
    with GalleryFile.open(tmp_path / "gallery.db", create=True) as gallery:
        list(add(gallery, [tmp_path / "photos"], Models(ColourProposer, ColourEncoder), previews=True))
        here = room(gallery, ColourJudge())
        (found,) = answers.by_box(here, list(rerank.rerank(here, candidates(gallery))), Matching())
    box = found.answers[0].box
    assert [round(edge / 10) for edge in (box.x0, box.y0, box.x1, box.y1)] == [20, 40, 70, 90]


def test_a_box_that_no_region_fits_has_no_mask_unless_refined(gallery: GalleryFile) -> None:
    here = room(gallery, ColourJudge(shift=20))
    ranking = [item for item in rerank.rerank(here, candidates(gallery)) if item.verdict][:1]
    (found,) = answers.by_box(here, ranking, Matching())
    assert found.grounding == answers.UNMATCHED
    (answer,) = found.answers
    assert answer.mask is None
    assert answer.region is not None
    assert answer.iou is not None
    assert answer.iou < 0.5
    (refined,) = answers.by_box(here, ranking, Matching(refiner=ColourProposer))
    assert refined.grounding == answers.REFINED
    mask = refined.answers[0].mask
    assert mask is not None
    assert abs(masks.box(mask).x0 - answer.box.x0) <= 1
    (lenient,) = answers.by_box(here, ranking, Matching(min_iou=answer.iou))
    assert lenient.grounding == answers.MATCHED


def test_an_answer_that_cannot_be_read_is_an_outcome_of_its_own(gallery: GalleryFile) -> None:
    here = room(gallery, ColourJudge(), "mauve")
    ranking = [Judged(item, Verdict(1.0, 0.0)) for item in candidates(gallery)]
    found = list(answers.by_box(here, ranking, Matching()))
    assert {item.grounding for item in found} == {answers.UNREADABLE}


def test_nothing_is_asked_twice(gallery: GalleryFile) -> None:
    judge = ColourJudge()
    here = room(gallery, judge)
    first = list(
        answers.by_box(here, rerank.in_order(list(rerank.rerank(here, candidates(gallery)))), Matching())
    )
    assert len(judge.asked) == len(judge.grounded) == 5
    again = room(gallery, None)
    ranking = rerank.in_order(list(rerank.rerank(again, candidates(gallery))))
    assert list(answers.by_box(again, ranking, Matching())) == first
    assert len(list(rerank.rerank(room(gallery, judge, fresh=True), candidates(gallery)))) == 5
    assert len(judge.asked) == 10


def test_an_interrupted_ranking_goes_on_where_it_stopped(gallery: GalleryFile) -> None:
    judge = ColourJudge()
    begun = rerank.rerank(room(gallery, judge), candidates(gallery))
    next(begun)
    next(begun)
    begun.close()
    judged = list(rerank.rerank(room(gallery, judge), candidates(gallery)))
    assert None not in [item.verdict for item in judged]
    assert judge.asked == [item.candidate.photo_id for item in judged]  # each once


def test_out_of_time_leaves_the_rest_unjudged(gallery: GalleryFile) -> None:
    judge = ColourJudge()
    judged = list(rerank.rerank(room(gallery, judge), candidates(gallery), lambda: len(judge.asked) < 2))
    ranking = rerank.in_order(judged)
    assert [item.verdict is None for item in ranking] == [False, False, True, True, True]
    rest = [item.candidate.score for item in ranking[2:]]
    assert rest == sorted(rest, reverse=True)
    found = list(answers.by_box(room(gallery, judge), ranking, Matching()))
    assert [item.grounding is None for item in found] == [False, False, True, True, True]
    assert all(item.answers[0].mask is not None for item in found[2:])


def test_without_previews_the_file_is_looked_at_while_it_is_as_it_was(tmp_path: Path) -> None:
    (path,) = save_scenes(tmp_path / "photos", a="red")
    with GalleryFile.open(tmp_path / "gallery.db", create=True) as gallery:
        list(add(gallery, [path], Models(ColourProposer, ColourEncoder), previews=False))
        (judged,) = rerank.rerank(room(gallery, ColourJudge()), candidates(gallery))
        assert judged.verdict is not None
        path.write_bytes(b"changed")
        (judged,) = rerank.rerank(room(gallery, None, fresh=True), candidates(gallery))
        assert judged.verdict is None


def test_the_memory_is_bounded_and_forgets_the_oldest_question(gallery: GalleryFile) -> None:
    for query in ("one", "two", "three", "four"):
        memory = Verdicts(gallery, "k" * 64, query, limit=6)
        for photo_id in (1, 2, 3):
            memory.remember(photo_id, Verdict(1.0, 0.5))
    kept = [row[0] for row in gallery.connection.execute("select query from questions order by id")]
    assert kept == ["three", "four"]
    assert Verdicts(gallery, "k" * 64, "three").verdict(2) == Verdict(1.0, 0.5)
    assert Verdicts(gallery, "k" * 64, "one").verdict(2) is None


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
                known = [file.path for file in files.known(other)]
                list(files.forget(other, [path for path in known if path.name == self.name]))


@pytest.mark.parametrize("at", ["rerank", "ground"])
@pytest.mark.parametrize("name", ["a.png", "c.png", "e.png"])
@pytest.mark.parametrize("previews", [True, False])
def test_a_photo_that_another_process_forgets_is_left_out(
    gallery: GalleryFile, at: str, name: str, previews: bool
) -> None:
    if not previews:
        gallery.connection.execute("delete from previews")
    here = room(gallery, Forgetful(gallery, name, at=at))
    ranking = rerank.in_order(list(rerank.rerank(here, candidates(gallery))))
    found = list(answers.by_box(here, ranking, Matching()))
    assert sorted(names(found)) == [other for other in "abcde" if other != name[0]]
    assert [item.rank for item in found] == [1, 2, 3, 4]
    assert names(list(answers.by_region(gallery, ranking))) == names(found)
    assert gallery.connection.execute("select count(distinct photo_id) from verdicts").get == 4
