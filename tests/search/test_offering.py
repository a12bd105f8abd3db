"""Regions that a judge is offered, and searches with a judge that chooses one of them."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import pytest
from PIL import Image

from matir_cli.engines.protocols import GroundingQuestion, JudgePhoto
from matir_cli.gallery.database import GalleryFile
from matir_cli.indexing.pipeline import IndexingModels, add_photos
from matir_cli.model_sets.catalogue import ModelSet, load_model_set
from matir_cli.model_sets.session import ModelSession
from matir_cli.models.tiny import world
from matir_cli.models.tiny.grammar import fulfils, parse
from matir_cli.records import Grounding
from matir_cli.search.box_matching import box_iou
from matir_cli.search.offering import SAME_REGION, box_question, offer_regions
from matir_cli.search.pipeline import SearchOptions, run_search
from matir_cli.search.results import MATCHED
from matir_cli.search.vectors import score_regions
from tests.search.fake_models import ColourModels
from tests.search.judged_gallery import open_scenes, open_session
from tests.support.fakes import ColourEncoder, ColourJudge, ColourProposer, ColourText
from tests.support.pictures import save_scenes


class ChoosingJudge(ColourJudge):
    """Chooses the last of the regions that it is offered."""

    offers = 3

    def ground(self, questions: Sequence[GroundingQuestion]) -> Sequence[Grounding | None]:
        self.grounded += [question.photo.key for question in questions]
        return [Grounding(question.offered[-1:], str(len(question.offered)), True) for question in questions]


@pytest.fixture
def gallery(tmp_path: Path) -> Iterator[GalleryFile]:
    with open_scenes(tmp_path) as opened:
        yield opened


def test_the_most_similar_regions_are_offered_first_and_no_region_twice(gallery: GalleryFile) -> None:
    (path,) = save_scenes(gallery.path.parent / "more", mixed="green red blue")
    list(add_photos(gallery, [path], IndexingModels(ColourProposer, ColourEncoder), previews=True))
    regions = {region.box: region for region in gallery.regions(6) if region.ordinal}
    directions = ColourText().encode("red").vector[np.newaxis]
    offered = offer_regions(gallery, 6, directions, 9)
    assert len(offered) == len(regions) == 3
    ids = np.array([regions[box].id for box in offered])
    scores = score_regions(gallery, ids, directions)[0]
    assert scores.tolist() == sorted(scores, reverse=True)
    assert scores[0] > 0.9 > scores[1]
    assert offer_regions(gallery, 6, directions, 2) == offered[:2]
    assert offer_regions(gallery, 999, directions, 9) == []
    # A region whose box is that of a better one is not offered.
    first = regions[offered[0]].box
    gallery.connection.execute(
        "update regions set x0 = ?, y0 = ?, x1 = ?, y1 = ? where id = ?",
        (first.x0, first.y0, first.x1, first.y1, int(ids[1])),
    )
    assert len(offer_regions(gallery, 6, directions, 9)) == 2
    assert all(box_iou(a, b) < SAME_REGION for a in offered for b in offered if a is not b)


def test_boxes_are_offered_in_pixels_of_the_picture_that_is_shown(gallery: GalleryFile) -> None:
    judge = ChoosingJudge()
    session = replace(
        open_session(gallery, judge), directions=lambda: ColourText().encode("red").vector[np.newaxis]
    )
    small = JudgePhoto(3, np.zeros((30, 45, 3), np.uint8))
    record = gallery.photo(3).record
    boxes = offer_regions(gallery, 3, ColourText().encode("red").vector[np.newaxis], judge.offers)
    assert box_question(session, small).offered == tuple(record.scaled_to(box, 45, 30) for box in boxes)
    # Nothing is offered to a judge that writes boxes, without a direction, and of a photo that is gone.
    assert box_question(replace(session, judge=ColourJudge), small).offered == ()
    assert box_question(replace(session, directions=None), small).offered == ()
    assert box_question(session, replace(small, key=999)).offered == ()


def test_the_region_chosen_is_the_answer_and_is_remembered(gallery: GalleryFile) -> None:
    models = ColourModels(judge=ChoosingJudge())
    options = SearchOptions(limit=2, certainty=1)
    first = run_search(gallery, models, "red", options)
    for result in first.results:
        (chosen,) = result.objects
        directions = ColourText().encode("red").vector[np.newaxis]
        boxes = offer_regions(gallery, result.photo.id, directions, ChoosingJudge.offers)
        assert chosen.region is not None
        assert chosen.region.box == boxes[-1]
        assert chosen.iou == pytest.approx(1)
        assert result.grounding == MATCHED
    assert run_search(gallery, models, "red", options) == first
    assert len(models.judge.grounded) == 2


def choosing(models: ModelSet) -> ModelSet:
    """The set with a judge that chooses."""
    parts = tuple(
        msgspec.structs.replace(part, options={**part.options, "grounding": "choose"})
        if part.kind == "judge"
        else part
        for part in models.parts
    )
    return msgspec.structs.replace(models, parts=parts)


def test_the_tiny_judge_chooses_regions_from_files_to_masks(tmp_path: Path) -> None:
    start = world.SPLITS["validation"].start
    drawn = [world.picture(seed) for seed in range(start, start + 12)]
    for each in drawn:
        Image.fromarray(each.image).save(tmp_path / f"{each.seed}.png")
    tiny = load_model_set("tiny")
    with GalleryFile.open(tmp_path / "gallery.db", create=True) as gallery:
        writing, chooser = (ModelSession(gallery, each, "cpu") for each in (tiny, choosing(tiny)))
        writing.bind()
        list(add_photos(gallery, [tmp_path], IndexingModels.of(writing), previews=True))
        written = run_search(gallery, writing, "house", SearchOptions(limit=4, match="iou"))
        chosen = run_search(gallery, chooser, "house", SearchOptions(limit=4, match="iou"))
        writing.release_judge()
        assert chooser.judge.offers == 9
        chooser.release_judge()
        assert writing.judge_key != chooser.judge_key  # so neither takes the other's answers
    houses = {str(each.seed) for each in drawn if fulfils(parse("house"), each)}
    for outcome in (written, chosen):
        assert len(outcome.results) == 4
        assert {each.path.stem for each in outcome.results[:2]} <= houses
    assert [each.path for each in chosen.results] == [each.path for each in written.results]
    for result in chosen.results:
        (answer,) = result.objects
        assert result.grounding == MATCHED
        assert answer.iou == pytest.approx(1, abs=1e-6)
        assert answer.mask is not None
