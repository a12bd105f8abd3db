import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.typing import NDArray

from matir_cli.output.outlines import Ring, merged, outlines, ring_area
from matir_cli.records import MaskArray

MASKS = arrays.arrays(np.bool_, st.tuples(st.integers(1, 9), st.integers(1, 9)))

RINGS_IN_RINGS = np.array(
    [
        [1, 1, 1, 1, 1, 1, 1, 0, 0],
        [1, 0, 0, 0, 0, 0, 1, 0, 1],
        [1, 0, 1, 1, 1, 0, 1, 0, 1],
        [1, 0, 1, 0, 1, 0, 1, 0, 0],
        [1, 0, 1, 1, 1, 0, 1, 0, 0],
        [1, 0, 0, 0, 0, 0, 1, 0, 0],
        [1, 1, 1, 1, 1, 1, 1, 0, 1],
    ],
    dtype=np.bool_,
)


def covered(rings: list[Ring], shape: tuple[int, ...]) -> NDArray[np.bool_]:
    """The pixels whose centres lie within an odd number of rings, found by crossing their edges."""
    y, x = np.mgrid[: shape[0], : shape[1]] + 0.5
    inside = np.zeros(shape, dtype=np.bool_)
    for ring in rings:
        for (x0, y0), (x1, y1) in zip(ring, np.roll(ring, -1, axis=0), strict=True):
            if y0 != y1:
                inside ^= ((y0 <= y) != (y1 <= y)) & (x0 + (y - y0) * (x1 - x0) / (y1 - y0) > x)
    return inside


@given(MASKS)
def test_outlines_cover_exactly_the_mask(mask: MaskArray) -> None:
    parts = outlines(mask)
    rings = [ring for part in parts for ring in (part.outer, *part.holes)]
    assert (covered(rings, mask.shape) == mask).all()
    assert [ring_area(part.outer) for part in parts] == sorted(
        (ring_area(part.outer) for part in parts), reverse=True
    )
    for ring in rings:
        assert len(ring) >= 4
        assert (ring >= 0).all()
        assert (ring <= (mask.shape[1], mask.shape[0])).all()
        assert (2 * ring == np.rint(2 * ring)).all()


@given(MASKS.filter(lambda mask: mask.any()))
def test_one_polygon_covers_the_mask_and_its_holes(mask: MaskArray) -> None:
    parts = outlines(mask)
    filled = np.zeros_like(mask)
    for part in parts:
        filled |= covered([part.outer], mask.shape)
    assert (covered([merged(parts)], mask.shape) == filled).all()
    assert (filled | ~mask).all()


def test_what_lies_in_a_hole_is_filled_with_it() -> None:
    parts = outlines(RINGS_IN_RINGS)
    assert [len(part.holes) for part in parts] == [1, 1, 0, 0]
    expected = np.zeros_like(RINGS_IN_RINGS)
    expected[:, :7] = True
    expected |= RINGS_IN_RINGS
    assert (covered([merged(parts)], expected.shape) == expected).all()


def test_straight_edges_have_two_points() -> None:
    (part,) = outlines(np.ones((100, 200), dtype=np.bool_))
    assert len(part.outer) == 8  # four edges, and four corners cut by half a pixel
    assert ring_area(part.outer) == pytest.approx(100 * 200 - 0.5)
    assert outlines(np.zeros((3, 3), dtype=np.bool_)) == []
