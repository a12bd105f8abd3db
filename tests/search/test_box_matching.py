"""Matching boxes to stored regions, and the IoU of boxes."""

from dataclasses import replace

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from matir_cli import masks
from matir_cli.gallery.rows import StoredRegion
from matir_cli.records import Box, OriginKind, Region, RegionOrigin
from matir_cli.search.box_matching import SIMILARITY, box_iou, match_box, match_boxes

whole_boxes = st.tuples(*[st.integers(0, 12)] * 4).map(lambda e: Box(*map(float, e)))


def pixels(box: Box) -> set[tuple[int, int]]:
    return {(x, y) for x in range(int(box.x0), int(box.x1)) for y in range(int(box.y0), int(box.y1))}


@given(whole_boxes, whole_boxes)
def test_iou_is_that_of_the_pixels(left: Box, right: Box) -> None:
    a, b = pixels(left), pixels(right)
    assert np.isclose(box_iou(left, right), len(a & b) / len(a | b) if a | b else 0.0)


def region(
    ordinal: int, box: Box, predicted_iou: float = 0.9, origin: RegionOrigin | None = None
) -> StoredRegion:
    rle = masks.whole(10, 10)
    return StoredRegion(ordinal + 100, 1, ordinal, box, Region(rle, box, 100, predicted_iou, 0.9, origin))


def test_the_best_box_wins_and_the_whole_photo_does_not_take_part() -> None:
    regions = [
        region(0, Box(0, 0, 100, 100)),
        region(1, Box(10, 10, 60, 60)),
        region(2, Box(0, 0, 95, 95)),
    ]
    found = match_box(Box(0, 0, 100, 100), regions)
    assert found is not None
    assert (found.region.ordinal, found.iou) == (2, 0.9025)
    assert match_box(Box(0, 0, 100, 100), regions[:1]) is None


def test_ties_go_to_the_surer_then_to_the_earlier() -> None:
    box = Box(0, 0, 10, 10)
    regions = [region(1, box, 0.5), region(2, box, 0.8), region(3, box, 0.8)]
    found = match_box(Box(0, 0, 20, 20), regions)
    assert found is not None
    assert found.region.ordinal == 2


@given(st.lists(whole_boxes, min_size=1, max_size=6), whole_boxes, st.sampled_from([0.5, 0.8]), st.booleans())
def test_a_persons_region_wins_where_it_fits(boxes: list[Box], box: Box, least: float, jointly: bool) -> None:
    human = RegionOrigin(OriginKind.HUMAN, None)
    proposed = [region(ordinal, each) for ordinal, each in enumerate([Box(0, 0, 12, 12), *boxes[1:]])]
    drawn = region(len(proposed), boxes[0], 0.1, human)
    similarities = {each.id: 1.0 for each in proposed} | {drawn.id: -9.0} if jointly else None
    found = match_box(box, [*proposed, drawn], similarities, least)
    assert found is not None
    if box_iou(box, drawn.box) >= least:
        assert found.region == drawn
    elif len(proposed) > 1:
        assert jointly <= (found.region != drawn)
    of_data_set = replace(drawn, region=replace(drawn.region, origin=RegionOrigin(OriginKind.DATA_SET, "x")))
    plain = replace(drawn, region=replace(drawn.region, origin=None))
    with_data_set = match_box(box, [*proposed, of_data_set], similarities, least)
    without = match_box(box, [*proposed, plain], similarities, least)
    assert with_data_set is not None
    assert without is not None
    assert with_data_set.region.id == without.region.id  # a data set's has no such privilege


def test_jointly_the_region_that_resembles_the_object_wins() -> None:
    regions = [
        region(0, Box(0, 0, 100, 100)),
        region(1, Box(0, 0, 60, 60)),
        region(2, Box(30, 30, 80, 80)),
        region(3, Box(30, 30, 80, 80), 0.2),
    ]
    box = Box(10, 10, 60, 60)
    by_iou = match_box(box, regions)
    assert by_iou is not None
    assert by_iou.region.ordinal == 1
    jointly = match_box(box, regions, {100: 9.0, 101: 0.0, 102: 2.0, 103: 2.0})
    assert jointly is not None
    assert jointly.region.ordinal == 2  # not the whole photo, and not the mask of less quality
    assert jointly.iou == box_iou(box, regions[2].box)


@given(
    st.lists(whole_boxes, min_size=1, max_size=6),
    st.lists(st.floats(-5, 5), min_size=7, max_size=7),
    whole_boxes,
    st.floats(-3, 3),
)
def test_jointly_only_differences_of_similarity_count(
    boxes: list[Box], similarities: list[float], box: Box, shift: float
) -> None:
    regions = [region(ordinal, each) for ordinal, each in enumerate([Box(0, 0, 12, 12), *boxes])]
    equal = match_box(box, regions, dict.fromkeys(range(100, 107), shift))
    assert equal == match_box(box, regions)
    joint = match_box(box, regions, dict(zip(range(100, 107), similarities, strict=True)))
    assert joint is not None
    assert joint.region.ordinal > 0
    for other in regions[1:]:
        own = joint.iou + SIMILARITY * similarities[joint.region.ordinal]
        assert own + 1e-9 >= box_iou(box, other.box) + SIMILARITY * similarities[other.ordinal]


@given(st.lists(whole_boxes, max_size=5), st.lists(whole_boxes, max_size=5), st.integers(0, 5))
def test_a_region_stands_jointly_for_one_box_of_an_answer(
    answer: list[Box], boxes: list[Box], best: int
) -> None:
    regions = [region(ordinal, each) for ordinal, each in enumerate([Box(0, 0, 12, 12), *boxes])]
    assert match_boxes(answer, regions) == [match_box(box, regions) for box in answer]
    similarities = {each.id: 9.0 * (each.ordinal == best) for each in regions}
    found = match_boxes(answer, regions, similarities)
    chosen = [match.region.ordinal for match in found if match is not None]
    assert len(chosen) == len(set(chosen)) == min(len(answer), len(boxes))
    assert found[: len(chosen)] == [match for match in found if match is not None]
    if chosen and 0 < best < len(regions):
        assert chosen[0] == best
