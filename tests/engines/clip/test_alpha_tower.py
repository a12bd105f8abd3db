"""Alpha-CLIP's visual tower: its checkpoints, damaged or of another model."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from matir_cli.engines.clip.alpha_encoder import load_alpha_clip_encoder
from matir_cli.engines.clip.alpha_tower import Architecture, VisualTower, grid_side, load_tower
from matir_cli.errors import CheckpointInvalid
from tests.support.clip_weights import alpha_clip_config

# Tensors of an upstream checkpoint, without the layers after the first.
OFFICIAL_NAMES = {
    "class_embedding", "positional_embedding", "proj", "conv1.weight", "conv1_alpha.weight",
    "ln_pre.weight", "ln_pre.bias", "ln_post.weight", "ln_post.bias",
    *(
        f"transformer.resblocks.0.{part}.{kind}"
        for part in ("attn.in_proj", "attn.out_proj", "ln_1", "ln_2", "mlp.c_fc", "mlp.c_proj")
        for kind in ("weight", "bias")
    ),
}  # fmt: skip


def test_tower_learns(visual_file: Path) -> None:
    """Gradients reach every weight, and a saved `state_dict()` is a checkpoint."""
    tower = load_tower(visual_file, 3).requires_grad_(True)
    rgb, alpha = torch.randn(2, 3, 40, 40), torch.randn(2, 1, 40, 40)
    tower(rgb, alpha).square().sum().backward()
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in tower.parameters())
    torch.save(VisualTower(tower.architecture).state_dict(), visual_file.with_name("saved.pth"))
    assert load_tower(visual_file.with_name("saved.pth"), 3).architecture == tower.architecture


@pytest.mark.parametrize(
    ("width", "patch", "grid", "layers", "dimensions"),
    [(768, 16, 14, 12, 512), (1024, 14, 16, 24, 768), (1024, 14, 24, 24, 768)],
)
def test_architecture_is_read_from_shapes(
    width: int, patch: int, grid: int, layers: int, dimensions: int
) -> None:
    """ViT-B/16, ViT-L/14 and ViT-L/14 at 336 pixels."""
    expected = Architecture(width, layers, width // 64, patch, grid, dimensions)
    with torch.device("meta"):
        state = VisualTower(expected).state_dict()
    assert Architecture.from_state_dict(state, None) == expected
    assert expected.side == (336 if grid == 24 else 224)
    assert {name for name in state if ".resblocks." not in name or ".resblocks.0." in name} == OFFICIAL_NAMES


State = dict[str, Tensor]


def _without_alpha(state: State) -> object:
    del state["conv1_alpha.weight"]
    return state


def _with_lora(state: State) -> object:
    return {**state, "transformer.resblocks.0.mlp.c_fc.lora_A": torch.zeros(16, 48)}


def _repeated(state: State) -> object:
    return {**state, "proj": torch.zeros(1, 1).expand(48, 16000)}


def _narrow(state: State) -> object:
    return {**state, "transformer.resblocks.1.mlp.c_fc.weight": torch.zeros(100, 48)}


@pytest.mark.filterwarnings(
    "ignore:Validating sparse tensor invariants"
)  # newer torch warns that it takes long
@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (_without_alpha, "no conv1_alpha.weight"),
        (_with_lora, "unexpected transformer.resblocks.0.mlp.c_fc.lora_A"),
        (_repeated, "claims more numbers"),
        (_narrow, "wrong shape or type of transformer.resblocks.1.mlp.c_fc.weight"),
        (lambda state: {**state, "positional_embedding": torch.zeros(27, 48)}, "27 positions"),
        (lambda state: {**state, "conv1.weight": torch.zeros(48)}, "unpack"),
        (lambda state: {**state, "ln_post.bias": torch.zeros(48, dtype=torch.int64)}, "ln_post.bias"),
        (lambda state: {**state, "proj": torch.zeros(48, 0)}, "dimensions 0"),
        (lambda _: {"text_projection": torch.zeros(8, 8)}, "no 'conv1.weight'"),
        (lambda state: {**state, "extra": "text"}, "names and tensors"),
        (lambda _: torch.zeros(3), "names and tensors"),
        (lambda state: {**state, "proj": torch.zeros(48, 24, device="meta")}, "names and tensors"),
        (lambda state: {**state, "proj": torch.zeros(48, 24).to_sparse()}, "names and tensors"),
        (lambda state: {name.upper(): value for name, value in state.items()}, "no 'conv1.weight'"),
    ],
)  # fmt: skip
def test_other_state_dicts_are_refused_with_the_reason(
    visual_file: Path, tmp_path: Path, change: Callable[[State], object], reason: str
) -> None:
    torch.save(change(torch.load(visual_file, weights_only=True)), tmp_path / "changed.pth")
    with pytest.raises(CheckpointInvalid, match=reason):
        load_alpha_clip_encoder(alpha_clip_config({"heads": 3}, visual=tmp_path / "changed.pth"), "cpu")


# A changed byte may be the pickle's protocol, which torch warns of and reads.
@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@settings(max_examples=150, deadline=None, derandomize=True)
@given(st.data())
def test_damaged_files_load_or_say_so(visual_file: Path, data: st.DataObject) -> None:
    """With bytes changed in the pickle or in the archive's directory, or with the end cut off."""
    content = bytearray(visual_file.read_bytes())
    where = st.one_of(st.integers(0, 6000), st.integers(len(content) - 6000, len(content) - 1))
    for at in data.draw(st.lists(where, min_size=1, max_size=4)):
        content[at] = data.draw(st.integers(0, 255))
    path = visual_file.with_name("damaged.pth")
    path.write_bytes(content[: data.draw(st.sampled_from((None, -1, -100, len(content) // 2)))])
    try:
        load_tower(path, 3)
    except CheckpointInvalid:
        return


def test_grid_side_needs_a_square_and_one_more() -> None:
    assert [grid_side(positions) for positions in (2, 5, 197, 577)] == [1, 2, 14, 24]
    for wrong in (0, 1, 4, 196):
        with pytest.raises(ValueError, match=f"{wrong} positions"):
            grid_side(wrong)
