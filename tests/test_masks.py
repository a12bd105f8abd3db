import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from matir_cli import masks
from matir_cli.records import Box, MaskArray, Rle

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


def triangle(old: int, new: int) -> NDArray[np.float64]:
    """(new, old) weights of the bilinear filter, antialiased when it scales down, in double precision."""
    step = old / new
    centres = (np.arange(new) + 0.5) * step
    distances = np.abs(np.arange(old) + 0.5 - centres[:, np.newaxis]) / max(1.0, step)
    weights = np.maximum(0.0, 1.0 - distances)
    return np.asarray(weights / weights.sum(axis=1, keepdims=True))


def level(mask: MaskArray, height: int, width: int) -> NDArray[np.float64]:
    """(height, width) of the scaled mask before it is cut, 0..1."""
    return np.asarray(triangle(mask.shape[0], height) @ mask @ triangle(mask.shape[1], width).T)


@given(st.integers(0, 2**32 - 1), st.sampled_from(["disc", "rectangle", "noise"]))
@settings(derandomize=True, deadline=None, max_examples=60)
def test_resize_is_the_bilinear_filter_cut_at_one_half(seed: int, kind: str) -> None:
    rng = np.random.default_rng(seed)
    (height, width), (high, wide) = rng.integers(1, 120, 2), rng.integers(1, 300, 2)
    rows, columns = np.ogrid[:height, :width]
    x, y, radius = rng.uniform(0, width), rng.uniform(0, height), rng.uniform(1, 130)
    mask = {
        "disc": np.hypot(columns - x, rows - y) < radius,
        "rectangle": (abs(columns - x) < radius) & (abs(rows - y) < rng.uniform(1, 130)),
        "noise": rng.random((height, width)) < 0.3,
    }[kind]
    made, wanted = masks.resize(mask, high, wide), level(mask, high, wide)
    assert made.shape == (high, wide)
    if mask.shape != (high, wide):
        assert made[wanted >= 0.5 - 1e-9].all()  # a pixel cut in half is inside, wherever the mask lies
        assert not made[wanted < 0.485].any()
    assert np.array_equal(masks.decode(masks.scale(masks.encode(mask), high, wide)), made)


def test_a_rectangle_keeps_its_share_of_the_picture() -> None:
    mask = np.zeros((146, 131), dtype=np.bool_)
    mask[20:80, 31:101] = True
    large = masks.resize(mask, 365, 328)  # 2.5 times: edges lie in the middle of pixels
    wanted = level(mask, 365, 328) >= 0.5 - 1e-9
    assert np.array_equal(large, wanted)
    assert large.sum() == pytest.approx(mask.sum() * 2.5 * 328 / 131, rel=0.02)
