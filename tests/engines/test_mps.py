"""The torch engines on an emulated MPS: no float64, no operator that MPS lacks, the CPU's results."""

from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch
from torch.nn import functional

from matir_cli import masks
from matir_cli.engines.clip.alpha_encoder import load_alpha_clip_encoder
from matir_cli.engines.protocols import RegionEncoder
from matir_cli.engines.region_tokens.encoder import load_region_tokens_encoder
from matir_cli.engines.sam2.model import load_model
from matir_cli.engines.sam2.options import Sam2Options
from matir_cli.engines.sam2.proposer import Sam2Proposer
from matir_cli.records import Box, Point
from tests.bench.bench_encoder import SMALL_VISION, random_alpha_clip
from tests.support.clip_weights import alpha_clip_config, random_photo
from tests.support.crafted_sam2 import SMALL_OPTIONS, craft_model, draw_scene, match_shares
from tests.support.mps import emulate_mps
from tests.support.siglip_weights import random_siglip, region_tokens_config, save_siglip

# Upstream's predictor scripts its transforms, which newer torch warns of.
pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit.script.*")


class TestGuard:
    def test_tensors_are_where_they_are_put(self) -> None:
        with emulate_mps():
            here, there = torch.ones(2), torch.ones(2).to("mps")
            assert (here.device.type, there.device.type) == ("cpu", "mps")
            assert torch.zeros(3, device="mps").device.type == "mps"
            assert (there + 1).device.type == "mps"
            assert (there + 1).cpu().tolist() == [2, 2]
            there[:1] += 5
            assert there.cpu().tolist() == [6, 1]

    def test_what_it_lacks(self) -> None:
        with emulate_mps():
            there = torch.ones(1, 1, 4, 4).to("mps")
            with pytest.raises(TypeError, match="float64"):
                there.double()
            with pytest.raises(TypeError, match="float64"):
                torch.zeros(2, dtype=torch.float64, device="mps")
            with pytest.raises(NotImplementedError, match="_upsample_bilinear2d_aa"):
                functional.interpolate(there, (2, 2), mode="bilinear", antialias=True)
            where = torch.zeros(1, 1, 1, 2).to("mps")
            with pytest.raises(RuntimeError, match="Border padding"):
                functional.grid_sample(there, where, padding_mode="border", align_corners=False)


@pytest.mark.parametrize("points", ["grid", "adaptive"])
def test_regions(points: str, tmp_path: Path) -> None:
    scene = draw_scene(200, 150)
    settings = {"points_per_side": 6, "points": points, "repeat_threshold": 0.9, "max_regions": 20}
    options = msgspec.convert({**msgspec.to_builtins(SMALL_OPTIONS), **settings}, Sam2Options)
    options = msgspec.structs.replace(options, predicted_iou_threshold=0.0, stability_threshold=0.5)
    boxes, point = [Box(10, 20, 80, 90), Box(0, 0, 200, 150)], Point(60, 70)
    model = craft_model(options, scene)
    torch.save({"model": model.state_dict()}, tmp_path / "sam2.pt")
    expected = Sam2Proposer(model, options, "cpu")
    regions = expected.propose(scene)
    wanted = [*expected.refine(scene, boxes), expected.region_at(scene, point)]
    model = load_model(options, tmp_path / "sam2.pt")
    with emulate_mps():
        proposer = Sam2Proposer(model, options, "mps")
        assert len(regions) >= 5
        assert min(match_shares(proposer.propose(scene), [region.rle for region in regions])) >= 0.98
        found = [*proposer.refine(scene, boxes), proposer.region_at(scene, point)]
    for ours, theirs in zip(found, wanted, strict=True):
        assert ours is not None
        assert theirs is not None
        assert masks.iou([ours.rle], [theirs.rle])[0, 0] > 0.99


def test_vectors_of_alpha_clip(tmp_path: Path) -> None:
    torch.save(dict(random_alpha_clip(SMALL_VISION).state), tmp_path / "visual.pth")
    config = alpha_clip_config({"heads": 1}, visual=tmp_path / "visual.pth")
    _compare(lambda device: load_alpha_clip_encoder(config, device))


def test_vectors_of_region_tokens(tmp_path: Path) -> None:
    save_siglip(random_siglip(1), tmp_path / "model.safetensors")
    config = region_tokens_config({"heads": 3}, checkpoint=tmp_path / "model.safetensors")
    _compare(lambda device: load_region_tokens_encoder(config, device))


def _compare(load: Callable[[str], RegionEncoder]) -> None:
    """Compare the vectors of an encoder on MPS with those on the CPU."""
    image = random_photo(60, 80, 1)
    rows, columns = np.mgrid[:60, :80]
    rles = [masks.whole(60, 80), masks.encode(rows + columns < 70), masks.encode(rows > 40)]
    expected = load("cpu").encode(image, rles)
    with emulate_mps():
        found = load("mps").encode(image, rles)
    np.testing.assert_allclose(found, expected, atol=1e-5)
