"""Relations between boxes, on hand-made boxes and on random ones."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from matir_cli.search.geometry import BoxArray, relation_holds
from matir_cli.search.phrases.description import RelationKind

KINDS = [kind for kind in RelationKind if kind is not RelationKind.ATTRIBUTE]

INVERSES = [
    (RelationKind.LEFT_OF, RelationKind.RIGHT_OF),
    (RelationKind.ABOVE, RelationKind.BELOW),
    (RelationKind.INSIDE, RelationKind.AROUND),
    (RelationKind.NEAR, RelationKind.NEAR),
]

SMALL = (0.1, 0.1, 0.2, 0.2)
BESIDE = (0.3, 0.1, 0.4, 0.2)
UNDER = (0.1, 0.7, 0.2, 0.8)
LARGE = (0.05, 0.05, 0.45, 0.45)


@pytest.mark.parametrize(
    ("kind", "pairs"),
    [
        (RelationKind.LEFT_OF, {("small", "beside"), ("under", "beside")}),
        (RelationKind.RIGHT_OF, {("beside", "small"), ("beside", "under")}),
        (RelationKind.ABOVE, {("small", "under"), ("beside", "under"), ("large", "under")}),
        (RelationKind.BELOW, {("under", "small"), ("under", "beside"), ("under", "large")}),
        (RelationKind.INSIDE, {("small", "large"), ("beside", "large")}),
        (RelationKind.AROUND, {("large", "small"), ("large", "beside")}),
    ],
)
def test_each_relation_holds_where_it_can_be_seen(kind: RelationKind, pairs: set[tuple[str, str]]) -> None:
    names = ("small", "beside", "under", "large")
    boxes = np.array([SMALL, BESIDE, UNDER, LARGE])
    holds = relation_holds(kind, boxes)
    found = {(names[i], names[j]) for i, j in zip(*np.nonzero(holds), strict=True)}
    assert found == pairs


def test_near_is_a_small_gap_in_any_direction() -> None:
    boxes = np.array([SMALL, BESIDE, UNDER, (0.15, 0.1, 0.9, 0.2)])
    near = relation_holds(RelationKind.NEAR, boxes)
    assert near[0].tolist() == [False, True, False, True]
    stacked = relation_holds(RelationKind.NEAR, np.stack([boxes, boxes[::-1]]))
    assert np.array_equal(stacked, [near, near[::-1, ::-1]])


def test_two_boxes_of_one_object_have_no_relation() -> None:
    boxes = np.array([(0.0, 0.0, 0.4, 0.4), (0.13, 0.0, 0.53, 0.4), (0.26, 0.0, 0.66, 0.4)])
    holds = relation_holds(RelationKind.LEFT_OF, boxes)
    assert holds.tolist() == [[False, False, True], [False, False, False], [False, False, False]]


edges = st.floats(0, 1, allow_nan=False)
boxes_of_a_photo = st.lists(st.tuples(edges, edges, edges, edges), min_size=1, max_size=6).map(np.array)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(boxes_of_a_photo, st.sampled_from(INVERSES))
def test_inverse_relations_hold_between_the_same_pairs(
    boxes: BoxArray, pair: tuple[RelationKind, RelationKind]
) -> None:
    forward, backward = (relation_holds(kind, boxes) for kind in pair)
    assert np.array_equal(forward, backward.T)
    assert not forward.diagonal().any()
