"""Rows as records: what this tool wrote is accepted, anything else is refused."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from matir_cli import masks
from matir_cli.gallery.rows import StoredPhoto, check_photo, read_region
from matir_cli.records import Box, PhotoRecord

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
    row = (3, 1, 2, 8.0, 4.0, 40.0, 20.0, 200, 0.9, 0.8, rle.counts, 80, 40, 20, 10)
    stored = read_region(row)
    assert (stored.id, stored.photo_id, stored.ordinal) == (3, 1, 2)
    assert stored.box == Box(8, 4, 40, 20)
    assert stored.region.box == Box(2, 1, 10, 5)
    assert stored.region.rle == rle
    for position, value in ((3, float("nan")), (7, "many"), (10, b"\xff"), (11, 0)):
        damaged = [*row[:position], value, *row[position + 1 :]]
        with pytest.raises((TypeError, ValueError, ZeroDivisionError)):
            read_region(damaged)
