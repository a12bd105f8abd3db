"""Grounding: from the judge's boxes to stored, refined or missing masks."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import apsw
import pytest

from matir_cli import masks
from matir_cli.engines.protocols import GroundingQuestion, JudgePhoto
from matir_cli.gallery.database import GalleryFile
from matir_cli.gallery.files import forget_files, known_files
from matir_cli.indexing.pipeline import IndexingModels, add_photos
from matir_cli.records import Grounding, Verdict
from matir_cli.search.grounding import MatchOptions, ground_batch, results_by_box, results_by_region
from matir_cli.search.rerank import JudgedCandidate, order_by_verdict, rerank_candidates
from matir_cli.search.results import MATCHED, NO_BOX, REFINED, UNMATCHED, UNREADABLE
from tests.search.judged_gallery import candidates, names, open_scenes, open_session
from tests.support.fakes import ColourEncoder, ColourJudge, ColourProposer
from tests.support.pictures import scene


@pytest.fixture
def gallery(tmp_path: Path) -> Iterator[GalleryFile]:
    with open_scenes(tmp_path) as opened:
        yield opened


def test_the_box_picks_the_stored_mask(gallery: GalleryFile) -> None:
    session = open_session(gallery, ColourJudge())
    ranking = order_by_verdict(list(rerank_candidates(session, candidates(gallery))))
    found = {item.path.stem: item for item in results_by_box(session, ranking, MatchOptions())}
    answer = found["b"].objects[0]
    assert found["b"].grounding == MATCHED
    assert answer.region is not None
    assert answer.region.ordinal == 1
    assert answer.iou is not None
    assert answer.iou > 0.9  # the preview is a JPEG
    assert answer.mask == answer.region.region.rle
    assert (answer.box.x0, answer.box.y0) == (10, 20)
    assert found["a"].grounding == NO_BOX
    assert found["a"].objects == ()


def test_boxes_come_back_in_photo_pixels(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    scene("red", size=(120, 90)).resize((2400, 1800), 0).save(tmp_path / "photos" / "large.png")
    with GalleryFile.open(tmp_path / "gallery.db", create=True) as gallery:
        list(
            add_photos(
                gallery, [tmp_path / "photos"], IndexingModels(ColourProposer, ColourEncoder), previews=True
            )
        )
        session = open_session(gallery, ColourJudge())
        (found,) = results_by_box(
            session, list(rerank_candidates(session, candidates(gallery))), MatchOptions()
        )
    box = found.objects[0].box
    assert [round(edge / 10) for edge in (box.x0, box.y0, box.x1, box.y1)] == [20, 40, 70, 90]


def test_a_box_that_no_region_fits_has_no_mask_unless_refined(gallery: GalleryFile) -> None:
    session = open_session(gallery, ColourJudge(shift=20))
    ranking = [item for item in rerank_candidates(session, candidates(gallery)) if item.verdict][:1]
    (found,) = results_by_box(session, ranking, MatchOptions())
    assert found.grounding == UNMATCHED
    (answer,) = found.objects
    assert answer.mask is None
    assert answer.region is not None
    assert answer.iou is not None
    assert answer.iou < 0.5
    (refined,) = results_by_box(session, ranking, MatchOptions(refiner=ColourProposer))
    assert refined.grounding == REFINED
    mask = refined.objects[0].mask
    assert mask is not None
    assert abs(masks.box(mask).x0 - answer.box.x0) <= 1
    (lenient,) = results_by_box(session, ranking, MatchOptions(min_iou=answer.iou))
    assert lenient.grounding == MATCHED


def test_an_answer_that_cannot_be_read_is_an_outcome_of_its_own(gallery: GalleryFile) -> None:
    session = open_session(gallery, ColourJudge(), "mauve")
    ranking = [JudgedCandidate(item, Verdict(1.0, 0.0)) for item in candidates(gallery)]
    found = list(results_by_box(session, ranking, MatchOptions()))
    assert {item.grounding for item in found} == {UNREADABLE}


def test_nothing_is_asked_twice(gallery: GalleryFile) -> None:
    judge = ColourJudge()
    session = open_session(gallery, judge)
    first = list(
        results_by_box(
            session, order_by_verdict(list(rerank_candidates(session, candidates(gallery)))), MatchOptions()
        )
    )
    assert len(judge.asked) == len(judge.grounded) == 5
    again = open_session(gallery, None)
    ranking = order_by_verdict(list(rerank_candidates(again, candidates(gallery))))
    assert list(results_by_box(again, ranking, MatchOptions())) == first
    assert len(list(rerank_candidates(open_session(gallery, judge, fresh=True), candidates(gallery)))) == 5
    assert len(judge.asked) == 10


def test_questions_of_several_queries_are_one_batch(gallery: GalleryFile) -> None:
    judge = ColourJudge()
    sessions = {query: open_session(gallery, judge, query) for query in ("red", "green")}
    photos = [photo for photo_id in (1, 2) if (photo := sessions["red"].photo(photo_id)) is not None]
    questions = [GroundingQuestion(photo, query) for photo in photos for query in sessions]
    groundings = ground_batch(sessions, questions)
    assert judge.grounded == [1, 1, 2, 2]
    assert [len(grounding.boxes) for grounding in groundings if grounding] == [0, 1, 1, 0]
    cached = [sessions[each.query].cache.grounding(each.photo.key) for each in questions]
    assert cached == groundings
    assert ground_batch(sessions, []) == []


def test_in_a_gallery_that_cannot_be_written_nothing_is_cached(gallery: GalleryFile) -> None:
    uri = f"file:{gallery.path}?mode=ro"
    flags = apsw.SQLITE_OPEN_READONLY | apsw.SQLITE_OPEN_URI
    with GalleryFile(gallery.path, apsw.Connection(uri, flags=flags)) as read_only:
        session = open_session(read_only, ColourJudge())
        ranking = [JudgedCandidate(item, Verdict(1.0, 0.0)) for item in candidates(gallery)]
        results = list(results_by_box(session, ranking, MatchOptions()))
    assert {result.grounding for result in results} == {MATCHED, NO_BOX}
    assert gallery.connection.execute("select count(*) from groundings").get == 0


class Forgetful(ColourJudge):
    """While it looks at a photo, another process takes a photo out of the gallery."""

    def __init__(self, gallery: GalleryFile, name: str, *, at: str) -> None:
        super().__init__()
        self.gallery, self.name, self.at = gallery, name, at

    def rerank(self, photo: JudgePhoto, queries: Sequence[str]) -> Sequence[Verdict | None]:
        self.forget("rerank")
        return super().rerank(photo, queries)

    def ground(self, questions: Sequence[GroundingQuestion]) -> Sequence[Grounding | None]:
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
    session = open_session(gallery, Forgetful(gallery, name, at=at))
    ranking = order_by_verdict(list(rerank_candidates(session, candidates(gallery))))
    found = list(results_by_box(session, ranking, MatchOptions()))
    assert sorted(names(found)) == [other for other in "abcde" if other != name[0]]
    assert [item.rank for item in found] == [1, 2, 3, 4]
    assert names(list(results_by_region(gallery, ranking))) == names(found)
    assert gallery.connection.execute("select count(distinct photo_id) from verdicts").get == 4
