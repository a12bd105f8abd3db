"""Alpha-CLIP's visual tower and its checkpoints (Sun et al., CVPR 2024).

The tower is OpenAI CLIP's vision transformer plus `conv1_alpha`, a patch embedding of the mask that is
added to the photo's. Tensors are named as in upstream's `alpha_clip/model.py` (VisionTransformer), so
that a checkpoint is the `state_dict()` of `VisualTower`.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from matir_cli.engines.tensors.torch_checkpoint import load_weights, read_tensors
from matir_cli.errors import CheckpointInvalid

_LAYER_LIMIT = 256
"""Largest number of layers that is accepted."""

_LENGTH_LIMIT = 16384
"""Largest width, patch side or vector length that is accepted."""


@dataclass(frozen=True, slots=True)
class Architecture:
    """Sizes of a visual tower; `Architecture.from_state_dict` reads them from a checkpoint."""

    width: int
    """Length of a token."""
    layers: int
    """Transformer blocks."""
    heads: int
    """Attention heads in each block."""
    patch: int
    """Side of a patch in pixels."""
    grid: int
    """Patches along each side of the input."""
    dimensions: int
    """Length d of a vector."""

    @property
    def side(self) -> int:
        """Side of the square input in pixels."""
        return self.patch * self.grid

    @classmethod
    def from_state_dict(cls, state: Mapping[str, Tensor], heads: int | None) -> "Architecture":
        """Read the sizes from the shapes in `state`; `heads` is width / 64 if None.

        Raises:
            ValueError: the shapes are not those of a visual tower.
            KeyError: a tensor whose shape is needed is missing.
        """
        width, _, patch, _ = state["conv1.weight"].shape
        positions, _ = state["positional_embedding"].shape
        _, dimensions = state["proj"].shape
        grid = grid_side(positions)
        heads = heads or max(1, width // 64)
        numbers = (re.match(r"transformer\.resblocks\.(\d{1,3})\.", name) for name in state)
        layers = 1 + max((int(number[1]) for number in numbers if number), default=-1)
        if min(width, patch, dimensions) < 1 or max(width, patch, dimensions) > _LENGTH_LIMIT:
            raise ValueError(f"width {width}, patch {patch}, dimensions {dimensions}")
        if width % heads:
            raise ValueError(f"{heads} heads do not divide the width {width}")
        if not 1 <= layers <= _LAYER_LIMIT:
            raise ValueError(f"{layers} layers")
        return cls(width, layers, heads, patch, grid, dimensions)


def grid_side(positions: int) -> int:
    """Return the side of the grid that has `positions` - 1 patches, next to one token for the whole.

    Raises:
        ValueError: `positions` - 1 is not a square number above 0.
    """
    side = math.isqrt(max(positions - 1, 0))
    if side < 1 or side**2 + 1 != positions:
        raise ValueError(f"{positions} positions are not a square of patches and one token for the whole")
    return side


class _LayerNorm(nn.LayerNorm):
    """Layer norm that computes in float32 for inputs of any dtype."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - the base class's name for it
        return super().forward(input.float()).to(input.dtype)


class _Attention(nn.Module):
    """Multi-head self-attention."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.in_proj = nn.Linear(width, 3 * width)
        self.out_proj = nn.Linear(width, width)
        self.heads = heads

    def forward(self, x: Tensor, queries: int | None) -> Tensor:
        """Attend from the first `queries` tokens, or all, to all tokens.

        `x` is (batch, tokens, width), the result (batch, queries, width).
        """
        if queries is None:
            query, key, value = self.in_proj(x).chunk(3, dim=-1)
        else:
            width = x.shape[-1]
            weight, bias = self.in_proj.weight, self.in_proj.bias
            query = functional.linear(x[:, :queries], weight[:width], bias[:width])
            key, value = functional.linear(x, weight[width:], bias[width:]).chunk(2, dim=-1)
        query, key, value = (self._split(part) for part in (query, key, value))
        mixed = functional.scaled_dot_product_attention(query, key, value)
        y: Tensor = self.out_proj(mixed.transpose(1, 2).flatten(2))
        return y

    def attend_to_self_only(self, x: Tensor) -> Tensor:
        """Return (batch, tokens, width): each token's output if it attends to itself alone."""
        y: Tensor = self.out_proj(self.project_values(x))
        return y

    def project_values(self, x: Tensor) -> Tensor:
        """Return (batch, tokens, width): each token's value, before the output projection."""
        width = x.shape[-1]
        return functional.linear(x, self.in_proj.weight[2 * width :], self.in_proj.bias[2 * width :])

    def _split(self, x: Tensor) -> Tensor:
        """Reshape (batch, tokens, width) to (batch, heads, tokens, width / heads)."""
        return x.view(*x.shape[:2], self.heads, -1).transpose(1, 2)


