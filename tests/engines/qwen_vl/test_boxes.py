"""Qwen-VL's image sizes against its processors, and the boxes of answers."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers.models.qwen2_vl.image_processing_qwen2_vl import smart_resize as reference_resize

from matir_cli.engines.qwen_vl.boxes import (
    EXPECTED_START,
    ImageSize,
    expected_continuation,
    is_complete,
    parse_answer,
    smart_resize,
)
from matir_cli.records import Box

SAME = ImageSize(280, 560)


@given(
    st.integers(1, 3000),
    st.integers(1, 3000),
    st.sampled_from([(3136, 1003520), (784, 50176), (200704, 1003520), (3136, 12845056), (65536, 16777216)]),
    st.sampled_from([28, 32]),
)
def test_size_is_that_of_qwens_processor(
    height: int, width: int, pixels: tuple[int, int], factor: int
) -> None:
    pixels = (max(pixels[0], factor**2), pixels[1])
    size = smart_resize(height, width, *pixels, factor)
    assert size.height > 0
    assert size.width > 0
    if max(height, width) <= 200 * min(height, width):
        assert (size.height, size.width) == reference_resize(height, width, factor, *pixels)
        again = smart_resize(size.height, size.width, *pixels, factor)
        assert again == size or size.height * size.width > pixels[1]


def test_half_way_sides_go_to_the_even_multiple() -> None:
    assert smart_resize(70, 98, 784, 10**6, 28) == ImageSize(56, 112)
    assert smart_resize(80, 112, 1024, 10**6, 32) == ImageSize(64, 128)
    assert ImageSize(56, 112).tokens(28) == ImageSize(64, 128).tokens(32) == 8


@pytest.mark.parametrize(
    "text",
    [
        '```json\n[\n\t{"bbox_2d": [28, 56, 280, 140], "label": "dog"}\n]\n```',
        '[{"bbox_2d": [28, 56, 280, 140]}]',
        '{"label": "a [dog]", "bbox_2d": [280.0, 140, 28, 56]}',
        '```json\n[\n\t{"bbox_2d": [28, 56, 280, 140], "label": "dog"},\n\t{"bbox_2d": [30, ',
    ],
)
def test_box_is_mapped_to_the_photo(text: str) -> None:
    answer = parse_answer(text, SAME, ImageSize(140, 1120))
    assert answer.boxes == (Box(56, 28, 560, 70),)
    assert answer.readable


@given(st.integers(1, 5000), st.integers(1, 5000), st.data())
def test_boxes_on_a_grid_scale_with_the_photo_alone(height: int, width: int, data: st.DataObject) -> None:
    x0, x1, y0, y1 = (data.draw(st.integers(least, least + 500)) for least in (0, 501, 0, 501))
    x1, y1 = min(x1, 1000), min(y1, 1000)
    answer = parse_answer(
        f'[{{"bbox_2d": [{x0}, {y0}, {x1}, {y1}]}}]', ImageSize(1000, 1000), ImageSize(height, width)
    )
    (box,) = answer.boxes
    expected = [x0 * width / 1000, y0 * height / 1000, x1 * width / 1000, y1 * height / 1000]
    assert [box.x0, box.y0, box.x1, box.y1] == pytest.approx(expected)


def test_several_boxes_keep_their_order_and_are_named_once() -> None:
    numbers = [[100, 100, 200, 200], [5, 5, 10, 10], [100, 100, 200, 200]]
    answer = parse_answer(json.dumps([{"bbox_2d": box} for box in numbers]), SAME, SAME)
    assert answer.boxes == (Box(100, 100, 200, 200), Box(5, 5, 10, 10))


def test_corners_outside_are_clipped_and_empty_boxes_left_out() -> None:
    numbers = [[-5, -5, 900, 900], [600, 10, 700, 20], [7, 7, 7, 90]]
    answer = parse_answer(json.dumps([{"bbox_2d": box} for box in numbers]), SAME, SAME)
    assert answer.boxes == (Box(0, 0, 560, 280),)
    assert answer.readable


@pytest.mark.parametrize("text", ["[]", "```json\n[]\n```", "```json\n[ ]", '{"label": "none"}'])
def test_an_answer_may_hold_no_box(text: str) -> None:
    answer = parse_answer(text, SAME, SAME)
    assert answer.boxes == ()
    assert answer.readable


@pytest.mark.parametrize("text", ["", "There is no dog.", '```json\n[\n\t{"bbox_2d": [1, 2, 3', "[1", "7"])
def test_an_answer_may_be_unreadable(text: str) -> None:
    answer = parse_answer(text, SAME, SAME)
    assert answer.boxes == ()
    assert not answer.readable


def test_drafts_make_up_a_whole_answer() -> None:
    text = EXPECTED_START
    for number in ("12,", "3,", "45,"):
        text += number
        assert expected_continuation(text, "dog") == " "
        text += " "
    assert expected_continuation(text + "6", "dog") == ""
    whole = text + "67]" + expected_continuation(text + "67]", 'a "red" dög')
    assert whole == text + "67]," + expected_continuation(text + "67],", 'a "red" dög')
    assert is_complete(whole)
    assert whole.endswith('], "label": "a \\"red\\" dög"}\n]')


def test_nothing_is_drafted_within_a_label() -> None:
    assert expected_continuation(f'{EXPECTED_START}1, 2, 3, 4], "label": "dogs, 3,', "dog") == ""


@pytest.mark.parametrize(
    "text", ["[" * 100_000, "9" * 5000, f'[{{"bbox_2d": [1, 2, {"9" * 400}, 4]}}]', "\ud800"]
)
def test_answers_of_any_kind_are_parsed(text: str) -> None:
    for box in parse_answer(text, SAME, SAME).boxes:
        assert 0 <= box.x0 < box.x1 <= SAME.width
    assert isinstance(expected_continuation(text, "a dog"), str)
    assert is_complete("[" * 100_000) is False
