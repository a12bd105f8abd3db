"""SigLIP 2's image tower: vectors of images, and the tokens that its pooling head attends to.

Modules are named as in transformers' `modeling_siglip.py` (SiglipVisionModel). A checkpoint of the variant
for any aspect ratio (Siglip2VisionModel, "naflex") is read as the same tower for squares.
"""

import math
import re
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from matir_cli.engines.device import choose_dtype
from matir_cli.engines.options import Precision
from matir_cli.engines.siglip.heads import count_heads
from matir_cli.engines.tensors.torch_checkpoint import load_weights, read_tensors
from matir_cli.errors import CheckpointInvalid

_PREFIX = "vision_model."

_ROLE = "the image tower of a SigLIP"
"""Name of the tower in error messages."""

_LAYER_NORM_EPSILON = 1e-6

_LAYER_LIMIT = 256
"""Largest number of layers that is accepted."""

_LENGTH_LIMIT = 16384
"""Largest width or patch side that is accepted."""


class _LayerNorm(nn.LayerNorm):
    """Layer norm that computes in float32 for inputs of any dtype."""

    def __init__(self, width: int) -> None:
        super().__init__(width, eps=_LAYER_NORM_EPSILON)

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - the base class's name for it
        return super().forward(input.float()).to(input.dtype)


def _split(x: Tensor, heads: int) -> Tensor:
    """Reshape (n, tokens, width) to (n, heads, tokens, width / heads)."""
    return x.reshape(*x.shape[:2], heads, -1).transpose(1, 2)


class _Attention(nn.Module):
    """Multi-head self-attention."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.q_proj, self.k_proj, self.v_proj, self.out_proj = (nn.Linear(width, width) for _ in range(4))
        self.heads = heads

    def forward(self, x: Tensor) -> Tensor:
        query, key, value = (_split(part(x), self.heads) for part in (self.q_proj, self.k_proj, self.v_proj))
        mixed = functional.scaled_dot_product_attention(query, key, value)
        y: Tensor = self.out_proj(mixed.transpose(1, 2).flatten(2))
        return y


class _Mlp(nn.Module):
    """Two linear layers with GELU, approximated by tanh, between them."""

    def __init__(self, width: int, wide: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, wide)
        self.fc2 = nn.Linear(wide, width)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.fc2(functional.gelu(self.fc1(x), approximate="tanh"))
        return y


class _Block(nn.Module):
    """Transformer block: attention and MLP, each after a layer norm and with a residual connection."""

    def __init__(self, width: int, wide: int, heads: int) -> None:
        super().__init__()
        self.layer_norm1 = _LayerNorm(width)
        self.self_attn = _Attention(width, heads)
        self.layer_norm2 = _LayerNorm(width)
        self.mlp = _Mlp(width, wide)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.self_attn(self.layer_norm1(x))
        y: Tensor = x + self.mlp(self.layer_norm2(x))
        return y


class _JointProjection(nn.Module):
    """Attention from one query, whose projections of query, key and value are one matrix."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.in_proj_weight = nn.Parameter(torch.empty(3 * width, width))
        self.in_proj_bias = nn.Parameter(torch.empty(3 * width))
        self.out_proj = nn.Linear(width, width)
        self.heads = heads

    def forward(self, query: Tensor, x: Tensor) -> Tensor:
        """Return (n, 1, width): what `query`, (1, 1, width), sees in `x`, (n, tokens, width)."""
        weights, biases = self.in_proj_weight.chunk(3), self.in_proj_bias.chunk(3)
        query, key, value = (
            _split(functional.linear(part, weight, bias), self.heads)
            for part, weight, bias in zip((query.expand(len(x), 1, -1), x, x), weights, biases, strict=True)
        )
        mixed = functional.scaled_dot_product_attention(query, key, value)
        y: Tensor = self.out_proj(mixed.transpose(1, 2).flatten(2))
        return y

    def attend_evenly(self, means: Tensor) -> Tensor:
        """Return (r, width): the output of even attention over tokens of these means, (r, width)."""
        width = means.shape[-1]
        values = functional.linear(means, self.in_proj_weight[2 * width :], self.in_proj_bias[2 * width :])
        y: Tensor = self.out_proj(values)
        return y


class _PoolingHead(nn.Module):
    """Attention pooling by a learnt query, in place of a class token."""

    def __init__(self, width: int, wide: int, heads: int) -> None:
        super().__init__()
        self.probe = nn.Parameter(torch.empty(1, 1, width))
        self.attention = _JointProjection(width, heads)
        self.layernorm = _LayerNorm(width)
        self.mlp = _Mlp(width, wide)

    def forward(self, x: Tensor) -> Tensor:
        """Pool (n, tokens, width) to (n, width)."""
        x = self.attention(self.probe, x)
        x = x + self.mlp(self.layernorm(x))
        return x[:, 0]


class _Embeddings(nn.Module):
    """Patch and position embeddings."""

    def __init__(self, width: int, patch: int, positions: int) -> None:
        super().__init__()
        self.patch_embedding = nn.Conv2d(3, width, patch, patch)
        self.position_embedding = nn.Embedding(positions, width)

    def forward(self, rgb: Tensor) -> Tensor:
        """Return (n, positions, width) of (n, 3, side, side)."""
        patches: Tensor = self.patch_embedding(rgb).flatten(2).transpose(1, 2)
        return patches + self.position_embedding.weight


