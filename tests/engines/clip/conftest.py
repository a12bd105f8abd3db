"""Random CLIP weights in files, made once: tests only read them."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from transformers import CLIPTextModelWithProjection
from transformers import CLIPVisionModelWithProjection as CLIPVision

from matir_cli.engines.clip.tokenizer import ClipTokenizer, load_tokenizer
from tests.support.clip_weights import (
    SMALL_VOCABULARY,
    VISION_SMALL,
    random_text,
    random_vision,
    save_vocabulary,
    text_config,
    to_openai,
)


@pytest.fixture(scope="session")
def vocabulary(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """CLIP's full vocabulary, a tokenizer.json."""
    path = tmp_path_factory.mktemp("vocabulary") / "tokenizer.json"
    save_vocabulary(path)
    return path


@pytest.fixture(scope="session")
def tokenizer(vocabulary: Path) -> ClipTokenizer:
    """The tokenizer with CLIP's full vocabulary."""
    return load_tokenizer(vocabulary)


@pytest.fixture(scope="session")
def small_text() -> CLIPTextModelWithProjection:
    """A text tower for the small vocabulary."""
    return random_text(text_config(48, 3, 3, 24, SMALL_VOCABULARY), 1)


@pytest.fixture(scope="session")
def visual_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small Alpha-CLIP checkpoint whose masks change the vectors."""
    state = to_openai(random_vision(VISION_SMALL, 1))
    generator = torch.Generator().manual_seed(2)
    state["conv1_alpha.weight"] = torch.randn(state["conv1_alpha.weight"].shape, generator=generator) * 0.3
    path = tmp_path_factory.mktemp("small") / "visual.pth"
    torch.save(state, path)
    return path


@pytest.fixture(scope="session")
def vision() -> CLIPVision:
    """A small ViT image tower."""
    return random_vision(VISION_SMALL, 1)


@pytest.fixture(scope="session")
def text_model() -> CLIPTextModelWithProjection:
    """The text tower in `hub_file`, beside the ViT."""
    return random_text(text_config(48, 2, 3, 24, SMALL_VOCABULARY), 2)


@pytest.fixture(scope="session")
def hub_file(
    vision: CLIPVision, text_model: CLIPTextModelWithProjection, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A CLIP with a ViT, as on the Hugging Face hub."""
    path = tmp_path_factory.mktemp("hub") / "model.safetensors"
    extra = {"text_model.embeddings.position_ids": torch.arange(77), "logit_scale": torch.ones(1)}
    towers = {**vision.state_dict(), **text_model.state_dict(), **extra}
    save_file({name: value.contiguous() for name, value in towers.items()}, path)
    return path
