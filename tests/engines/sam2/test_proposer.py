"""SAM 2's regions against upstream's generator and predictor."""

import threading

import msgspec
import numpy as np
import pytest
import torch
from sam2.modeling.sam2_base import SAM2Base
from torch import Tensor, nn

from matir_cli import masks
from matir_cli.engines.sam2 import proposer as proposing
from matir_cli.engines.sam2.options import Sam2Options
from matir_cli.engines.sam2.proposer import Sam2Proposer
from matir_cli.errors import EngineFailed
from matir_cli.records import Box, ImageArray, Point
from tests.support.crafted_sam2 import (
    SMALL_OPTIONS,
    craft_model,
    draw_scene,
    match_shares,
    upstream_generator,
    upstream_predictor,
    upstream_rles,
)

# Upstream's predictor scripts its transforms, which newer torch warns of.
pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit.script.*")


class TestSameAsUpstream:
    @pytest.mark.parametrize(
        ("width", "height", "seed"), [(320, 240, 0), (210, 330, 1), (500, 350, 2), (90, 60, 3)]
    )
    def test_regions(
        self,
        model: SAM2Base,
        options: Sam2Options,
        proposer: Sam2Proposer,
        width: int,
        height: int,
        seed: int,
    ) -> None:
        picture = draw_scene(width, height, seed)
        theirs = upstream_rles(upstream_generator(model, options), picture)
        ours = proposer.propose(picture)
        assert len(theirs) >= 5
        assert min(match_shares(ours, theirs)) >= 0.98

    @pytest.mark.parametrize(("nms", "offset"), [(0.3, 1.0), (0.95, 2.0)])
    def test_other_settings(
        self, model: SAM2Base, options: Sam2Options, image: ImageArray, nms: float, offset: float
    ) -> None:
        other = msgspec.structs.replace(
            options, nms_threshold=nms, stability_offset=offset, stability_threshold=0.7, points_per_side=9
        )
        theirs = upstream_rles(upstream_generator(model, other), image)
        ours = Sam2Proposer(model, other, "cpu").propose(image)
        assert len(theirs) >= 2
        assert min(match_shares(ours, theirs)) >= 0.98

    def test_scores(
        self, model: SAM2Base, options: Sam2Options, proposer: Sam2Proposer, image: ImageArray
    ) -> None:
        theirs = upstream_generator(model, options).generate(image)
        ours = proposer.propose(image)
        np.testing.assert_allclose(
            [region.predicted_iou for region in ours],
            sorted((mask["predicted_iou"] for mask in theirs), reverse=True),
            atol=1e-5,
        )
        np.testing.assert_allclose(
            sorted(region.stability for region in ours),
            sorted(mask["stability_score"] for mask in theirs),
            atol=1e-3,
        )
        assert sorted(region.area for region in ours) == pytest.approx(
            sorted(mask["area"] for mask in theirs), abs=5
        )

    @pytest.mark.parametrize("single_stable", [False, True])
    def test_refine(self, image: ImageArray, single_stable: bool) -> None:
        model = craft_model(SMALL_OPTIONS, image)
        single, first, *_ = model.sam_mask_decoder.output_hypernetworks_mlps
        if single_stable:
            single.load_state_dict(first.state_dict())
            single.layers[-1].bias *= 20
        boxes = [Box(10, 20, 80, 90), Box(150.5, 30, 300, 200), Box(0, 0, 320, 240)]
        found = Sam2Proposer(model, SMALL_OPTIONS, "cpu").refine(image, boxes)
        predictor = upstream_predictor(model)
        predictor.set_image(image)
        for box, region in zip(boxes, found, strict=True):
            expected, predicted_iou, _ = predictor.predict(
                box=np.array([box.x0, box.y0, box.x1, box.y1]), multimask_output=False
            )
            assert region is not None
            assert masks.iou([region.rle], [masks.encode(expected[0] > 0)])[0, 0] > 0.99
            assert region.predicted_iou == pytest.approx(float(predicted_iou[0]), abs=1e-5)
            assert region.box == masks.box(region.rle)

    def test_region_at(self, image: ImageArray) -> None:
        model = craft_model(SMALL_OPTIONS, image)
        proposer = Sam2Proposer(model, SMALL_OPTIONS, "cpu")
        predictor = upstream_predictor(model)
        predictor.set_image(image)
        for x, y in ((40, 50), (200.5, 100), (319, 239)):
            region = proposer.region_at(image, Point(x, y))
            expected, predicted_iou, _ = predictor.predict(
                point_coords=np.array([[x, y]]), point_labels=np.array([1]), multimask_output=True
            )
            best = predicted_iou.argmax()
            assert region is not None
            assert masks.iou([region.rle], [masks.encode(expected[best] > 0)])[0, 0] > 0.99
            assert region.predicted_iou == pytest.approx(float(predicted_iou[best]), abs=1e-5)


