"""A small SAM 2 whose masks surround their points."""

import warnings

import msgspec
import pytest
from sam2.modeling.sam2_base import SAM2Base

from matir_cli.engines.sam2.options import Sam2Options
from matir_cli.engines.sam2.proposer import Sam2Proposer
from matir_cli.records import ImageArray
from tests.support.crafted_sam2 import SMALL_OPTIONS, choose_thresholds, craft_model, draw_scene


@pytest.fixture(scope="session")
def image() -> ImageArray:
    """(240, 320, 3) uint8: a drawn scene."""
    return draw_scene(320, 240)


@pytest.fixture(scope="session")
def model(image: ImageArray) -> SAM2Base:
    """The model of `SMALL_OPTIONS`, its masks local on `image`."""
    # Upstream's predictor scripts its transforms, which newer torch warns of.
    with warnings.catch_warnings(action="ignore"):
        return craft_model(SMALL_OPTIONS, image)


@pytest.fixture(scope="session")
def options(model: SAM2Base, image: ImageArray) -> Sam2Options:
    """Options with thresholds that half of upstream's masks pass, and then 40% of these."""
    with warnings.catch_warnings(action="ignore"):
        found = choose_thresholds(model, SMALL_OPTIONS, image, likely=0.5, stable=0.4)
    return msgspec.structs.replace(
        SMALL_OPTIONS, predicted_iou_threshold=found.predicted_iou, stability_threshold=found.stability
    )


@pytest.fixture
def proposer(model: SAM2Base, options: Sam2Options) -> Sam2Proposer:
    """The proposer with `model` and `options`, on the CPU."""
    return Sam2Proposer(model, options, "cpu")
