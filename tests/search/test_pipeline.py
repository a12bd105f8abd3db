"""Both stages together: what must not be in a photo, thresholds, and parts of a gallery."""

import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from matir_cli import masks
from matir_cli.engines.protocols import JudgePhoto
from matir_cli.errors import GalleryEmpty, OutOfRange, QueryContradicts, QueryEmpty
from matir_cli.gallery.database import GalleryFile
from matir_cli.indexing.pipeline import IndexingModels, add_photos
from matir_cli.records import Point, Verdict
from matir_cli.search.events import (
    SearchOutcome,
)
from matir_cli.search.filters import Filters
from matir_cli.search.pipeline import SearchOptions, check_searchable, run_search
from matir_cli.search.query import Example, Query
from matir_cli.search.rerank import combine_verdicts
from matir_cli.search.results import MATCHED, UNMATCHED
from tests.search.fake_models import ColourModels
from tests.support.fakes import ColourEncoder, ColourJudge, ColourProposer
from tests.support.pictures import save_scenes


class Undecided(ColourJudge):
    """Sees a colour where there is any of it, and is sure of nothing."""

    def verdict(self, photo: JudgePhoto, query: str) -> Verdict:
        return Verdict(2.0 if super().verdict(photo, query).z_true > 1 else -2.0, 0.0)


@pytest.fixture
def gallery(tmp_path: Path) -> Iterator[GalleryFile]:
    save_scenes(
        tmp_path / "photos",
        a_green="green",
        b_red="red",
        c_both="red green",
        d_blue="blue",
        e_red_twice="red red",
    )
    with GalleryFile.open(tmp_path / "gallery.db", create=True) as opened:
        list(
            add_photos(
                opened, [tmp_path / "photos"], IndexingModels(ColourProposer, ColourEncoder), previews=True
            )
        )
        yield opened


def names(result: SearchOutcome) -> list[str]:
    return [item.path.stem for item in result.results]


def logit(p: float) -> float:
    return math.log(p / (1 - p))


def test_but_not_is_the_product_of_the_probabilities() -> None:
    def verdict(p: float) -> Verdict:
        return Verdict(logit(p), 0.0)

    plain = verdict(0.8)
    assert combine_verdicts(plain, []) is plain
    assert combine_verdicts(plain, [verdict(0.3)]).p_true == pytest.approx(0.8 * 0.7)
    assert combine_verdicts(plain, [verdict(0.3), verdict(0.6), verdict(0.1)]).p_true == pytest.approx(0.32)
    both = combine_verdicts(plain, [verdict(0.3)])
    assert math.exp(both.z_true) + math.exp(both.z_false) == pytest.approx(1)
    assert both.margin == pytest.approx(logit(0.56))


def test_but_not_ranks_where_probabilities_saturate() -> None:
    ranking = [
        combine_verdicts(Verdict(wanted, 0.0), [Verdict(unwanted, 0.0)])
        for wanted, unwanted in ((60, -60), (50, -60), (50, -45), (0, -50), (-50, -50), (50, 60), (-70, 0))
    ]
    margins = [verdict.margin for verdict in ranking]
    assert margins == sorted(margins, reverse=True)
    assert len(set(margins)) == len(margins)
    assert all(math.isfinite(margin) for margin in margins)
    assert margins[3] == pytest.approx(0)
    assert margins[4] == pytest.approx(-50)
    assert margins[5] == pytest.approx(-60)


