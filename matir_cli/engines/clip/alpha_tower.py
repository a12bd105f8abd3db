"""Alpha-CLIP's visual tower and its checkpoints (Sun et al., CVPR 2024).

The tower is OpenAI CLIP's vision transformer plus `conv1_alpha`, a patch embedding of
the mask that is added to the photo's. Tensor names as in upstream's `alpha_clip/model.py`
(VisionTransformer), so that a checkpoint is the `state_dict()` of `VisualTower`.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from matir_cli.engines.tensors.torch_checkpoint import read_tensors
from matir_cli.errors import CheckpointInvalid

_LAYER_LIMIT = 256

_LENGTH_LIMIT = 16384


@dataclass(frozen=True, slots=True)
class Architecture:
    """What a visual tower measures; `Architecture.of` reads it from a checkpoint."""

    width: int
    """Of a token."""
    layers: int
    heads: int
    patch: int
    """Side of a patch in pixels."""
    grid: int
    """Patches a side."""
    dimensions: int
    """Length of a vector."""

    @property
    def side(self) -> int:
        """Side of the square input in pixels."""
        return self.patch * self.grid

    @classmethod
    def of(cls, state: Mapping[str, Tensor], heads: int | None) -> "Architecture":
        """Read the shapes in `state`; `heads` is width / 64 if not given.

        Raises:
            ValueError: the shapes are not those of a visual tower.
            KeyError: a tensor that tells a measure is missing.
        """
        width, _, patch, _ = state["conv1.weight"].shape
        tokens, _ = state["positional_embedding"].shape
        _, dimensions = state["proj"].shape
        grid = round(max(tokens - 1, 0) ** 0.5)
        heads = heads or max(1, width // 64)
        numbers = (re.match(r"transformer\.resblocks\.(\d{1,3})\.", name) for name in state)
        layers = 1 + max((int(found[1]) for found in numbers if found), default=-1)
        if grid < 1 or grid**2 + 1 != tokens:
            raise ValueError(f"{tokens} positions are not a square of patches and a class token")
        if min(width, patch, dimensions) < 1 or max(width, patch, dimensions) > _LENGTH_LIMIT:
            raise ValueError(f"width {width}, patch {patch}, dimensions {dimensions}")
        if width % heads:
            raise ValueError(f"{heads} heads do not divide the width {width}")
        if not 1 <= layers <= _LAYER_LIMIT:
            raise ValueError(f"{layers} layers")
        return cls(width, layers, heads, patch, grid, dimensions)


class _LayerNorm(nn.LayerNorm):
    """Computes in float32, whatever it is given."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - the base class's name for it
        return super().forward(input.float()).to(input.dtype)


