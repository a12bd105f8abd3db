"""Text encoders of region tokens: which one is loaded for which checkpoint."""

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from matir_cli.engines.clip.options import SEVEN_PROMPTS
from matir_cli.engines.clip.text_encoder import load_clip_text_encoder
from matir_cli.engines.region_tokens.text import holds_siglip
from matir_cli.engines.registry import load_region_encoder, load_text_encoder
from matir_cli.errors import CheckpointInvalid
from tests.engines.region_tokens.conftest import Checkpoint
from tests.support.clip_weights import alpha_clip_config
from tests.support.siglip_weights import region_tokens_config


def test_the_models_are_told_apart(clip: Checkpoint, siglip: Checkpoint, tmp_path: Path) -> None:
    assert holds_siglip(siglip.folder / "model.safetensors")
    assert not holds_siglip(clip.folder / "model.safetensors")
    assert not holds_siglip(tmp_path / "none.pt")
    (tmp_path / "bad.safetensors").write_bytes(b"x")
    with pytest.raises(CheckpointInvalid, match="not a safetensors file"):
        holds_siglip(tmp_path / "bad.safetensors")


def test_texts_of_a_clip(clip: Checkpoint, tmp_path: Path) -> None:
    """The vectors of the engine `alpha_clip`, from a mapped file as from one of torch.save."""
    files = {"text": clip.folder / "model.safetensors", "vocabulary": clip.folder / "tokenizer.json"}
    expected = load_clip_text_encoder(alpha_clip_config({"text_heads": 3}, **files)).encode("dog")
    torch.save(load_file(clip.folder / "model.safetensors"), tmp_path / "model.pt")
    saved = region_tokens_config(
        {"text_heads": 3}, checkpoint=tmp_path / "model.pt", vocabulary=files["vocabulary"]
    )
    for config in (clip.config(), saved):
        found = load_text_encoder(config).encode("dog")
        assert len(found.prompts) == len(SEVEN_PROMPTS)
        np.testing.assert_allclose(found.vector, expected.vector, atol=1e-6)
    one = load_text_encoder(clip.config(prompts=["a {}"])).encode("dog")
    assert [prompt.text for prompt in one.prompts] == ["a dog"]


def test_texts_and_regions_have_one_length(checkpoint: Checkpoint) -> None:
    text = load_text_encoder(checkpoint.config()).encode("perro con correa")
    assert text.vector.shape == (load_region_encoder(checkpoint.config(), "cpu").dimensions,)
