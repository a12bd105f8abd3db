import pickle
import warnings
from pathlib import Path

import msgspec
import numpy as np
import pytest
import sam2
import torch
from safetensors.torch import save_file
from sam2.build_sam import build_sam2
from sam2.modeling.sam2_base import SAM2Base
from torch import Tensor

from matir_cli import masks
from matir_cli.engines.device import choose_device
from matir_cli.engines.sam2.decoder import PromptDecoder
from matir_cli.engines.sam2.model import build_model, load_model
from matir_cli.engines.sam2.options import Architecture, PackagedConfig, Sam2Options
from matir_cli.engines.sam2.proposer import Sam2Proposer, load_sam2_proposer
from matir_cli.errors import CheckpointInvalid, DeviceUnavailable, ModelSetInvalid
from matir_cli.records import Box, EngineConfig, ImageArray, ModelIdentity, Point
from tests.support.crafted_sam2 import (
    crafted,
    generator_of,
    matched,
    predictor_of,
    scene,
    thresholds,
    upstream_rles,
)

# Upstream's predictor scripts its transforms, which newer torch advises against.
pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit.script.*")

TINY = "configs/sam2.1/sam2.1_hiera_t.yaml"
SMALL = {
    "embed_dim": 32,
    "num_heads": 1,
    "stages": [1, 2, 3, 1],
    "global_att_blocks": [4],
    "window_spec": [8, 4, 8, 4],
    "window_pos_embed_bkg_spatial_size": [7, 7],
    "d_model": 128,
    "memory_layers": 0,
}
OPTIONS = Sam2Options(
    config=TINY,
    image_size=256,
    points_per_side=12,
    architecture=msgspec.convert(SMALL, Architecture),
)


@pytest.fixture(scope="module")
def image() -> ImageArray:
    return scene(320, 240)


@pytest.fixture(scope="module")
def model(image: ImageArray) -> SAM2Base:
    with warnings.catch_warnings(action="ignore"):  # as above, which does not reach a fixture
        return crafted(OPTIONS, image)


@pytest.fixture(scope="module")
def options(model: SAM2Base, image: ImageArray) -> Sam2Options:
    """Thresholds that half of upstream's masks pass, and 40% of these in turn."""
    with warnings.catch_warnings(action="ignore"):
        found = thresholds(model, OPTIONS, image, likely=0.5, stable=0.4)
    return msgspec.structs.replace(
        OPTIONS, predicted_iou_threshold=found.predicted_iou, stability_threshold=found.stability
    )


@pytest.fixture
def proposer(model: SAM2Base, options: Sam2Options) -> Sam2Proposer:
    return Sam2Proposer(model, options, "cpu")


