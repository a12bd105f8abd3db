"""Photos enlarged for box questions, and the boxes that come back from them."""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from matir_cli.engines.protocols import GroundingQuestion, JudgePhoto
from matir_cli.engines.qwen_vl.boxes import smart_resize
from matir_cli.engines.qwen_vl.enlarging import enlarge_photo, resize_image
from matir_cli.engines.qwen_vl.judge import QwenVlJudge, load_qwen_vl_judge
from matir_cli.engines.qwen_vl.options import QwenVlOptions
from matir_cli.model_sets.catalogue import load_model_set
from matir_cli.model_sets.session import locate_part
from matir_cli.models.tiny.world import SPLITS, picture
from matir_cli.records import ImageArray

QUERY = "house"

FACTOR = QwenVlOptions.FAMILY.factor
LEAST, MOST = 60 * FACTOR**2, 90 * FACTOR**2
"""Pixels of an enlarged picture; drawn pictures have 12,544 to 102,400."""

sides = st.integers(1, 400)
tokens = st.integers(0, 200)


@given(sides, sides, tokens, st.integers(200, 300))
def test_an_enlarged_photo_has_at_least_so_many_pixels(
    height: int, width: int, least: int, most: int
) -> None:
    options = QwenVlOptions(ground_min_pixels=least * FACTOR**2, max_pixels=most * FACTOR**2)
    seen = smart_resize(height, width, options.min_pixels, options.max_pixels, FACTOR)
    question = GroundingQuestion(JudgePhoto(7, np.zeros((height, width, 3), np.uint8)), QUERY)
    enlarged = enlarge_photo(question, seen, options)
    assert enlarged.asked is question
    assert enlarged.photo.key == 7
    rows, columns = enlarged.photo.image.shape[:2]
    again = smart_resize(rows, columns, options.min_pixels, options.max_pixels, FACTOR)
    if enlarged.photo is question.photo:
        is_too_long = (
            smart_resize(height, width, least * FACTOR**2, most * FACTOR**2, FACTOR).tokens(FACTOR) > most
        )
        assert seen.tokens(FACTOR) >= least or is_too_long
    else:
        assert seen.tokens(FACTOR) < least <= again.tokens(FACTOR) <= most
        assert (again.height, again.width) == (rows, columns)  # the model sees it as it is
        scale = (least * FACTOR**2 / (height * width)) ** 0.5
        assert -1e-6 < rows - height * scale < FACTOR
        assert -1e-6 < columns - width * scale < FACTOR


def test_no_least_size_leaves_photos_as_they_are() -> None:
    question = GroundingQuestion(JudgePhoto(7, np.zeros((90, 120, 3), np.uint8)), QUERY)
    options = QwenVlOptions()
    seen = smart_resize(90, 120, options.min_pixels, options.max_pixels, FACTOR)
    assert enlarge_photo(question, seen, options).photo is question.photo


@pytest.fixture(scope="module")
def judges() -> Iterator[tuple[QwenVlJudge, QwenVlJudge]]:
    """The tiny judge, and the same one with photos enlarged for boxes."""
    config = locate_part(load_model_set("tiny"), "judge")
    options = {**config.options, "max_pixels": MOST, "threads": 1}
    with (
        load_qwen_vl_judge(replace(config, options=options), "cpu") as plain,
        load_qwen_vl_judge(
            replace(config, options={**options, "ground_min_pixels": LEAST}), "cpu"
        ) as enlarging,
    ):
        yield plain, enlarging


def pictures_with_a_house() -> list[ImageArray]:
    """Six drawn pictures of different sizes and shapes."""
    start = SPLITS["validation"].start
    drawn = (picture(seed) for seed in range(start, start + 40))
    chosen = [each.image for each in drawn if any(thing.kind == "house" for thing in each.things)]
    return chosen[:6]


def test_boxes_come_back_in_pixels_of_the_photo_asked_about(
    judges: tuple[QwenVlJudge, QwenVlJudge],
) -> None:
    plain, enlarging = judges
    shapes, boxes = set(), 0
    for key, image in enumerate(pictures_with_a_house()):
        height, width = image.shape[:2]
        size = smart_resize(height, width, LEAST, MOST, FACTOR)
        (expected,) = plain.ground([GroundingQuestion(JudgePhoto(key, resize_image(image, size)), QUERY)])
        (found,) = enlarging.ground([GroundingQuestion(JudgePhoto(key, image), QUERY)])
        assert expected is not None
        assert found is not None
        assert found.answer == expected.answer
        assert len(found.boxes) == len(expected.boxes)
        for box, other in zip(found.boxes, expected.boxes, strict=True):
            mapped = other.scaled(width / size.width, height / size.height)
            assert np.allclose(box.rounded(9), mapped.rounded(9))
            assert 0 <= box.x0 < box.x1 <= width
            assert 0 <= box.y0 < box.y1 <= height
        boxes += len(found.boxes)
        shapes.add((height, width))
    assert boxes >= 3
    assert len(shapes) >= 4
    assert any(height != width for height, width in shapes)


def test_questions_for_true_or_false_see_the_photo_as_it_is(
    judges: tuple[QwenVlJudge, QwenVlJudge],
) -> None:
    plain, enlarging = judges
    asked = JudgePhoto(5, pictures_with_a_house()[0])
    (before,) = plain.rerank(asked, [QUERY])
    enlarging.ground([GroundingQuestion(asked, QUERY)])
    (after,) = enlarging.rerank(asked, [QUERY])
    assert before is not None
    assert after is not None
    assert after.margin == pytest.approx(before.margin, abs=1e-3)


def test_photos_of_one_call_keep_their_order(judges: tuple[QwenVlJudge, QwenVlJudge]) -> None:
    _, enlarging = judges
    questions = [
        GroundingQuestion(JudgePhoto(key, image), QUERY) for key, image in enumerate(pictures_with_a_house())
    ]
    together = enlarging.ground(questions)
    alone = [enlarging.ground([question])[0] for question in questions]
    assert together == alone
