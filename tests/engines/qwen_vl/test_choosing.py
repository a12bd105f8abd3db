"""Regions drawn with numbers, and the judge's choice among them."""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from matir_cli.engines.protocols import GroundingQuestion, JudgePhoto
from matir_cli.engines.qwen_vl.boxes import ImageSize, smart_resize
from matir_cli.engines.qwen_vl.choosing import NUMBERS, number_regions
from matir_cli.engines.qwen_vl.judge import QwenVlJudge, load_qwen_vl_judge
from matir_cli.engines.qwen_vl.options import CHOOSE, QwenVlOptions
from matir_cli.errors import ModelSetInvalid
from matir_cli.records import Box
from tests.support.small_qwen import SmallQwen, photo

QUERY = "a striped red house left of a tree"
REGIONS = (
    Box(4, 6, 80, 90),
    Box(100, 30, 180, 120),
    Box(20, 100, 90, 150),
    Box(60, 60, 140, 140),
    Box(150, 100, 220, 160),
)


@st.composite
def boxes(draw: st.DrawFn) -> Box:
    """Boxes of any size in a photo of 240 x 170 pixels, some of them without an area."""
    x0, x1 = sorted((draw(st.floats(0, 240)), draw(st.floats(0, 240))))
    y0, y1 = sorted((draw(st.floats(0, 170)), draw(st.floats(0, 170))))
    return Box(x0, y0, x1, y1)


@settings(derandomize=True, deadline=None, max_examples=40)
@given(st.lists(boxes(), max_size=len(NUMBERS)))
def test_any_regions_can_be_drawn(regions: list[Box]) -> None:
    image = photo(3, 170, 240)
    before = image.copy()
    size = smart_resize(170, 240, 3136, 50176, QwenVlOptions.FAMILY.factor)
    drawn = number_regions(image, regions, size)
    assert drawn.shape == (size.height, size.width, 3)
    assert drawn.dtype == np.uint8
    assert np.array_equal(image, before)
    assert np.array_equal(drawn, number_regions(image, [], size)) == (not regions)


def test_each_region_shows_its_number() -> None:
    grey = np.full((280, 280, 3), 100, np.uint8)
    size = ImageSize(280, 280)
    alone = number_regions(grey, [Box(20, 20, 120, 120)], size)
    second = number_regions(grey, [Box(160, 160, 260, 260), Box(20, 20, 120, 120)], size)
    plate = np.s_[58:83, 58:83]  # in the middle of the box at 20..120
    assert (alone[plate] == 255).any()
    assert not np.array_equal(alone[plate], second[plate])  # a 1, and a 2
    # Of two regions with one middle, both numbers can be read.
    both = number_regions(grey, [Box(20, 20, 120, 120), Box(10, 10, 130, 130)], size)
    assert np.array_equal(both[plate], alone[plate])
    outside = both.copy()
    outside[plate] = 0
    assert (outside == 0).all(axis=2).sum() > (alone == 0).all(axis=2).sum()


@pytest.fixture(scope="module")
def judge(small_qwen: SmallQwen) -> Iterator[QwenVlJudge]:
    with load_qwen_vl_judge(small_qwen.config(grounding="choose", max_answer_tokens=48), "cpu") as loaded:
        yield loaded


def test_the_choice_is_that_of_transformers(small_qwen: SmallQwen, judge: QwenVlJudge) -> None:
    assert judge.offers == 9
    bounds = small_qwen.pixels
    numbers = [small_qwen.token_id(number) for number in NUMBERS[: len(REGIONS)]]
    chosen = []
    for key, (height, width) in enumerate(
        [(170, 240), (333, 517), (240, 320), (181, 250), (300, 230), (280, 280)]
    ):
        image = photo(key, height, width)
        regions = tuple(box.scaled(width / 240, height / 170) for box in REGIONS)
        size = smart_resize(
            height, width, bounds["min_pixels"], bounds["max_pixels"], QwenVlOptions.FAMILY.factor
        )
        logits = small_qwen.logits(number_regions(image, regions, size), CHOOSE + QUERY)[numbers]
        best, runner_up = np.sort(logits)[::-1][:2]
        assert best - runner_up > 0.02 * np.ptp(logits), "too close to compare"
        (found,) = judge.ground([GroundingQuestion(JudgePhoto(key, image), QUERY, regions)])
        assert found is not None
        assert found.boxes == (regions[int(logits.argmax())],)
        assert (found.answer, found.readable) == (NUMBERS[int(logits.argmax())], True)
        chosen.append(found.answer)
    assert len({*chosen}) > 1  # the answer depends on the photo


def test_only_offered_numbers_are_chosen_and_without_any_the_box_is_written(
    small_qwen: SmallQwen, judge: QwenVlJudge
) -> None:
    shown = JudgePhoto(0, photo(0, 170, 240))
    asked = [
        GroundingQuestion(shown, QUERY),
        GroundingQuestion(shown, QUERY, REGIONS[:1]),
        GroundingQuestion(shown, QUERY, REGIONS[:2]),
        GroundingQuestion(shown, QUERY, REGIONS * 3),  # more than there are numbers
    ]
    written, only, two, many = judge.ground(asked)
    assert only is not None
    assert only.boxes == REGIONS[:1]
    assert two is not None
    assert two.boxes[0] in REGIONS[:2]
    assert many is not None
    assert many.boxes[0] in REGIONS
    with load_qwen_vl_judge(small_qwen.config(max_answer_tokens=48), "cpu") as writer:
        assert writer.offers == 0
        assert writer.ground(asked[:1]) == [written]
        assert writer.ground(asked[1:2]) == [written]  # what is offered is not looked at
    assert judge.ground([asked[2], asked[0]]) == [two, written]


def test_choosing_leaves_verdicts_alone(judge: QwenVlJudge) -> None:
    shown = JudgePhoto(1, photo(1, 170, 240))
    before = judge.rerank(shown, [QUERY])
    judge.ground([GroundingQuestion(shown, QUERY, REGIONS)])
    assert judge.rerank(shown, [QUERY]) == before


def test_the_way_of_grounding_is_part_of_the_identity() -> None:
    assert QwenVlOptions(grounding="choose").identity() != QwenVlOptions().identity()


def test_an_unknown_way_is_refused(small_qwen: SmallQwen) -> None:
    config = small_qwen.config()
    with pytest.raises(ModelSetInvalid, match="grounding"):
        load_qwen_vl_judge(replace(config, options={**config.options, "grounding": "guess"}), "cpu")