def config(checkpoint: Path, **options: object) -> EngineConfig:
    settings = {"config": TINY, "image_size": 256, "architecture": SMALL, "points_per_side": 4, **options}
    return EngineConfig("sam2", settings, {"checkpoint": checkpoint}, ModelIdentity("small", "0" * 64))


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
        picture = scene(width, height, seed)
        theirs = upstream_rles(generator_of(model, options), picture)
        ours = proposer.propose(picture)
        assert len(theirs) >= 5
        assert min(matched(ours, theirs)) >= 0.98

    @pytest.mark.parametrize(("nms", "offset"), [(0.3, 1.0), (0.95, 2.0)])
    def test_other_settings(
        self, model: SAM2Base, options: Sam2Options, image: ImageArray, nms: float, offset: float
    ) -> None:
        other = msgspec.structs.replace(
            options, nms_threshold=nms, stability_offset=offset, stability_threshold=0.7, points_per_side=9
        )
        theirs = upstream_rles(generator_of(model, other), image)
        ours = Sam2Proposer(model, other, "cpu").propose(image)
        assert len(theirs) >= 2
        assert min(matched(ours, theirs)) >= 0.98

    def test_scores(
        self, model: SAM2Base, options: Sam2Options, proposer: Sam2Proposer, image: ImageArray
    ) -> None:
        theirs = generator_of(model, options).generate(image)
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

    @pytest.mark.parametrize("size", [64, 256, 320])
    def test_decoder_with_any_weights(self, size: int) -> None:
        torch.manual_seed(size)
        model = build_model(msgspec.structs.replace(OPTIONS, image_size=size)).eval().requires_grad_(False)
        # Far from what initialisation leaves, biases above all.
        for name, weight in model.sam_mask_decoder.named_parameters():
            weight.add_(torch.randn_like(weight), alpha=0.3 if name.endswith("bias") else 0.05)
        pixels, points = torch.randn(1, 3, size, size), torch.rand(5, 2, 2) * size
        labels = torch.tensor([[1, 0], [1, 1], [0, 1], [2, 3], [1, -1]])
        expected, expected_iou = _upstream_decode(model, pixels, points, labels)

        decoder = PromptDecoder(model)
        picture = decoder.picture(pixels)
        decoded = decoder.decode(picture, points, labels)
        logits = decoder.masks(picture, decoded, torch.ones(5, 4, dtype=torch.bool)).view_as(expected)
        torch.testing.assert_close(decoded.predicted_iou, expected_iou, atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(logits, expected, atol=1e-4 * float(expected.std()), rtol=1e-4)

    def test_decoder_in_bfloat16(self, model: SAM2Base, image: ImageArray) -> None:
        """As on a GPU: no further from upstream, and from the truth, than rounding takes upstream itself."""
        pixels = torch.from_numpy(image[None, :, :256].transpose(0, 3, 1, 2) / np.float32(255))
        pixels = torch.nn.functional.pad(pixels, (0, 0, 0, 16))
        generator = torch.Generator().manual_seed(0)
        points, labels = torch.rand(16, 1, 2, generator=generator) * 256, torch.ones(16, 1, dtype=torch.int)
        exact, exact_iou = _upstream_decode(model, pixels, points, labels)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            expected, expected_iou = _upstream_decode(model, pixels, points, labels)
            decoder = PromptDecoder(model)
            picture = decoder.picture(pixels)
            decoded = decoder.decode(picture, points, labels)
            logits = decoder.masks(picture, decoded, torch.ones(16, 4, dtype=torch.bool)).view_as(expected)
        assert logits.dtype == expected.dtype == torch.bfloat16
        rounding = float((expected - exact).std())
        assert float((logits - expected).std()) < 1.5 * rounding
        assert float((logits - exact).std()) < 1.5 * rounding
        assert float((decoded.predicted_iou - exact_iou).std()) < 1.5 * float(
            (expected_iou - exact_iou).std()
        )

    @pytest.mark.parametrize("single_stable", [False, True])
    def test_refine(self, image: ImageArray, single_stable: bool) -> None:
        model = crafted(OPTIONS, image)
        single, first, *_ = model.sam_mask_decoder.output_hypernetworks_mlps
        if single_stable:
            single.load_state_dict(first.state_dict())
            single.layers[-1].bias *= 20
        boxes = [Box(10, 20, 80, 90), Box(150.5, 30, 300, 200), Box(0, 0, 320, 240)]
        found = Sam2Proposer(model, OPTIONS, "cpu").refine(image, boxes)
        predictor = predictor_of(model)
        predictor.set_image(image)
        for box, region in zip(boxes, found, strict=True):
            expected, predicted_iou, _ = predictor.predict(
                box=np.array([box.x0, box.y0, box.x1, box.y1]), multimask_output=False
            )
            assert region is not None
            assert masks.iou([region.rle], [masks.encode(expected[0] > 0)])[0, 0] > 0.99
            assert region.predicted_iou == pytest.approx(float(predicted_iou[0]), abs=1e-5)
            assert region.box == masks.box(region.rle)

    def test_at(self, image: ImageArray) -> None:
        model = crafted(OPTIONS, image)
        proposer = Sam2Proposer(model, OPTIONS, "cpu")
        predictor = predictor_of(model)
        predictor.set_image(image)
        for x, y in ((40, 50), (200.5, 100), (319, 239)):
            region = proposer.at(image, Point(x, y))
            expected, predicted_iou, _ = predictor.predict(
                point_coords=np.array([[x, y]]), point_labels=np.array([1]), multimask_output=True
            )
            best = predicted_iou.argmax()
            assert region is not None
            assert masks.iou([region.rle], [masks.encode(expected[best] > 0)])[0, 0] > 0.99
            assert region.predicted_iou == pytest.approx(float(predicted_iou[best]), abs=1e-5)


def _upstream_decode(
    model: SAM2Base, pixels: Tensor, points: Tensor, labels: Tensor
) -> tuple[Tensor, Tensor]:
    full, half, embedding = model.forward_image(pixels)["backbone_fpn"]
    sparse, dense = model.sam_prompt_encoder(points=(points, labels), boxes=None, masks=None)
    logits, predicted_iou, _, _ = model.sam_mask_decoder.predict_masks(
        image_embeddings=embedding + model.no_mem_embed[0, 0][:, None, None],
        image_pe=model.sam_prompt_encoder.get_dense_pe(),
        sparse_prompt_embeddings=sparse,
        dense_prompt_embeddings=dense,
        repeat_image=True,
        high_res_features=[full, half],
    )
    return logits, predicted_iou


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
        assert min(matched(batched.propose(image), expected)) == 1

    @pytest.mark.parametrize(("height", "width"), [(1, 1), (2, 2), (1, 50), (50, 1), (3, 1024)])
    def test_pictures_of_hardly_any_size(self, model: SAM2Base, height: int, width: int) -> None:
        eager = msgspec.structs.replace(
            OPTIONS, predicted_iou_threshold=0.0, stability_threshold=0.0, points_per_side=4
        )
        proposer = Sam2Proposer(model, eager, "cpu")
        for region in proposer.propose(scene(width, height)):
            assert masks.decode(region.rle).shape == (height, width)
            assert masks.area(region.rle) == region.area > 0

    def test_image_that_may_not_be_written(self, proposer: Sam2Proposer, image: ImageArray) -> None:
        mirrored = image[:, ::-1]  # a view, too: its rows run backwards
        frozen = mirrored.copy()
        frozen.flags.writeable = False
        assert proposer.propose(frozen) == proposer.propose(mirrored)

    def test_nothing_found(self, model: SAM2Base, image: ImageArray) -> None:
        strict = msgspec.structs.replace(OPTIONS, predicted_iou_threshold=1.0)
        assert Sam2Proposer(model, strict, "cpu").propose(image) == []

    def test_refine_sees_nothing(self, image: ImageArray) -> None:
        model = crafted(OPTIONS, image)
        for mlp in model.sam_mask_decoder.output_hypernetworks_mlps:
            mlp.layers[-1].weight.zero_()
            mlp.layers[-1].bias.zero_()
        proposer = Sam2Proposer(model, OPTIONS, "cpu")
        assert proposer.refine(image, [Box(0, 0, 9, 9)]) == [None]
        assert proposer.refine(image, []) == []
        assert proposer.at(image, Point(5, 5)) is None


class TestLoad:
    @pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
    def test_file_formats(self, model: SAM2Base, image: ImageArray, tmp_path: Path, suffix: str) -> None:
        path = tmp_path / f"weights{suffix}"
        if suffix == ".pt":
            torch.save({"model": model.state_dict()}, path)
        else:
            save_file(model.state_dict(), path)
        loose = {"predicted_iou_threshold": 0.1, "stability_threshold": 0.1, "points_per_side": 4}
        regions = load_sam2_proposer(config(path, **loose), "cpu").propose(image)
        assert regions
        settings = msgspec.structs.replace(OPTIONS, **loose)
        assert regions == Sam2Proposer(model, settings, "cpu").propose(image)

    def test_half_precision_file(self, model: SAM2Base, tmp_path: Path) -> None:
        path = tmp_path / "half.pt"
        torch.save({"model": {name: weight.half() for name, weight in model.state_dict().items()}}, path)
        loaded = load_model(OPTIONS, path)
        assert {weight.dtype for weight in loaded.state_dict().values()} == {torch.float32}
        assert not loaded.training

    @pytest.mark.parametrize("name", [TINY, "configs/sam2/sam2_hiera_t.yaml"])
    def test_official_tensors(self, name: PackagedConfig) -> None:
        """Names and shapes are those that upstream's own builder expects of a checkpoint."""
        ours = build_model(Sam2Options(config=name))
        theirs = build_sam2(name, None, device="cpu")
        shapes = [{key: value.shape for key, value in m.state_dict().items()} for m in (ours, theirs)]
        assert shapes[0] == shapes[1]
        assert ours.training
        assert vars(ours.sam_mask_decoder).keys() == vars(theirs.sam_mask_decoder).keys()

    def test_all_configs_are_packaged(self) -> None:
        packaged = Path(sam2.__file__).parent
        names = {
            str(path.relative_to(packaged).as_posix())
            for folder in ("sam2", "sam2.1")
            for path in (packaged / "configs" / folder).glob("*.yaml")
        }
        assert names == set(PackagedConfig.__args__)


class _Attack:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return Path.touch, (Path("attacked"),)


class TestBadFiles:
    def refused(self, path: Path) -> str:
        with pytest.raises(CheckpointInvalid) as caught:
            load_sam2_proposer(config(path), "cpu")
        assert caught.value.path == path
        assert "\n" not in caught.value.reason
        return caught.value.reason

    @pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
    @pytest.mark.parametrize("content", [b"", b"PK", b"not a checkpoint" * 100, pickle.dumps({"model": {}})])
    def test_not_a_checkpoint(self, tmp_path: Path, suffix: str, content: bytes) -> None:
        path = tmp_path / f"weights{suffix}"
        path.write_bytes(content)
        assert self.refused(path)

    def test_nothing_there(self, tmp_path: Path) -> None:
        assert "No such file" in self.refused(tmp_path / "absent.pt")
        assert self.refused(tmp_path / "absent.safetensors")
        assert self.refused(tmp_path)

    @pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
    def test_half_a_file(self, model: SAM2Base, tmp_path: Path, suffix: str) -> None:
        path = tmp_path / f"weights{suffix}"
        if suffix == ".pt":
            torch.save({"model": model.state_dict()}, path)
        else:
            save_file(model.state_dict(), path)
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
        assert self.refused(path)

    def test_damaged_bytes(self, tmp_path: Path) -> None:
        path = tmp_path / "weights.pt"
        torch.save({"model": {"weight": torch.zeros(3)}}, path)
        sound = path.read_bytes()
        random = np.random.default_rng(0)
        for _ in range(100):
            damaged = bytearray(sound)
            for place in random.integers(0, len(sound), 3):
                damaged[place] = random.integers(0, 256)
            path.write_bytes(damaged)
            assert self.refused(path)

    def test_code_is_not_run(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)
        torch.save({"model": _Attack()}, tmp_path / "weights.pt")
        assert "more than tensors" in self.refused(tmp_path / "weights.pt")
        assert not (tmp_path / "attacked").exists()

    @pytest.mark.parametrize(
        "content", [None, [1, 2], {}, {"model": 3}, {"model": {"a": 1}}, {"weight": torch.zeros(1)}]
    )
    def test_another_table(self, tmp_path: Path, content: object) -> None:
        torch.save(content, tmp_path / "weights.pt")
        assert "model" in self.refused(tmp_path / "weights.pt")

    def test_another_model(self, model: SAM2Base, tmp_path: Path) -> None:
        path, sound = tmp_path / "weights.pt", model.state_dict()
        first, *_ = sorted(sound)

        torch.save({"model": {name: sound[name] for name in sound if name != first}}, path)
        assert self.refused(path) == f"tensors missing: 1, the first is {first}"
        torch.save({"model": {**sound, "head.weight": torch.zeros(1)}}, path)
        assert self.refused(path) == "tensors of another model: 1, the first is head.weight"
        torch.save({"model": {**sound, first: torch.zeros(2, 7)}}, path)
        assert f"{first} has the shape (2, 7), not " in self.refused(path)
        torch.save({"model": {**sound, first: torch.full_like(sound[first], torch.nan)}}, path)
        assert first in self.refused(path)
        torch.save({"model": {**sound, first: sound[first].int()}}, path)
        assert first in self.refused(path)


class TestOptions:
    @pytest.mark.parametrize(
        ("options", "named"),
        [
            ({"config": "/tmp/mine.yaml"}, "config"),  # noqa: S108 - it is not opened
            ({"config": "configs/sam2.1_training/sam2.1_hiera_b+_MOSE_finetune.yaml"}, "config"),
            ({"image_size": 250}, "image_size"),
            ({"image_size": 288, "architecture": {"window_spec": [16, 4, 8, 4]}}, "image_size"),
            ({"predicted_iou_threshold": 2}, "predicted_iou_threshold"),
            ({"points_per_batch": 0}, "points_per_batch"),
            ({"thresh": 1}, "thresh"),
            ({"architecture": {"_target_": "os.system"}}, "_target_"),
            ({"architecture": {"d_model": 100}}, "d_model"),
            ({"architecture": {"embed_dim": 33, "num_heads": 2}}, "embed_dim"),
            ({"architecture": {"global_att_blocks": [3]}}, "global_att_blocks"),
            ({"architecture": {"global_att_blocks": [99]}}, "global_att_blocks"),
            ({"architecture": {"window_spec": [8, 5, 8, 4]}}, "window_spec"),
        ],
    )
    def test_wrong(self, model: SAM2Base, tmp_path: Path, options: dict[str, object], named: str) -> None:
        torch.save({"model": model.state_dict()}, tmp_path / "weights.pt")
        with pytest.raises(ModelSetInvalid, match=named) as caught:
            load_sam2_proposer(config(tmp_path / "weights.pt", **options), "cpu")
        assert caught.value.source == "sam2"

    def test_defaults_are_the_papers(self) -> None:
        defaults = Sam2Options()
        assert defaults.config.endswith("sam2.1_hiera_l.yaml")
        assert (defaults.predicted_iou_threshold, defaults.nms_threshold) == (0.5, 0.7)
        assert (defaults.points_per_side, defaults.stability_threshold, defaults.stability_offset) == (
            32,
            0.95,
            1.0,
        )


class TestDevice:
    def test_automatic(self) -> None:
        assert torch.zeros(1, device=choose_device("auto")).device.type == choose_device("auto")
        assert choose_device("cpu") == "cpu"

    @pytest.mark.parametrize("name", ["gpu", "", "cuda:99"])
    def test_no_such_device(self, name: str) -> None:
        with pytest.raises(DeviceUnavailable) as caught:
            choose_device(name)
        assert caught.value.device == name

    @pytest.mark.parametrize("name", ["cuda", "mps"])
    def test_by_name(self, name: str) -> None:
        there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}[name]
        if there:
            assert choose_device(name) == name
        else:
            with pytest.raises(DeviceUnavailable):
                choose_device(name)
