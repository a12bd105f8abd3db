"""Random models in files, made once: tests only read them."""

from pathlib import Path

import pytest
import torch
from open_clip.model import CLIP, CLIPTextCfg, CLIPVisionCfg
from safetensors.torch import save_file
from torch import nn

from tests.support.clip_weights import (
    SMALL_VOCABULARY,
    clip_pixels,
    random_photo,
    randomise,
    save_small_vocabulary,
)
from tests.support.small_qwen import SmallQwen, make_model
from tests.support.small_qwen3 import make_qwen3


@pytest.fixture(scope="session")
def small_qwen(tmp_path_factory: pytest.TempPathFactory) -> SmallQwen:
    """A small Qwen2.5-VL with random float32 weights."""
    return make_model(tmp_path_factory.mktemp("small"), seed=1)


@pytest.fixture(scope="session")
def small_qwen3(tmp_path_factory: pytest.TempPathFactory) -> SmallQwen:
    """A small Qwen3-VL with random float32 weights."""
    return make_qwen3(tmp_path_factory.mktemp("small3"), seed=1)


@pytest.fixture(scope="session")
def small_vocabulary(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A vocabulary of bytes and two merges, 516 tokens."""
    path = tmp_path_factory.mktemp("vocabulary") / "tokenizer.json"
    save_small_vocabulary(path)
    return path


@pytest.fixture(scope="session")
def resnet() -> CLIP:
    """A CLIP with a ModifiedResNet by open_clip: 9 cells of 32 pixels, blocks of both kinds."""
    image = CLIPVisionCfg(layers=(1, 2, 1, 2), width=16, image_size=96, patch_size=None)
    model = CLIP(
        32, image, CLIPTextCfg(width=64, heads=1, layers=2, vocab_size=SMALL_VOCABULARY), quick_gelu=True
    )
    randomise(model, 3)
    # Batch norms fitted to photos, or else the layers give all photos the same features.
    for norm in model.modules():
        if isinstance(norm, nn.BatchNorm2d):
            norm.momentum = 1.0
    with torch.no_grad():
        model.train().encode_image(clip_pixels([random_photo(96, 96, seed) for seed in range(20, 32)], 96))
    return model.eval()


@pytest.fixture(scope="session")
def resnet_file(resnet: CLIP, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The CLIP with a ModifiedResNet, as open_clip publishes it."""
    path = tmp_path_factory.mktemp("resnet") / "open_clip_model.safetensors"
    save_file(resnet.state_dict(), path)
    return path
