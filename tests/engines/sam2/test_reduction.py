"""Masks that are dropped before they cost a pass of the encoder."""

import msgspec
import numpy as np
import pytest
from sam2.modeling.sam2_base import SAM2Base

from matir_cli import masks
from matir_cli.engines.sam2.options import Sam2Options
from matir_cli.engines.sam2.proposer import Sam2Proposer
from matir_cli.records import ImageArray, Region
from tests.support.crafted_sam2 import SMALL_OPTIONS

# Upstream's predictor scripts its transforms, which newer torch warns of.
pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit.script.*")

MANY = msgspec.structs.replace(
    SMALL_OPTIONS,
    points_per_side=12,
    predicted_iou_threshold=0.0,
    stability_threshold=0.0,
    nms_threshold=0.95,
)
"""Options with which many masks repeat each other."""


def _propose(model: SAM2Base, image: ImageArray, **changes: object) -> list[Region]:
    return Sam2Proposer(model, msgspec.structs.replace(MANY, **changes), "cpu").propose(image)


@pytest.fixture(scope="module")
def everything(model: SAM2Base, image: ImageArray) -> list[Region]:
    """All regions with `MANY`."""
    return _propose(model, image)


def test_repeats_are_dropped(model: SAM2Base, image: ImageArray, everything: list[Region]) -> None:
    kept = _propose(model, image, repeat_threshold=0.5)
    assert 1 < len(kept) < len(everything)
    assert kept == [region for region in everything if region in kept], "the order stays"
    rles = [region.rle for region in kept]
    overlap = masks.iou(rles, rles) - np.eye(len(kept))
    assert overlap.max() < 0.6, "0.5 at low resolution"
    # Each dropped mask repeats a better one.
    dropped = [region for region in everything if region not in kept]
    for region, overlaps in zip(dropped, masks.iou([each.rle for each in dropped], rles), strict=True):
        better = [each.predicted_iou >= region.predicted_iou for each in kept]
        assert overlaps[better].max() > 0.4


def test_sizes(model: SAM2Base, image: ImageArray, everything: list[Region]) -> None:
    shares = sorted(region.area / image[..., 0].size for region in everything)
    low, high = shares[len(shares) // 4], shares[-len(shares) // 4]
    kept = _propose(model, image, min_area=low, max_area=high)
    assert kept == [region for region in everything if low <= region.area / image[..., 0].size <= high]
    assert len(kept) < len(everything)


@pytest.mark.parametrize("count", [1, 5, 10_000])
def test_the_best_of_a_photo(
    model: SAM2Base, image: ImageArray, everything: list[Region], count: int
) -> None:
    kept = _propose(model, image, max_regions=count)
    assert len(kept) == min(count, len(everything))
    assert kept == [region for region in everything if region in kept], "the order stays"
    worst = min(region.predicted_iou * region.stability for region in kept)
    others = [region.predicted_iou * region.stability for region in everything if region not in kept]
    assert max(others, default=0.0) <= worst + 1e-6


def test_nothing_is_dropped_by_default(model: SAM2Base, image: ImageArray, everything: list[Region]) -> None:
    defaults = Sam2Options()
    assert (defaults.repeat_threshold, defaults.max_regions) == (None, None)
    assert _propose(model, image, repeat_threshold=1.0, max_regions=10_000, max_area=1.0) == everything


def test_no_masks_at_all(model: SAM2Base, image: ImageArray) -> None:
    assert _propose(model, image, predicted_iou_threshold=1.0, repeat_threshold=0.5, max_regions=3) == []