class _Attention(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.in_proj = nn.Linear(width, 3 * width)
        self.out_proj = nn.Linear(width, width)
        self.heads = heads

    def forward(self, x: Tensor, asking: int | None) -> Tensor:
        """(batch, tokens, width) to (batch, asking, width): for the first `asking` tokens, or all."""
        if asking is None:
            query, key, value = self.in_proj(x).chunk(3, dim=-1)
        else:
            width = x.shape[-1]
            weight, bias = self.in_proj.weight, self.in_proj.bias
            query = functional.linear(x[:, :asking], weight[:width], bias[:width])
            key, value = functional.linear(x, weight[width:], bias[width:]).chunk(2, dim=-1)
        query, key, value = (self._split(part) for part in (query, key, value))
        mixed = functional.scaled_dot_product_attention(query, key, value)
        y: Tensor = self.out_proj(mixed.transpose(1, 2).flatten(2))
        return y

    def attend_to_itself(self, x: Tensor) -> Tensor:
        """(batch, tokens, width) to the same: what every token gets when it sees itself alone."""
        width = x.shape[-1]
        y: Tensor = self.out_proj(
            functional.linear(x, self.in_proj.weight[2 * width :], self.in_proj.bias[2 * width :])
        )
        return y

    def _split(self, x: Tensor) -> Tensor:
        """(batch, tokens, width) to (batch, heads, tokens, width / heads)."""
        return x.view(*x.shape[:2], self.heads, -1).transpose(1, 2)


class _Mlp(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.c_fc = nn.Linear(width, 4 * width)
        self.c_proj = nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        # OpenAI's QuickGELU, x sigmoid(1.702 x), is silu(1.702 x) / 1.702; the products scale for nothing.
        up, down = self.c_fc, self.c_proj
        wide = torch.addmm(up.bias, x.flatten(0, 1), up.weight.T, beta=1.702, alpha=1.702)
        y = torch.addmm(down.bias, functional.silu(wide), down.weight.T, alpha=1 / 1.702)
        return y.view(x.shape)


class _Block(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.attn = _Attention(width, heads)
        self.ln_1 = _LayerNorm(width)
        self.mlp = _Mlp(width)
        self.ln_2 = _LayerNorm(width)

    def forward(self, x: Tensor, asking: int | None = None) -> Tensor:
        x = x[:, :asking] + self.attn(self.ln_1(x), asking)
        y: Tensor = x + self.mlp(self.ln_2(x))
        return y

    def without_attention(self, x: Tensor) -> Tensor:
        """(batch, tokens, width) to the same: each token for itself."""
        x = x + self.attn.attend_to_itself(self.ln_1(x))
        y: Tensor = x + self.mlp(self.ln_2(x))
        return y


class _Transformer(nn.Module):
    def __init__(self, width: int, layers: int, heads: int) -> None:
        super().__init__()
        self.resblocks = nn.ModuleList(_Block(width, heads) for _ in range(layers))

    def forward(self, x: Tensor) -> Tensor:
        """(batch, tokens, width) to (batch, 1, width): the first token's state after the last layer."""
        *blocks, last = self.resblocks
        for block in blocks:
            x = block(x)
        # Nobody reads the last layer's other tokens.
        y: Tensor = last(x, asking=1)
        return y

    def dense(self, x: Tensor) -> Tensor:
        """(batch, tokens, width) to (batch, tokens - 1, width): all but the first, MaskCLIP's form."""
        *blocks, last = self.resblocks
        for block in blocks:
            x = block(x)
        assert isinstance(last, _Block)
        return last.without_attention(x[:, 1:])


class VisualTower(nn.Module):
    """Alpha-CLIP's vision transformer; differentiable, its `state_dict()` is a checkpoint."""

    def __init__(self, shape: Architecture) -> None:
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
        """To `device`, computing in `dtype`; the layer norms stay in float32, as upstream."""
        self.to(device, dtype)
        for part in self.modules():
            if isinstance(part, _LayerNorm):
                part.float()

    def forward(self, rgb: Tensor, alpha: Tensor) -> Tensor:
        """(n, d) vectors, not normalised, of n photos with a region each.

        Args:
            rgb: (n, 3, side, side), or (1, 3, side, side) when all regions are of one photo,
                normalised with CLIP's mean and deviation.
            alpha: (n, 1, side, side), normalised with mean 0.5 and deviation 0.26.
        """
        return self.encode_patches(self.conv1(rgb) + self.conv1_alpha(alpha))

    def encode_patches(self, patches: Tensor) -> Tensor:
        """(n, d) vectors, not normalised, of (n, width, grid, grid) embedded patches."""
        x = self.transformer(self._tokens(patches))  # (n, 1, width)
        y: Tensor = self.ln_post(x[:, 0]) @ self.proj
        return y

    def encode_places(self, patches: Tensor) -> Tensor:
        """(n, grid^2, d) vectors, not normalised, one a patch, by rows, of (n, width, grid, grid) patches.

        MaskCLIP's form (Zhou et al., ECCV 2022; upstream's `mmseg/models/backbones/vit.py`): in the
        last layer, attention gives each token its own value projection; residual and MLP stay.
        """
        x = self.transformer.dense(self._tokens(patches))  # (n, grid^2, width)
        y: Tensor = self.ln_post(x) @ self.proj
        return y

    def _tokens(self, patches: Tensor) -> Tensor:
        """(n, 1 + grid^2, width): what the first layer is given."""
        x = patches.flatten(2).transpose(1, 2)  # (n, grid^2, width)
        first = self.class_embedding.to(x.dtype).expand(len(x), 1, -1)
        x = torch.cat([first, x], dim=1) + self.positional_embedding.to(x.dtype)
        y: Tensor = self.ln_pre(x)
        return y


def load_tower(path: Path, heads: int | None = None) -> VisualTower:
    """The visual tower in the checkpoint at `path`, on the CPU, in evaluation mode, weights as stored.

    Raises:
        CheckpointInvalid: the file is not an Alpha-CLIP visual tower.
    """
    # Upstream's training wraps the tower for several GPUs, which prefixes every name.
    state = {name.removeprefix("module."): value for name, value in read_tensors(path, under=None).items()}
    return build_tower(path, state, heads, "an Alpha-CLIP visual tower")


def build_tower(path: Path, state: Mapping[str, Tensor], heads: int | None, what: str) -> VisualTower:
    """The tower whose `state_dict()` is `state`, read from `path` as `what`; errors as in `load_tower`."""
    try:
        shape = Architecture.of(state, heads)
    except KeyError as error:
        raise CheckpointInvalid(path, f"not {what}: no {error}") from error
    except ValueError as error:
        raise CheckpointInvalid(path, f"not {what}: {error}") from error
    with torch.device("meta"):
        tower = VisualTower(shape)
    fill(path, tower, state, what)
    return tower


def fill(path: Path, model: nn.Module, state: Mapping[str, Tensor], what: str) -> None:
    """Give `model`, made on no device, the tensors in `state`, and make it ready to be used.

    Raises:
        CheckpointInvalid: `state`, read from `path`, is not `what`; the reason names what is missing,
            too much or of another shape.
    """
    faults = _differences(model.state_dict(), state)
    if faults:
        raise CheckpointInvalid(path, f"not {what}: {'; '.join(faults)}")
    model.load_state_dict(state, assign=True)
    model.eval().requires_grad_(False)


def _differences(wanted: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> list[str]:
    missing = wanted.keys() - found.keys()
    excess = found.keys() - wanted.keys()
    other = {
        name
        for name in wanted.keys() & found.keys()
        if found[name].shape != wanted[name].shape or not found[name].is_floating_point()
    }
    problems = (("no", missing), ("unexpected", excess), ("wrong shape or type of", other))
    return [f"{word} {_some(names)}" for word, names in problems if names]


def _some(names: Iterable[str]) -> str:
    first, rest = sorted(names)[:3], len(set(names)) - 3
    return ", ".join(first) + (f" and {rest} more" if rest > 0 else "")
