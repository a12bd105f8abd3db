import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from matir_cli import masks
from matir_cli.records import Box, Rle

small_masks = arrays(np.bool_, st.tuples(st.integers(1, 24), st.integers(1, 24)))


@given(small_masks)
def test_round_trip_area_box_and_check(mask: np.ndarray) -> None:
    rle = masks.encode(mask)
    masks.check(rle)
    assert np.array_equal(masks.decode(rle), mask)
    assert masks.area(rle) == mask.sum()
    if mask.any():
        rows, columns = np.nonzero(mask)
        assert masks.box(rle) == Box(columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
    else:
        assert masks.box(rle).area == 0


def test_whole_is_all_ones() -> None:
    assert masks.decode(masks.whole(3, 5)).all()
    assert masks.area(masks.whole(3, 5)) == 15


@given(st.binary(max_size=40), st.integers(-1, 30), st.integers(-1, 30))
def test_only_what_fills_the_mask_passes_the_check(counts: bytes, height: int, width: int) -> None:
    rle = Rle(height, width, counts)
    try:
        masks.check(rle)
    except ValueError:
        return
    assert masks.decode(rle).shape == (height, width)


def test_check_refuses_a_mask_of_a_hostile_size() -> None:
    with pytest.raises(ValueError, match="mask of"):
        masks.check(Rle(1 << 20, 1 << 20, b"0"))
    good = masks.encode(np.eye(9, dtype=np.bool_))
    with pytest.raises(ValueError, match="do not fill"):
        masks.check(Rle(9, 8, good.counts))


def test_iou_against_sets() -> None:
    generator = np.random.default_rng(3)
    arrays_ = [generator.random((12, 17)) > 0.5 for _ in range(5)]
    rles = [masks.encode(a) for a in arrays_]
    expected = [[(a & b).sum() / (a | b).sum() for b in arrays_] for a in arrays_]
    assert np.allclose(masks.iou(rles, rles), expected)
    assert masks.iou([], rles).shape == (0, 5)


def test_resize_keeps_a_shape_where_it_is() -> None:
    mask = np.zeros((40, 60), dtype=np.bool_)
    mask[10:20, 30:45] = True
    large = masks.resize(mask, 400, 600)
    assert large.shape == (400, 600)
    assert abs(int(large.sum()) - 100 * 150) < 300
    assert large[105:195, 305:445].all()
    assert masks.resize(mask, 40, 60) is mask