class _Encoder(nn.Module):
    """The blocks of the tower."""

    def __init__(self, width: int, wide: int, heads: int, layers: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(_Block(width, wide, heads) for _ in range(layers))

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = layer(x)
        return x


class SiglipImageTower(nn.Module):
    """SigLIP's vision transformer; its `state_dict()` is that of transformers' SiglipVisionModel."""

    def __init__(self, width: int, wide: int, heads: int, layers: int, patch: int, grid: int) -> None:
        """Create a tower of `layers` blocks for squares of grid x grid patches of `patch` pixels."""
        super().__init__()
        self.side, self.patch, self.dimensions = patch * grid, patch, width
        self.embeddings = _Embeddings(width, patch, grid**2)
        self.encoder = _Encoder(width, wide, heads, layers)
        self.post_layernorm = _LayerNorm(width)
        self.head = _PoolingHead(width, wide, heads)

    def move(self, device: str, dtype: torch.dtype) -> None:
        """Move the tower to `device` and `dtype`; the layer norms stay in float32."""
        self.to(device, dtype)
        for part in self.modules():
            if isinstance(part, _LayerNorm):
                part.float()

    def encode_tokens(self, rgb: Tensor) -> tuple[Tensor, Tensor]:
        """Return the vectors of images and the tokens that the pooling head attends to.

        Args:
            rgb: (n, 3, side, side), normalised with mean 0.5 and deviation 0.5, in the tower's dtype.

        Returns:
            (n, d) vectors, not normalised, and (n, grid^2, width) tokens, one per patch, row by row.
        """
        tokens: Tensor = self.post_layernorm(self.encoder(self.embeddings(rgb)))
        return self.head(tokens), tokens

    def project_pooled(self, means: Tensor) -> Tensor:
        """Return (r, d) vectors, not normalised, of (r, width) means of tokens from `encode_tokens`.

        The head's attention spread evenly over the tokens, without the head's MLP, as in TextRegion.
        """
        return self.head.attention.attend_evenly(means)


def load_image_tower(path: Path, heads: int | None, device: str, precision: Precision) -> SiglipImageTower:
    """Load the image tower of the SigLIP in the .safetensors file at `path`, on `device`.

    `heads` as in `count_heads`, `precision` as in `choose_dtype`.

    Raises:
        CheckpointInvalid: the file holds no SigLIP.
    """
    state = {
        name.removeprefix(_PREFIX): value
        for name, value in read_tensors(path, None, lambda name: name.startswith(_PREFIX)).items()
        if not name.endswith(".position_ids")
    }
    try:
        tower = _build_tower(path, state, heads)
    except KeyError as error:
        raise CheckpointInvalid(path, f"not {_ROLE}: no {error}") from error
    except (ValueError, IndexError) as error:  # shapes that do not fit together
        raise CheckpointInvalid(path, f"not {_ROLE}: {error}") from error
    load_weights(path, tower, state, _ROLE)
    tower.move(device, choose_dtype(precision, device, tower.dimensions))
    return tower


def _build_tower(path: Path, state: dict[str, Tensor], heads: int | None) -> SiglipImageTower:
    """Create the tower of the sizes in `state`, without weights; ValueError or KeyError for none."""
    name = "embeddings.patch_embedding.weight"
    if state[name].ndim == 2:
        state[name] = _convert_linear_patches(state[name])
    width, _, patch, _ = state[name].shape
    positions = len(state["embeddings.position_embedding.weight"])
    wide = len(state["head.mlp.fc1.weight"])
    grid = math.isqrt(positions)
    layers = _count_layers(state)
    if grid < 1 or grid**2 != positions:
        raise ValueError(f"{positions} positions are not a square")
    if min(width, patch, wide) < 1 or max(width, patch, wide // 16) > _LENGTH_LIMIT:
        raise ValueError(f"width {width}, patch {patch}, {wide} in the MLP")
    if not 1 <= layers <= _LAYER_LIMIT:
        raise ValueError(f"{layers} layers")
    with torch.device("meta"):
        return SiglipImageTower(width, wide, count_heads(path, width, heads), layers, patch, grid)


def _count_layers(state: Mapping[str, Tensor]) -> int:
    numbers = (re.match(r"encoder\.layers\.(\d{1,3})\.", name) for name in state)
    return 1 + max((int(number[1]) for number in numbers if number), default=-1)


def _convert_linear_patches(weight: Tensor) -> Tensor:
    """Convert a patch embedding of Siglip2VisionModel, (width, rows * columns * 3), to a convolution's.

    Raises:
        ValueError: the patches are no squares.
    """
    patch = math.isqrt(weight.shape[1] // 3)
    if not patch or 3 * patch**2 != weight.shape[1]:
        raise ValueError(f"patches of {weight.shape[1]} numbers are no RGB squares")
    return weight.reshape(len(weight), patch, patch, 3).permute(0, 3, 1, 2).contiguous()