class _Mlp(nn.Module):
    """Two linear layers with OpenAI's QuickGELU between them."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.c_fc = nn.Linear(width, 4 * width)
        self.c_proj = nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        # QuickGELU, x sigmoid(1.702 x), is silu(1.702 x) / 1.702; the matrix products scale at no cost.
        up, down = self.c_fc, self.c_proj
        wide = torch.addmm(up.bias, x.flatten(0, 1), up.weight.T, beta=1.702, alpha=1.702)
        y = torch.addmm(down.bias, functional.silu(wide), down.weight.T, alpha=1 / 1.702)
        return y.view(x.shape)


class _Block(nn.Module):
    """Transformer block: attention and MLP, each after a layer norm and with a residual connection."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.attn = _Attention(width, heads)
        self.ln_1 = _LayerNorm(width)
        self.mlp = _Mlp(width)
        self.ln_2 = _LayerNorm(width)

    def forward(self, x: Tensor, queries: int | None = None) -> Tensor:
        x = x[:, :queries] + self.attn(self.ln_1(x), queries)
        y: Tensor = x + self.mlp(self.ln_2(x))
        return y

    def forward_without_attention(self, x: Tensor) -> Tensor:
        """Return (batch, tokens, width): the block's output if each token attends to itself alone."""
        x = x + self.attn.attend_to_self_only(self.ln_1(x))
        y: Tensor = x + self.mlp(self.ln_2(x))
        return y


class _Transformer(nn.Module):
    """The blocks of the tower."""

    def __init__(self, width: int, layers: int, heads: int) -> None:
        super().__init__()
        self.resblocks = nn.ModuleList(_Block(width, heads) for _ in range(layers))

    @property
    def last(self) -> _Block:
        """The last block."""
        block = self.resblocks[-1]
        assert isinstance(block, _Block)
        return block

    def run_all_but_last(self, x: Tensor) -> tuple[Tensor, _Block]:
        """Return (batch, tokens, width), the input of the last block, and that block."""
        *blocks, _ = self.resblocks
        for block in blocks:
            x = block(x)
        return x, self.last

    def forward(self, x: Tensor) -> Tensor:
        """Return (batch, 1, width): the first token's state after the last block."""
        x, last = self.run_all_but_last(x)
        # The last block's other tokens are not used.
        y: Tensor = last(x, queries=1)
        return y

    def forward_dense(self, x: Tensor) -> Tensor:
        """Return (batch, tokens - 1, width): all tokens but the first, in MaskCLIP's form."""
        x, last = self.run_all_but_last(x)
        return last.forward_without_attention(x[:, 1:])