def test_what_must_not_be_there_is_asked_about_at_once_and_remembered(gallery: GalleryFile) -> None:
    models = ColourModels(Undecided())
    without = run_search(gallery, models, Query("red", without=("green",)), SearchOptions(ground=False))
    assert set(names(without)[:2]) == {"b_red", "e_red_twice"}
    assert sorted(models.judge.asked) == [1, 2, 3, 4, 5]
    p = {item.path.stem: item.verdict.p_true for item in without.results if item.verdict is not None}
    yes, no = 1 / (1 + math.exp(-2)), 1 / (1 + math.exp(2))
    assert p["b_red"] == pytest.approx(yes * yes)
    assert p["c_both"] == pytest.approx(yes * no)
    assert p["a_green"] == pytest.approx(no * no)
    # Each text is a question of its own: what was said of one is known when it is asked for alone.
    models.judge.asked.clear()
    again = run_search(gallery, models, Query("red", without=("green",)), SearchOptions(ground=False))
    alone = run_search(gallery, models, "red", SearchOptions(ground=False))
    green = run_search(gallery, models, "green", SearchOptions(ground=False))
    assert models.judge.asked == []
    assert names(again) == names(without)
    assert {round(item.score, 6) for item in alone.results} == {round(yes, 6), round(no, 6)}
    assert set(names(green)[:2]) == {"a_green", "c_both"}
    # Only what is new is asked: of these, blue.
    run_search(gallery, models, Query("red", without=("green", "blue")), SearchOptions(ground=False))
    assert len(models.judge.asked) == 5


def test_photos_that_cannot_be_judged_are_counted_and_named(gallery: GalleryFile) -> None:
    judge = ColourJudge(unjudged=frozenset({2}), ungrounded=frozenset({5}))
    result = run_search(gallery, ColourModels(judge), "red", SearchOptions())
    assert (result.candidates, result.judged) == (5, 4)
    assert [path.name for path in result.unanswered] == ["b_red.png"]
    failed = result.results[-1]
    assert (failed.path.stem, failed.verdict, failed.judge_failed) == ("b_red", None, True)
    assert failed.score == failed.candidate.score
    by_name = {item.path.stem: item for item in result.results}
    assert by_name["c_both"].grounding is not None
    assert by_name["e_red_twice"].grounding is None, "the mask is that of stage 1"
    likely = run_search(gallery, ColourModels(judge), "red", SearchOptions(min_p=0.5))
    assert "b_red" not in names(likely)
    assert len(likely.unanswered) == 1


def test_fresh_asks_about_both_again(gallery: GalleryFile) -> None:
    models = ColourModels()
    asked = Query("red", without=("green",))
    run_search(gallery, models, asked, SearchOptions(ground=False))
    gallery.connection.execute("update verdicts set z_true = 99, z_false = 0")
    result = run_search(gallery, models, asked, SearchOptions(ground=False, fresh=True))
    assert len(models.judge.asked) == 10
    assert len({item.score for item in result.results}) > 2


def test_no_match_is_an_answer(gallery: GalleryFile) -> None:
    models = ColourModels()
    none = run_search(gallery, models, "red", SearchOptions(rerank=False, min_score=1.1))
    assert none.results == []
    assert none.best_score == pytest.approx(0.995, abs=0.01)
    low = run_search(gallery, models, "red", SearchOptions(min_p=0.999999, ground=False))
    assert low.results == []
    assert low.best_p is not None
    assert 0.5 < low.best_p < 0.999999
    some = run_search(gallery, models, "red", SearchOptions(min_p=0.5, ground=False))
    assert set(names(some)) == {"b_red", "c_both", "e_red_twice"}


def test_a_probability_is_asked_for_in_vain_where_there_is_no_judge(gallery: GalleryFile) -> None:
    for asked, settings in (
        ("red", SearchOptions(rerank=False, min_p=0.5)),
        (Query(examples=(Example(gallery.path),)), SearchOptions(min_p=0.5)),
    ):
        with pytest.raises(ValueError, match="min_p"):
            run_search(gallery, ColourModels(), asked, settings)


