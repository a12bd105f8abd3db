"""CLIP's image towers, each giving a picture one vector, or one to each cell of a grid over it.

A CLIP ViT is an Alpha-CLIP tower to which the mask does not matter. The other kind is OpenAI's
ModifiedResNet (`clip/model.py`), whose batch norms are folded into the convolutions before them.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional

from matir_cli.engines.clip.alpha_encoder import normalise_alpha
from matir_cli.engines.clip.alpha_tower import VisualTower, build_tower, fill
from matir_cli.engines.clip.checkpoint import image_tower
from matir_cli.errors import CheckpointInvalid

_WHAT = "the image tower of a CLIP"

_BATCH_NORM_EPSILON = 1e-5

_STRIDE = 32

_BLOCK_LIMIT = 256


class ImageTower(Protocol):
    """A tower where it will compute: it moves what it is given there itself."""

    @property
    def side(self) -> int:
        """Side of the square input in pixels."""
        ...

    @property
    def cell(self) -> int:
        """Side of a cell in pixels; the grid's rows and columns are side / cell."""
        ...

    @property
    def dimensions(self) -> int:
        """Length d of a vector."""
        ...

    def whole(self, rgb: Tensor) -> Tensor:
        """(n, d) vectors, not normalised, of (n, 3, side, side) pictures as CLIP normalises them."""
        ...

    def places(self, rgb: Tensor) -> Tensor:
        """(n, grid^2, d) vectors, not normalised, by rows; argument as in `whole`."""
        ...


class VisionTransformer:
    """Fulfils `ImageTower`: an Alpha-CLIP tower that is shown the whole of every picture."""

    def __init__(self, tower: VisualTower) -> None:
        """Use `tower` where it lies."""
        shape = tower.architecture
        self.side, self.cell, self.dimensions = shape.side, shape.patch, shape.dimensions
        self._tower = tower
        ones = normalise_alpha(torch.ones(1, 1, shape.side, shape.side))
        with torch.inference_mode():
            self._alpha = tower.conv1_alpha(ones.to(tower.proj))

    def whole(self, rgb: Tensor) -> Tensor:
        """As `ImageTower.whole`."""
        return self._tower.encode_patches(self._patches(rgb))

    def places(self, rgb: Tensor) -> Tensor:
        """As `ImageTower.places`, in MaskCLIP's form."""
        return self._tower.encode_places(self._patches(rgb))

    def _patches(self, rgb: Tensor) -> Tensor:
        y: Tensor = self._tower.conv1(rgb.to(self._tower.proj)) + self._alpha
        return y


class _Bottleneck(nn.Module):
    def __init__(self, inputs: int, planes: int, stride: int, *, first: bool) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, planes, 1)
        self.conv2 = nn.Conv2d(planes, planes, 3, padding=1)
        self.conv3 = nn.Conv2d(planes, 4 * planes, 1)
        # OpenAI's strides are average pools; the name of the convolution behind one is "downsample.0".
        self.downsample = nn.Sequential(nn.Conv2d(inputs, 4 * planes, 1)) if first else None
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        y = functional.relu(self.conv2(functional.relu(self.conv1(x))))
        if self.stride > 1:
            y, x = functional.avg_pool2d(y, self.stride), functional.avg_pool2d(x, self.stride)
        return functional.relu(self.conv3(y) + (x if self.downsample is None else self.downsample(x)))


def _layer(inputs: int, planes: int, blocks: int, stride: int) -> nn.Sequential:
    later = (_Bottleneck(4 * planes, planes, 1, first=False) for _ in range(blocks - 1))
    return nn.Sequential(_Bottleneck(inputs, planes, stride, first=True), *later)


class _AttentionPool(nn.Module):
    def __init__(self, grid: int, width: int, heads: int, dimensions: int) -> None:
        super().__init__()
        self.positional_embedding = nn.Parameter(torch.empty(grid**2 + 1, width))
        self.q_proj, self.k_proj, self.v_proj = (nn.Linear(width, width) for _ in range(3))
        self.c_proj = nn.Linear(width, dimensions)
        self.heads = heads

    def forward(self, cells: Tensor) -> Tensor:
        """(n, grid^2, width) to (n, d): the mean of the cells asks, it and the cells answer."""
        x = torch.cat([cells.mean(dim=1, keepdim=True), cells], dim=1) + self.positional_embedding
        query, key, value = (
            y.unflatten(2, (self.heads, -1)).transpose(1, 2)  # (n, heads, tokens, width / heads)
            for y in (self.q_proj(x[:, :1]), self.k_proj(x), self.v_proj(x))
        )
        mixed = functional.scaled_dot_product_attention(query, key, value)
        y: Tensor = self.c_proj(mixed.transpose(1, 2).flatten(2))[:, 0]
        return y

    def places(self, cells: Tensor) -> Tensor:
        """(n, grid^2, width) to (n, grid^2, d): no attention, no positions; two 1 x 1 convolutions."""
        y: Tensor = self.c_proj(self.v_proj(cells))
        return y


