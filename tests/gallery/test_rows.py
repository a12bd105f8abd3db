"""Rows as records: what this tool wrote is accepted, anything else is refused."""

import math
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from matir_cli import masks
from matir_cli.gallery.rows import LONGEST_TEXT, StoredPhoto, check_photo, read_boxes, read_region
from matir_cli.records import Box, OriginKind, PhotoRecord, RegionOrigin

PHOTO = PhotoRecord(b"h" * 32, 80, 40, 20, 10, 6, "2024-05-06T07:08:09", "ACME", 1.5, -2.5)


def test_a_possible_photo_is_returned() -> None:
    assert check_photo(PHOTO) == PHOTO
    bare = replace(PHOTO, taken_at=None, camera=None, latitude=None, longitude=None)
    assert check_photo(bare) == bare


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"sha256": b"short"}, "SHA-256"),
        ({"mask_width": 81}, "size"),
        ({"mask_height": 0}, "size"),
        ({"width": 1_000_000, "height": 1_000_000}, "size"),
        ({"orientation": 0}, "orientation"),
        ({"taken_at": "yesterday"}, "yesterday"),
        ({"camera": b"x"}, "str"),
        ({"longitude": float("inf")}, "position"),
        ({"latitude": 90.5}, "position"),
        ({"longitude": -181.0}, "position"),
        ({"camera": "x" * (LONGEST_TEXT + 1)}, "camera is too long"),
        ({"width": 4000, "height": 4000, "mask_width": 2000, "mask_height": 2000}, "larger than any"),
    ],
)
def test_an_impossible_photo_is_refused(change: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        check_photo(replace(PHOTO, **change))


def test_a_mask_at_true_size_fills_the_photo() -> None:
    stored = StoredPhoto(1, (Path("/a"),), PHOTO)
    whole = stored.at_true_size(masks.whole(10, 20))
    assert whole.shape == (40, 80)
    assert whole.dtype == np.bool_
    assert whole.all()


def test_a_region_has_its_box_in_both_frames() -> None:
    rle = masks.whole(10, 20)
    row = (3, 1, 2, 8.0, 4.0, 40.0, 20.0, 200, 0.9, 0.8, rle.counts, 80, 40, 20, 10, 3, "human", "x")
    stored = read_region(row)
    assert (stored.id, stored.photo_id, stored.ordinal) == (3, 1, 2)
    assert stored.box == Box(8, 4, 40, 20)
    assert stored.region.box == Box(2, 1, 10, 5)
    assert stored.region.rle == rle
    assert stored.region.origin == RegionOrigin(OriginKind.HUMAN, "x")
    assert read_region([*row[:15], None, None, None]).region.origin is None
    for position, value in (
        *((2, -1), (2, "first"), (3, float("nan")), (3, None), (3, "0"), (3, 41.0), (5, float("inf"))),
        *((7, "many"), (7, -1), (7, 201), (7, 5.5), (8, float("nan")), (8, b"0.9"), (9, None)),
        *((10, b"\xff"), (10, None), (10, "text"), (11, 0), (11, "wide"), (12, None), (13, 2**40), (14, 0)),
        *((16, "elsewhere"), (16, None), (16, 7), (17, 5), (17, b"x"), (17, "x" * 1001)),
    ):
        damaged = [*row[:position], value, *row[position + 1 :]]
        with pytest.raises(ValueError, match=r"\w"):
            read_region(damaged)


NUMBERS = st.floats() | st.integers(-(2**63), 2**63 - 1)

VALUES = st.none() | NUMBERS | st.text(max_size=5) | st.binary(max_size=5)


@settings(deadline=None, max_examples=200, derandomize=True)
@given(st.lists(NUMBERS, min_size=4, max_size=4))
def test_a_box_of_any_numbers_ends_up_in_its_photo_or_is_refused(edges: list[float]) -> None:
    rle = masks.whole(10, 20)
    row = (3, 1, 2, *edges, 200, 0.9, 0.8, rle.counts, 80, 40, 20, 10, None, None, None)
    try:
        box = read_region(row).box
    except ValueError:
        assert not all(map(math.isfinite, edges)) or edges[2] < edges[0] or edges[3] < edges[1]
        return
    assert 0 <= box.x0 <= box.x1 <= 80
    assert 0 <= box.y0 <= box.y1 <= 40
    inside = min(edges) >= 0 and max(edges[0], edges[2]) <= 80 and max(edges[1], edges[3]) <= 40
    assert not inside or [box.x0, box.y0, box.x1, box.y1] == edges


@settings(deadline=None, max_examples=300, derandomize=True)
@given(st.integers(0, 17), VALUES)
def test_a_value_of_any_type_is_possible_or_refused(position: int, value: object) -> None:
    rle = masks.whole(10, 20)
    row: list[Any] = [3, 1, 2, 8.0, 4.0, 40.0, 20.0, 200, 0.9, 0.8, rle.counts, 80, 40, 20, 10]
    row += [3, "data set", None]
    row[position] = value
    try:
        stored = read_region(row)
    except ValueError:
        return
    assert masks.decode(stored.region.rle).shape == (10, 20)
    assert stored.box.area <= 80 * 40


@settings(deadline=None, max_examples=200, derandomize=True)
@given(st.sampled_from([field.name for field in fields(PhotoRecord)]), VALUES)
def test_a_field_of_any_type_is_possible_or_refused(name: str, value: object) -> None:
    change: dict[str, Any] = {name: value}
    try:
        checked = check_photo(replace(PHOTO, **change))
    except ValueError:
        return
    assert getattr(checked, name) == value


@pytest.mark.parametrize(
    "text",
    [
        *(None, 5, b"[]", "", "null", "{}", "[[1,2,3]]", "[[1,2,3,4,5]]", '[["a",0,1,1]]', "[[9,0,1,1]]"),
        *("[[1e999,0,1,1]]", "[" * 10_000, "[" + "[0,0,1,1]," * 20_000 + "[0,0,1,1]]"),
    ],
)
def test_a_stored_answer_of_another_form_is_refused(text: object) -> None:
    with pytest.raises(ValueError, match="box"):
        read_boxes(text, 80, 40)


def test_boxes_of_an_answer_are_clipped_to_the_photo() -> None:
    assert read_boxes("[[-5, 1, 1e9, 40.5], [1, 2, 3, 4]]", 80, 40) == (Box(0, 1, 80, 40), Box(1, 2, 3, 4))