@pytest.mark.parametrize(
    ("make", "problem"),
    [
        (lambda: SearchOptions(limit=0), "limit is 0; it must be 1 or more"),
        (lambda: SearchOptions(limit=-1), "limit is -1; it must be 1 or more"),
        (lambda: SearchOptions(candidates=0), "candidates is 0; it must be 1 or more"),
        (lambda: SearchOptions(budget=-1.0), "budget is -1.0; it must be 0 or more"),
        (lambda: SearchOptions(min_p=3.0), "min_p is 3.0; it must be from 0 to 1"),
        (lambda: SearchOptions(min_p=-0.1), "min_p is -0.1; it must be from 0 to 1"),
        (lambda: SearchOptions(min_iou=2.0), "min_iou is 2.0; it must be from 0 to 1"),
        (lambda: SearchOptions(min_iou=math.nan), "min_iou is nan; it must be from 0 to 1"),
        (lambda: SearchOptions(budget=math.nan), "budget is nan; it must be 0 or more"),
    ],
)
def test_numbers_have_a_range(make: Callable[[], SearchOptions], problem: str) -> None:
    with pytest.raises(OutOfRange, match=f"^{problem}[.]$"):
        make()
    SearchOptions(limit=1, candidates=1, min_p=0, min_iou=1, budget=0, min_score=-1)


def test_an_example_alone_is_ranked_by_stage_1(gallery: GalleryFile) -> None:
    models = ColourModels()
    photo = gallery.path.parent / "photos" / "c_both.png"
    result = run_search(
        gallery, models, Query(examples=(Example(photo, point=Point(50, 30)),)), SearchOptions(limit=2)
    )
    assert set(names(result)) == {"a_green", "c_both"}
    assert models.judge.asked == []
    assert all(item.verdict is None for item in result.results)
    judged = run_search(gallery, models, Query("red", (Example(photo),)), SearchOptions())
    assert len(models.judge.asked) == 5
    assert judged.results[0].grounding == "matched"


def test_a_search_within_a_part_finds_nothing_else(gallery: GalleryFile) -> None:
    photos = gallery.path.parent / "photos"
    filters = Filters((photos / "b_red.png", photos / "d_blue.png"))
    models = ColourModels()
    result = run_search(gallery, models, "red", SearchOptions(filters=filters))
    assert set(names(result)) == {"b_red", "d_blue"}
    assert len(models.judge.asked) == 2
    empty = run_search(gallery, models, "red", SearchOptions(filters=Filters((photos / "nowhere",))))
    assert (empty.results, empty.best_score) == ([], None)


def test_the_object_that_the_judge_means_has_the_size_asked_for(gallery: GalleryFile) -> None:
    one = 25 * 25 / (120 * 90)
    models = ColourModels()
    # Both squares of "e" are one region: twice the size. All other regions are smaller.
    large = run_search(gallery, models, "red", SearchOptions(filters=Filters(min_size=1.5 * one)))
    assert names(large) == ["e_red_twice"]
    # Stage 1 lets "c" in for any of its regions; the judge says which object is meant.
    green = run_search(gallery, models, "green", SearchOptions(filters=Filters(max_size=1.5 * one)))
    assert set(names(green)) == {"a_green", "c_both"}
    assert [item.rank for item in green.results] == [1, 2]
    assert green.other_size == 2  # in "b" and "d" it points at nothing
    # A box by itself has a size, too: this one fits no stored region.
    off = ColourModels(ColourJudge(shift=20), judge_key="s" * 64)
    boxed = run_search(gallery, off, "red", SearchOptions(filters=Filters(min_size=1.5 * one)))
    assert [(item.path.stem, item.grounding) for item in boxed.results] == [("e_red_twice", "unmatched")]


def test_what_cannot_be_asked_is_said_before_any_model_is_looked_for(
    gallery: GalleryFile, tmp_path: Path
) -> None:
    with pytest.raises(QueryEmpty):
        check_searchable(gallery, Query("red", without=(" ",)))
    with pytest.raises(QueryContradicts):
        run_search(gallery, ColourModels(), Query("red", without=("red",)), SearchOptions())
    with (
        GalleryFile.open(tmp_path / "empty.db", create=True) as empty,
        pytest.raises(GalleryEmpty),
    ):
        check_searchable(empty, Query(examples=(Example(tmp_path),)))