class ModifiedResNet(nn.Module):
    """Fulfils `ImageTower`."""

    def __init__(self, width: int, blocks: tuple[int, ...], grid: int, heads: int, dimensions: int) -> None:
        """Of `width` channels behind the stem and `blocks` in each of four layers, for grid x grid cells."""
        super().__init__()
        self.side, self.cell, self.dimensions = grid * _STRIDE, _STRIDE, dimensions
        self.conv1 = nn.Conv2d(3, width // 2, 3, stride=2, padding=1)
        self.conv2 = nn.Conv2d(width // 2, width // 2, 3, padding=1)
        self.conv3 = nn.Conv2d(width // 2, width, 3, padding=1)
        self.layer1 = _layer(width, width, blocks[0], stride=1)
        self.layer2 = _layer(4 * width, 2 * width, blocks[1], stride=2)
        self.layer3 = _layer(8 * width, 4 * width, blocks[2], stride=2)
        self.layer4 = _layer(16 * width, 8 * width, blocks[3], stride=2)
        self.attnpool = _AttentionPool(grid, 32 * width, heads, dimensions)

    def whole(self, rgb: Tensor) -> Tensor:
        """As `ImageTower.whole`."""
        y: Tensor = self.attnpool(self._cells(rgb))
        return y

    def places(self, rgb: Tensor) -> Tensor:
        """As `ImageTower.places`: the attention pool without attention."""
        return self.attnpool.places(self._cells(rgb))

    def _cells(self, rgb: Tensor) -> Tensor:
        """(n, grid^2, width): the last feature map."""
        x = rgb.to(self.conv1.weight)
        for convolution in (self.conv1, self.conv2, self.conv3):
            x = functional.relu(convolution(x))
        x = functional.avg_pool2d(x, 2)
        for layer in (self.layer1, self.layer2, self.layer3, self.layer4):
            x = layer(x)
        return x.flatten(2).transpose(1, 2)


def load_image_tower(path: Path, heads: int | None, device: str, dtype: torch.dtype) -> ImageTower:
    """The image tower of the CLIP in the file at `path`, on `device`, computing in `dtype`.

    Args:
        heads: of its attention; a 64th of its width if not given, as in all of OpenAI's.

    Raises:
        CheckpointInvalid: the file holds no CLIP, or one whose image tower is neither of the two kinds.
    """
    state = image_tower(path)
    if "attnpool.c_proj.weight" in state:
        network = _build_resnet(path, state, heads)
        network.to(device, dtype)
        return network
    if "conv1.weight" in state:
        first = state["conv1.weight"]
        state["conv1_alpha.weight"] = torch.zeros_like(first[:, :1])
    tower = build_tower(path, state, heads, _WHAT)
    tower.move(device, dtype)
    return VisionTransformer(tower)


def _build_resnet(path: Path, state: Mapping[str, Tensor], heads: int | None) -> ModifiedResNet:
    try:
        folded = _fold(state)
        tokens, channels = state["attnpool.positional_embedding"].shape
        blocks = tuple(_count_blocks(folded, f"layer{number}") for number in range(1, 5))
        width, dimensions = len(state["conv3.weight"]), len(state["attnpool.c_proj.weight"])
    except KeyError as error:
        raise CheckpointInvalid(path, f"not {_WHAT}: no {error}") from error
    except (ValueError, RuntimeError, TypeError) as error:  # shapes that do not fit together
        raise CheckpointInvalid(path, f"not {_WHAT}: {error}") from error
    grid = round(max(tokens - 1, 0) ** 0.5)
    heads = heads or max(1, channels // 64)
    if grid < 1 or grid**2 + 1 != tokens:
        raise CheckpointInvalid(path, f"not {_WHAT}: {tokens} positions are not a square of cells and a mean")
    if channels % heads or channels != 32 * width or width % 2 or not dimensions:
        reason = f"width {width}, {channels} channels, {heads} heads, {dimensions} dimensions"
        raise CheckpointInvalid(path, f"not {_WHAT}: {reason}")
    with torch.device("meta"):
        network = ModifiedResNet(width, blocks, grid, heads, dimensions)
    fill(path, network, folded, _WHAT)
    return network


def _count_blocks(state: Mapping[str, Tensor], layer: str) -> int:
    numbers = (re.match(rf"{layer}\.(\d{{1,3}})\.conv1\.weight$", name) for name in state)
    count = 1 + max((int(found[1]) for found in numbers if found), default=-1)
    if not 1 <= count <= _BLOCK_LIMIT:
        raise ValueError(f"{count} blocks in {layer}")
    return count


def _fold(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """`state` with each batch norm's fixed scale and shift in the convolution before it, float32."""
    folded = {name: value.float() for name, value in state.items() if name.startswith("attnpool.")}
    for name, weight in state.items():
        convolution, is_norm = _norm_of(name)
        if is_norm is None:
            continue
        gamma, beta, mean, variance = (
            state[f"{is_norm}.{part}"].double() for part in ("weight", "bias", "running_mean", "running_var")
        )
        scale = gamma / (variance + _BATCH_NORM_EPSILON).sqrt()
        folded[f"{convolution}.weight"] = (weight.double() * scale.view(-1, 1, 1, 1)).float()
        folded[f"{convolution}.bias"] = (beta - mean * scale).float()
    return folded


def _norm_of(name: str) -> tuple[str, str | None]:
    """Of the weight of a convolution: its name, and that of the batch norm behind it."""
    if found := re.fullmatch(r"((?:layer\d\.\d+\.)?)conv(\d)\.weight", name):
        return f"{found[1]}conv{found[2]}", f"{found[1]}bn{found[2]}"
    if found := re.fullmatch(r"(.*\.downsample)\.0\.weight", name):
        return f"{found[1]}.0", f"{found[1]}.1"
    return name, None
