"""A CLIP and a SigLIP 2 in files, with their tokenizers, made once: tests only read them."""

from dataclasses import dataclass
from pathlib import Path

import pytest
from safetensors.torch import save_file
from torch import nn

from matir_cli.records import EngineConfig
from tests.support.clip_weights import (
    SMALL_VOCABULARY,
    VISION_SMALL,
    random_text,
    random_vision,
    save_small_vocabulary,
    text_config,
)
from tests.support.siglip_weights import (
    HEADS,
    random_siglip,
    random_strings,
    region_tokens_config,
    save_gemma_tokenizer,
    save_siglip,
)


@dataclass(frozen=True)
class Checkpoint:
    """A random model in a file, beside transformers' model of the same weights."""

    folder: Path
    """Folder of `model.safetensors` and `tokenizer.json`."""
    vision: nn.Module
    """Image tower of transformers."""
    side: int
    """Side of its input, pixels."""

    def config(self, **options: object) -> EngineConfig:
        """Return the engine's configuration."""
        files = {name: self.folder / file for name, file in FILES.items()}
        return region_tokens_config({**HEADS, **options}, **files)


FILES = {"checkpoint": "model.safetensors", "vocabulary": "tokenizer.json"}


@pytest.fixture(scope="session")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    """A CLIP with a ViT of 5 x 5 patches of 8 pixels."""
    folder = tmp_path_factory.mktemp("clip")
    vision, text = random_vision(VISION_SMALL, 1), random_text(text_config(48, 2, 3, 24, SMALL_VOCABULARY), 2)
    towers = {**vision.state_dict(), **text.state_dict()}
    save_file({name: value.contiguous() for name, value in towers.items()}, folder / FILES["checkpoint"])
    save_small_vocabulary(folder / FILES["vocabulary"])
    return Checkpoint(folder, vision, 40)


@pytest.fixture(scope="session")
def siglip(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    """A SigLIP of 4 x 4 patches of 8 pixels."""
    folder = tmp_path_factory.mktemp("siglip2")
    model = random_siglip(1)
    save_siglip(model, folder / FILES["checkpoint"])
    save_gemma_tokenizer(folder, random_strings(300, 1))
    return Checkpoint(folder, model.vision_model, 32)


@pytest.fixture(params=["clip", "siglip"])
def checkpoint(request: pytest.FixtureRequest, clip: Checkpoint, siglip: Checkpoint) -> Checkpoint:
    """Each of the two models."""
    return clip if request.param == "clip" else siglip