class TestPrecision:
    @pytest.mark.parametrize("seed", range(3))
    def test_bfloat16_encoder_gives_the_same_masks(
        self, model: SAM2Base, options: Sam2Options, proposer: Sam2Proposer, seed: int
    ) -> None:
        """But for masks at a threshold, which fall on either side of it: here it lies lower for bfloat16."""
        wide = msgspec.structs.replace(
            options,
            precision="bfloat16",
            predicted_iou_threshold=options.predicted_iou_threshold - 0.02,
            stability_threshold=options.stability_threshold - 0.02,
        )
        picture = draw_scene(320, 240, seed)
        exact = proposer.propose(picture)
        rough = Sam2Proposer(model, wide, "cpu").propose(picture)
        assert match_shares(rough, [region.rle for region in exact])[1] >= 0.98
        assert {region.predicted_iou for region in rough}.isdisjoint(
            region.predicted_iou for region in exact
        ), "it did not compute in bfloat16"

    def test_a_small_model_stays_in_float32(
        self, model: SAM2Base, options: Sam2Options, proposer: Sam2Proposer, image: ImageArray
    ) -> None:
        plain = Sam2Proposer(model, msgspec.structs.replace(options, precision="float32"), "cpu")
        assert proposer.propose(image) == plain.propose(image)

    def test_the_precision_is_no_part_of_the_identity(self) -> None:
        assert Sam2Options(precision="bfloat16").identity() == Sam2Options().identity()


