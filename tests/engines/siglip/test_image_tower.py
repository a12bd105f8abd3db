"""SigLIP 2's image tower against transformers, and damaged weights."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import Siglip2VisionConfig, Siglip2VisionModel

from matir_cli.engines.siglip.heads import count_heads
from matir_cli.engines.siglip.image_tower import load_image_tower
from matir_cli.errors import CheckpointInvalid
from tests.support.clip_weights import randomise
from tests.support.siglip_weights import VISION, random_siglip, save_siglip

CPU = "cpu"


def squares(count: int) -> Tensor:
    """Return (count, 3, 32, 32): random images, normalised."""
    return torch.rand(count, 3, 32, 32, generator=torch.Generator().manual_seed(3)) * 2 - 1


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small SigLIP."""
    return save_siglip(random_siglip(1), tmp_path_factory.mktemp("siglip") / "model.safetensors")


@torch.no_grad()
def test_vectors_and_tokens_equal_transformers(checkpoint: Path) -> None:
    tower = load_image_tower(checkpoint, 3, CPU, "float32")
    vectors, tokens = tower.encode_tokens(squares(3))
    expected = random_siglip(1).vision_model(pixel_values=squares(3))
    assert (tower.side, tower.patch, tower.dimensions) == (32, 8, 48)
    assert torch.cosine_similarity(expected.pooler_output[0], expected.pooler_output[1], dim=0) < 0.99
    torch.testing.assert_close(vectors, expected.pooler_output, atol=1e-4, rtol=0)
    torch.testing.assert_close(tokens, expected.last_hidden_state, atol=1e-4, rtol=0)


@torch.no_grad()
def test_a_tower_for_any_aspect_ratio(tmp_path: Path) -> None:
    """Siglip2VisionModel takes patches in a row instead of squares."""
    sizes = {key: value for key, value in VISION.items() if key != "image_size"}
    model = Siglip2VisionModel(Siglip2VisionConfig(**sizes, num_patches=16))
    model.train(False)
    randomise(model, 4)
    state = model.state_dict()
    prefix = "" if "vision_model.head.probe" in state else "vision_model."
    path = tmp_path / "model.safetensors"
    save_file({prefix + name: value.contiguous() for name, value in state.items()}, path)
    vectors, tokens = load_image_tower(path, 3, CPU, "float32").encode_tokens(squares(2))
    rows = squares(2).unfold(2, 8, 8).unfold(3, 8, 8)  # (n, 3, rows, columns, 8, 8)
    patches = rows.permute(0, 2, 3, 4, 5, 1).reshape(2, 16, -1)
    expected = model(
        pixel_values=patches,
        pixel_attention_mask=torch.ones(2, 16, dtype=torch.int64),
        spatial_shapes=torch.tensor([[4, 4], [4, 4]]),
    )
    torch.testing.assert_close(tokens, expected.last_hidden_state, atol=1e-4, rtol=0)
    torch.testing.assert_close(vectors, expected.pooler_output, atol=1e-4, rtol=0)


@torch.no_grad()
def test_half_precision_is_near(checkpoint: Path) -> None:
    whole, _ = load_image_tower(checkpoint, 3, CPU, "float32").encode_tokens(squares(2))
    half, _ = load_image_tower(checkpoint, 3, CPU, "bfloat16").encode_tokens(squares(2).bfloat16())
    assert half.dtype == torch.bfloat16
    assert torch.cosine_similarity(whole, half.float()).min() > 0.999


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("head.probe", None, "no head.probe"),
        ("post_layernorm.weight", torch.ones(7), "wrong shape or type of post_layernorm.weight"),
        ("embeddings.patch_embedding.weight", None, "no 'embeddings.patch_embedding.weight'"),
        ("embeddings.patch_embedding.weight", torch.ones(48), "not the image tower of a SigLIP"),
        ("embeddings.patch_embedding.weight", torch.ones(48, 2), "patches of 2 numbers are no RGB squares"),
        ("embeddings.position_embedding.weight", torch.ones(15, 48), "15 positions are not a square"),
        ("head.mlp.fc1.weight", torch.ones(0, 48), "width 48, patch 8, 0 in the MLP"),
        ("encoder.layers.300.x", torch.ones(1), "301 layers"),
    ],
)
def test_damaged_weights(
    checkpoint: Path, tmp_path: Path, name: str, value: Tensor | None, reason: str
) -> None:
    state = load_file(checkpoint)
    state.pop(f"vision_model.{name}", None)
    if value is not None:
        state[f"vision_model.{name}"] = value
    save_file(state, tmp_path / "model.safetensors")
    with pytest.raises(CheckpointInvalid, match=reason):
        load_image_tower(tmp_path / "model.safetensors", 3, CPU, "float32")


def test_heads_of_the_published_towers() -> None:
    path = Path("model.safetensors")
    assert [count_heads(path, width, None) for width in (768, 1024, 1152, 1536)] == [12, 16, 16, 16]
    assert count_heads(path, 48, 3) == 3
    with pytest.raises(CheckpointInvalid, match="7 heads do not divide the width 48"):
        count_heads(path, 48, 7)
