"""Adaptive points against the whole grid."""

import logging

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sam2.modeling.sam2_base import SAM2Base
from torch import Tensor, nn

from matir_cli import masks
from matir_cli.engines.options import read_options
from matir_cli.engines.sam2.adaptive import SHARE, PointChooser
from matir_cli.engines.sam2.model import load_model
from matir_cli.engines.sam2.options import Sam2Options
from matir_cli.engines.sam2.proposer import Sam2Proposer
from matir_cli.model_sets.catalogue import load_model_set
from matir_cli.model_sets.weights import locate_files
from matir_cli.models.tiny.benchmark import WORLD
from matir_cli.models.tiny.world import picture
from matir_cli.records import ImageArray, MaskArray
from tests.support.crafted_sam2 import SMALL_OPTIONS, match_shares

# Upstream's predictor scripts its transforms, which newer torch warns of.
pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit.script.*")


def _rounds(chooser: PointChooser, covered: MaskArray) -> list[int]:
    """Return all points, in the order in which they are chosen."""
    chosen: list[int] = chooser.start().tolist()
    while len(found := chooser.next_round(covered)):
        chosen += found.tolist()
    return chosen


class TestPointChooser:
    @settings(max_examples=40, derandomize=True, deadline=None)
    @given(side=st.integers(1, 20), seed=st.integers(0, 99), count=st.integers(0, 5))
    def test_any_grid(self, side: int, seed: int, count: int) -> None:
        random = np.random.default_rng(seed)
        features = random.normal(size=(side**2, 8)).astype(np.float32)
        covered = random.random((count, side**2)) < 0.3
        chooser = PointChooser(side, features)
        chosen = _rounds(chooser, covered)
        assert len(set(chosen)) == len(chosen) == chooser.asked == max(1, int(side**2 * SHARE))
        assert set(chosen) <= set(range(side**2))
        assert chosen == _rounds(PointChooser(side, features), covered)

    @pytest.mark.parametrize("side", [12, 24, 32])
    def test_the_coarse_grid_leaves_no_corner_out(self, side: int) -> None:
        coarse = PointChooser(side, np.zeros((side**2, 2), np.float32)).start()
        rows, columns = np.divmod(coarse, side)
        every = np.arange(side)
        for along in (rows, columns):
            assert np.abs(every[:, None] - along).min(axis=1).max() <= 2
        assert len(coarse) <= side**2 / 9

    def test_what_looks_like_nothing_else_comes_first(self) -> None:
        features = np.tile(np.array([1, 0], np.float32), (144, 1))
        features[0] = features[1] = (-1, 0.5)
        chooser = PointChooser(12, features)
        chooser.start()
        first = chooser.next_round(np.zeros((0, 144), np.bool_))
        assert first[0] == 0
        assert 1 not in first, "it is like its neighbour, asked by now"

    def test_what_a_mask_tells_from_all_points_asked_comes_first(self) -> None:
        chooser = PointChooser(12, np.zeros((144, 2), np.float32))
        coarse = chooser.start()
        covered = np.ones((2, 144), np.bool_)
        hole = 6 * 12 + 6
        assert hole not in coarse
        covered[1, hole] = False
        assert chooser.next_round(covered)[0] == hole


class TestProposer:
    def adaptive(self, model: SAM2Base, options: Sam2Options, **changes: object) -> Sam2Proposer:
        changed = msgspec.structs.replace(options, points="adaptive", **changes)
        return Sam2Proposer(model, changed, "cpu")

    def test_a_third_of_the_prompts_at_most(
        self,
        model: SAM2Base,
        options: Sam2Options,
        image: ImageArray,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        asked = 0

        def count(_: nn.Module, __: tuple[object, ...], given: dict[str, tuple[Tensor, Tensor]]) -> None:
            nonlocal asked
            asked += len(given["points"][0])

        hook = model.sam_prompt_encoder.register_forward_pre_hook(count, with_kwargs=True)
        try:
            with caplog.at_level(logging.DEBUG, "matir_cli.engines.sam2"):
                regions = self.adaptive(model, options).propose(image)
        finally:
            hook.remove()
        assert regions
        assert 16 < asked <= 48
        assert caplog.messages == [
            f"asked {asked} of 144 points, kept {len(regions)} of {len(regions)} masks"
        ]

    def test_the_same_again_in_any_batches(
        self, model: SAM2Base, options: Sam2Options, image: ImageArray
    ) -> None:
        regions = self.adaptive(model, options).propose(image)
        assert self.adaptive(model, options).propose(image) == regions
        batched = self.adaptive(model, options, points_per_batch=5).propose(image)
        assert min(match_shares(batched, [region.rle for region in regions])) == 1

    def test_masks_are_filtered_as_those_of_the_grid(
        self, model: SAM2Base, options: Sam2Options, image: ImageArray
    ) -> None:
        regions = self.adaptive(model, options).propose(image)
        predicted = [region.predicted_iou for region in regions]
        assert predicted == sorted(predicted, reverse=True)
        assert min(predicted) > options.predicted_iou_threshold
        assert min(region.stability for region in regions) >= options.stability_threshold
        assert all(region.area == masks.area(region.rle) > 0 for region in regions)

    @pytest.mark.parametrize("side", [1, 2, 5])
    def test_grids_of_hardly_any_points(self, model: SAM2Base, image: ImageArray, side: int) -> None:
        strict = msgspec.structs.replace(SMALL_OPTIONS, predicted_iou_threshold=1.0, points_per_side=side)
        assert self.adaptive(model, strict).propose(image) == []

    def test_masks_of_the_grid_on_drawn_pictures(self) -> None:
        """The trained tiny model, with as many points as the real sets have."""
        config = locate_files(load_model_set("tiny"), "proposer")
        options = read_options({**config.options, "points_per_side": 32}, Sam2Options, "sam2")
        model = load_model(options, config.files["checkpoint"])
        kept = count = 0
        for seed in WORLD.seeds("validation")[6:8]:
            scene = picture(seed).image
            grid = Sam2Proposer(model, options, "cpu").propose(scene)
            ours = self.adaptive(model, options).propose(scene)
            overlap = masks.iou([region.rle for region in ours], [region.rle for region in grid])
            kept += int((overlap.max(axis=0) >= 0.75).sum())
            count += len(grid)
        assert count > 20
        assert kept >= 0.96 * count