class TestRegions:
    def test_facts_are_those_of_the_mask(
        self, proposer: Sam2Proposer, options: Sam2Options, image: ImageArray
    ) -> None:
        regions = proposer.propose(image)
        assert regions
        for region in regions:
            mask = masks.decode(region.rle)
            assert mask.shape == (240, 320)
            assert masks.encode(mask) == region.rle
            assert region.box == masks.box(region.rle)
            assert region.area == mask.sum() > 0
            assert options.predicted_iou_threshold < region.predicted_iou <= 1
            assert options.stability_threshold <= region.stability <= 1

    def test_best_first_and_the_same_again(self, proposer: Sam2Proposer, image: ImageArray) -> None:
        regions = proposer.propose(image)
        predicted = [region.predicted_iou for region in regions]
        assert predicted == sorted(predicted, reverse=True)
        assert proposer.propose(image) == regions

    @pytest.mark.parametrize("batch", [1, 7, 200])
    def test_batch_size_changes_no_mask(
        self, model: SAM2Base, options: Sam2Options, proposer: Sam2Proposer, image: ImageArray, batch: int
    ) -> None:
        batched = Sam2Proposer(model, msgspec.structs.replace(options, points_per_batch=batch), "cpu")
        expected = [region.rle for region in proposer.propose(image)]
        assert min(match_shares(batched.propose(image), expected)) == 1

    def test_points_that_do_not_fit_together_are_halved(
        self, model: SAM2Base, options: Sam2Options, proposer: Sam2Proposer, image: ImageArray
    ) -> None:
        expected = [region.rle for region in proposer.propose(image)]
        seen: list[int] = []

        def limit(_: nn.Module, __: tuple[object, ...], given: dict[str, tuple[Tensor, Tensor]]) -> None:
            seen.append(len(given["points"][0]))
            if seen[-1] > 5:
                raise torch.OutOfMemoryError("no memory")

        batched = Sam2Proposer(model, msgspec.structs.replace(options, points_per_batch=16), "cpu")
        hook = model.sam_prompt_encoder.register_forward_pre_hook(limit, with_kwargs=True)
        try:
            assert min(match_shares(batched.propose(image), expected)) == 1
            assert seen[:4] == [16, 8, 4, 4]
            seen.clear()
            assert len(batched.refine(image, [Box(10, 10, 90, 90)] * 9)) == 9
            assert max(seen) == 4, "the smaller batch is remembered"
        finally:
            hook.remove()

    def test_batches_on_several_cores_change_no_mask(
        self,
        model: SAM2Base,
        options: Sam2Options,
        proposer: Sam2Proposer,
        image: ImageArray,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        expected = [region.rle for region in proposer.propose(image)]
        monkeypatch.setattr(proposing, "_WORTH_A_CORE", 1)
        on_cores = Sam2Proposer(model, msgspec.structs.replace(options, points_per_batch=8), "cpu")
        threads: set[int] = set()
        hook = model.sam_prompt_encoder.register_forward_pre_hook(
            lambda *_: threads.add(threading.get_ident())
        )
        before = torch.get_num_threads()
        torch.set_num_threads(2)
        try:
            found = [on_cores.propose(image) for _ in range(2)]
        finally:
            torch.set_num_threads(before)
            hook.remove()
        assert threading.get_ident() not in threads
        assert found[0] == found[1]
        assert min(match_shares(found[0], expected)) == 1

    def test_an_image_that_does_not_fit(
        self, model: SAM2Base, proposer: Sam2Proposer, image: ImageArray
    ) -> None:
        def refuse(_: nn.Module, __: object) -> None:
            raise torch.OutOfMemoryError("no memory")

        hook = model.image_encoder.register_forward_pre_hook(refuse)
        try:
            with pytest.raises(EngineFailed, match="not enough memory for one item at a time"):
                proposer.propose(image)
        finally:
            hook.remove()

    @pytest.mark.parametrize(("height", "width"), [(1, 1), (2, 2), (1, 50), (50, 1), (3, 1024)])
    def test_pictures_of_hardly_any_size(self, model: SAM2Base, height: int, width: int) -> None:
        eager = msgspec.structs.replace(
            SMALL_OPTIONS, predicted_iou_threshold=0.0, stability_threshold=0.0, points_per_side=4
        )
        proposer = Sam2Proposer(model, eager, "cpu")
        for region in proposer.propose(draw_scene(width, height)):
            assert masks.decode(region.rle).shape == (height, width)
            assert masks.area(region.rle) == region.area > 0

    def test_image_that_may_not_be_written(self, proposer: Sam2Proposer, image: ImageArray) -> None:
        mirrored = image[:, ::-1]  # also a view, with negative strides
        frozen = mirrored.copy()
        frozen.flags.writeable = False
        assert proposer.propose(frozen) == proposer.propose(mirrored)

    def test_prompts_are_counted(self, model: SAM2Base, image: ImageArray) -> None:
        few = msgspec.structs.replace(SMALL_OPTIONS, points_per_side=4)
        proposer = Sam2Proposer(model, few, "cpu")
        assert proposer.prompts_asked == 0
        proposer.propose(image)
        assert proposer.prompts_asked == 16
        proposer.refine(image, [Box(0, 0, 90, 90)] * 3)
        proposer.region_at(image, Point(9, 9))
        assert proposer.prompts_asked == 20

    def test_nothing_found(self, model: SAM2Base, image: ImageArray) -> None:
        strict = msgspec.structs.replace(SMALL_OPTIONS, predicted_iou_threshold=1.0)
        assert Sam2Proposer(model, strict, "cpu").propose(image) == []

    def test_refine_sees_nothing(self, image: ImageArray) -> None:
        model = craft_model(SMALL_OPTIONS, image)
        for mlp in model.sam_mask_decoder.output_hypernetworks_mlps:
            mlp.layers[-1].weight.zero_()
            mlp.layers[-1].bias.zero_()
        proposer = Sam2Proposer(model, SMALL_OPTIONS, "cpu")
        assert proposer.refine(image, [Box(0, 0, 9, 9)]) == [None]
        assert proposer.refine(image, []) == []
        assert proposer.region_at(image, Point(5, 5)) is None