def test_unjudged_photos_take_the_place_that_is_expected_of_them(gallery: GalleryFile) -> None:
    models = ColourModels()
    options = SearchOptions(limit=1, certainty=0, ground=False)
    outcome = run_search(gallery, models, "red", options)
    assert names(outcome)[0] == "e_red_twice"
    assert outcome.results[0].verdict is not None
    assert outcome.judged == len(models.judge.asked) < 5
    assert outcome.unlikely == 5 - outcome.judged
    # What is cached is used, and what is unlikely is asked about when more is wanted.
    again = run_search(gallery, models, "red", options)
    assert again == outcome
    everything = run_search(gallery, models, "red", SearchOptions(certainty=1, ground=False))
    assert (everything.judged, everything.unlikely) == (5, 0)
    assert sorted(models.judge.asked) == [1, 2, 3, 4, 5]
    late = run_search(gallery, ColourModels(judge_key="l" * 64), "red", SearchOptions(budget=0))
    assert (late.judged, late.unlikely) == (0, 0)
    scores = [item.candidate.score for item in late.results]
    assert scores == sorted(scores, reverse=True)


def masks_by_rule(gallery: GalleryFile, models: ColourModels, **options: Any) -> dict[str, tuple[str, bool]]:
    """Return by photo how the mask was found, and whether it is that of the left of two squares."""
    found = run_search(gallery, models, "red", SearchOptions(limit=2, **options)).results
    shown = {}
    for result in found:
        (answer,) = result.objects
        mask = answer.mask
        shown[result.path.stem] = result.grounding or "", mask is not None and masks.box(mask).x0 < 20
    return shown


def test_a_rough_box_gives_the_mask_of_the_region_that_agrees(gallery: GalleryFile) -> None:
    # 20 pixels to the right and down, the box of the red square meets the green one more than the red one.
    models = ColourModels(judge=ColourJudge(shift=20))
    assert masks_by_rule(gallery, models)["c_both"] == (UNMATCHED, False)
    assert masks_by_rule(gallery, models, min_iou=0.0)["c_both"] == (MATCHED, False)
    assert masks_by_rule(gallery, models, match="joint")["c_both"] == (MATCHED, True)
    assert masks_by_rule(gallery, models, match="joint", whole=True)["c_both"] == (MATCHED, True)
    assert masks_by_rule(gallery, models, match="joint", min_iou=0.5)["c_both"] == (UNMATCHED, False)


def test_the_model_set_says_how_regions_are_matched(gallery: GalleryFile) -> None:
    models = ColourModels(judge=ColourJudge(shift=20), match="joint")
    assert masks_by_rule(gallery, models)["c_both"] == (MATCHED, True)
    assert masks_by_rule(gallery, models, match="iou")["c_both"] == (UNMATCHED, False)


def test_the_model_set_says_how_much_stage_1_counts_beside_the_judge(gallery: GalleryFile) -> None:
    def found(fusion: float, **options: Any) -> list[tuple[str, float]]:
        models = ColourModels(fusion=fusion)
        outcome = run_search(gallery, models, "red", SearchOptions(ground=False, **options))
        return [(item.path.stem, item.candidate.score) for item in outcome.results]

    by_judge, backwards = found(0.0, certainty=1), found(-1e6, certainty=1)  # nothing else counts
    scores = [score for _, score in backwards]
    assert scores == sorted(scores)
    assert scores[0] < scores[-1]
    assert sorted(by_judge) == sorted(backwards)
    assert found(-1e6, certainty=0)[0] == backwards[0]
    # The method as published leaves stage 1 out.
    assert found(-1e6, certainty=1, whole=True) == found(0.0, certainty=1, whole=True)