class VisualTower(nn.Module):
    """Alpha-CLIP's vision transformer; differentiable, and its `state_dict()` is a checkpoint."""

    def __init__(self, shape: Architecture) -> None:
        """Create a tower of sizes `shape` with random weights."""
        super().__init__()
        width, scale = shape.width, shape.width**-0.5
        self.architecture = shape
        self.conv1 = nn.Conv2d(3, width, shape.patch, shape.patch, bias=False)
        self.conv1_alpha = nn.Conv2d(1, width, shape.patch, shape.patch, bias=False)
        self.class_embedding = nn.Parameter(scale * torch.randn(width))
        self.positional_embedding = nn.Parameter(scale * torch.randn(shape.grid**2 + 1, width))
        self.ln_pre = _LayerNorm(width)
        self.transformer = _Transformer(width, shape.layers, shape.heads)
        self.ln_post = _LayerNorm(width)
        self.proj = nn.Parameter(scale * torch.randn(width, shape.dimensions))

    def move(self, device: str, dtype: torch.dtype) -> None:
        """Move the tower to `device` and `dtype`; the layer norms stay in float32, as upstream."""
        self.to(device, dtype)
        for part in self.modules():
            if isinstance(part, _LayerNorm):
                part.float()

    def forward(self, rgb: Tensor, alpha: Tensor) -> Tensor:
        """Return (n, d) vectors, not normalised, of n photos with one region each.

        Args:
            rgb: (n, 3, side, side), or (1, 3, side, side) if all regions are of one photo,
                normalised with CLIP's mean and deviation.
            alpha: (n, 1, side, side), normalised with mean 0.5 and deviation 0.26.
        """
        return self.encode_patches(self.conv1(rgb) + self.conv1_alpha(alpha))

    def encode_patches(self, patches: Tensor) -> Tensor:
        """Return (n, d) vectors, not normalised, of (n, width, grid, grid) embedded patches."""
        x = self.transformer(self._tokens(patches))  # (n, 1, width)
        y: Tensor = self.ln_post(x[:, 0]) @ self.proj
        return y

    def encode_dense(self, patches: Tensor) -> Tensor:
        """Return (n, grid^2, d) vectors, not normalised, one per patch, row by row.

        MaskCLIP's form (Zhou et al., ECCV 2022; upstream's `mmseg/models/backbones/vit.py`): in the last
        block, attention is replaced by each token's own value projection; residual and MLP stay.

        Args:
            patches: (n, width, grid, grid) embedded patches.
        """
        x = self.transformer.forward_dense(self._tokens(patches))  # (n, grid^2, width)
        y: Tensor = self.ln_post(x) @ self.proj
        return y

    def encode_values(self, patches: Tensor) -> tuple[Tensor, Tensor]:
        """Return the vectors and what the last block's attention would mix.

        Args:
            patches: (n, width, grid, grid) embedded patches.

        Returns:
            (n, d) vectors as of `encode_patches`, and (n, grid^2, width) values in the last block's
            attention, one per patch, row by row.
        """
        x, last = self.transformer.run_all_but_last(self._tokens(patches))
        vectors: Tensor = self.ln_post(last(x, queries=1)[:, 0]) @ self.proj
        return vectors, last.attn.project_values(last.ln_1(x[:, 1:]))

    def project_pooled(self, values: Tensor) -> Tensor:
        """Return (r, d) vectors, not normalised, of (r, width) mixtures of values from `encode_values`.

        The last block without its residual connection around attention, as in TextRegion.
        """
        last = self.transformer.last
        x = last.attn.out_proj(values)[None]  # (1, r, width)
        x = x + last.mlp(last.ln_2(x))
        y: Tensor = self.ln_post(x[0]) @ self.proj
        return y

    def _tokens(self, patches: Tensor) -> Tensor:
        """Return (n, 1 + grid^2, width): the input of the first block."""
        x = patches.flatten(2).transpose(1, 2)  # (n, grid^2, width)
        class_token = self.class_embedding.to(x.dtype).expand(len(x), 1, -1)
        x = torch.cat([class_token, x], dim=1) + self.positional_embedding.to(x.dtype)
        y: Tensor = self.ln_pre(x)
        return y


def load_tower(path: Path, heads: int | None = None) -> VisualTower:
    """Load the visual tower in the checkpoint at `path`, on the CPU, in evaluation mode, in its stored dtype.

    Raises:
        CheckpointInvalid: the file is not an Alpha-CLIP visual tower.
    """
    # Upstream's training on several GPUs prefixes every name with "module.".
    state = {name.removeprefix("module."): value for name, value in read_tensors(path, key=None).items()}
    return build_tower(path, state, heads, "an Alpha-CLIP visual tower")


def build_tower(path: Path, state: Mapping[str, Tensor], heads: int | None, role: str) -> VisualTower:
    """Build the tower whose `state_dict()` is `state`.

    Args:
        path: the file that `state` was read from, for error messages.
        state: the weights.
        heads: attention heads; width / 64 if None.
        role: description of the tower for error messages, such as "an Alpha-CLIP visual tower".

    Raises:
        CheckpointInvalid: the weights are not those of such a tower.
    """
    try:
        shape = Architecture.from_state_dict(state, heads)
    except KeyError as error:
        raise CheckpointInvalid(path, f"not {role}: no {error}") from error
    except ValueError as error:
        raise CheckpointInvalid(path, f"not {role}: {error}") from error
    with torch.device("meta"):
        tower = VisualTower(shape)
    load_weights(path, tower, state, role)
    return tower
