"""Image towers of CLIP: checkpoints that are incomplete or of another model."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from open_clip.model import CLIP
from safetensors.torch import save_file
from torch import Tensor

from matir_cli.engines.clip.image_encoder import load_clip_image_encoder
from matir_cli.errors import CheckpointInvalid
from tests.support.clip_weights import clip_config

State = dict[str, Tensor]


def _without(*names: str) -> Callable[[State], State]:
    return lambda state: {name: value for name, value in state.items() if name not in names}


def _with(name: str, *shape: int) -> Callable[[State], State]:
    return lambda state: {**state, name: torch.zeros(shape)}


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (_without("visual.bn2.running_mean"), "no 'bn2.running_mean'"),
        (_without("visual.layer2.1.conv2.weight"), "no layer2.1.conv2.bias, layer2.1.conv2.weight"),
        (_without("visual.attnpool.q_proj.bias"), "no attnpool.q_proj.bias"),
        (_without("visual.attnpool.c_proj.weight"), "not the image tower of a CLIP"),
        (_without("visual.layer3.0.conv1.weight", "visual.layer3.1.conv1.weight"), "0 blocks in layer3"),
        (_with("visual.bn1.weight", 3), "not the image tower of a CLIP"),
        (_with("visual.conv2.weight", 8, 9, 3, 3), "wrong shape or type of conv2"),
        (_with("visual.conv3.weight", 18, 8, 3, 3), "not the image tower of a CLIP"),
        (_with("visual.attnpool.positional_embedding", 9, 512), "9 positions"),
        (_with("visual.attnpool.positional_embedding", 9), "unpack"),
        (lambda state: {n: v for n, v in state.items() if not n.startswith("visual.")}, "no image tower"),
    ],
)
def test_incomplete_checkpoints_are_refused_with_the_reason(
    resnet: CLIP, tmp_path: Path, change: Callable[[State], State], reason: str
) -> None:
    save_file(change(dict(resnet.state_dict())), tmp_path / "changed.safetensors")
    with pytest.raises(CheckpointInvalid, match=reason):
        load_clip_image_encoder(clip_config(checkpoint=tmp_path / "changed.safetensors"), "cpu")
