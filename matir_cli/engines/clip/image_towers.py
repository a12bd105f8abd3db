"""CLIP's image towers, ViT and ModifiedResNet: vectors of images and grid cells.

A CLIP ViT is loaded as an Alpha-CLIP tower whose mask embedding is zero. OpenAI's ModifiedResNet
(`clip/model.py`) is computed with its batch norms folded into the convolutions before them.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional

from matir_cli.engines.clip.alpha_encoder import normalise_alpha
from matir_cli.engines.clip.alpha_tower import VisualTower, build_tower, grid_side
from matir_cli.engines.clip.checkpoint import read_image_tower
from matir_cli.engines.device import choose_dtype
from matir_cli.engines.options import Precision
from matir_cli.engines.tensors.torch_checkpoint import load_weights
from matir_cli.errors import CheckpointInvalid

_ROLE = "the image tower of a CLIP"
"""Name of the tower in error messages."""

_BATCH_NORM_EPSILON = 1e-5

_STRIDE = 32
"""Side in pixels of a cell of ModifiedResNet's last feature map."""

_BLOCK_LIMIT = 256
"""Largest number of blocks in a layer that is accepted."""


class ImageTower(Protocol):
    """An image tower on its device; it moves its input there itself."""

    @property
    def side(self) -> int:
        """Side of the square input in pixels."""
        ...

    @property
    def cell(self) -> int:
        """Side of a cell in pixels; the grid has side / cell rows and columns."""
        ...

    @property
    def dimensions(self) -> int:
        """Length d of a vector."""
        ...

    def encode_whole(self, rgb: Tensor) -> Tensor:
        """Return (n, d) vectors, not normalised, of (n, 3, side, side) images normalised for CLIP."""
        ...

    def encode_dense(self, rgb: Tensor) -> Tensor:
        """Return (n, grid^2, d) vectors, not normalised, row by row; argument as in `encode_whole`."""
        ...


class VisionTransformer:
    """Fulfils `ImageTower` with an Alpha-CLIP tower, whose mask is all ones for every image."""

    def __init__(self, tower: VisualTower) -> None:
        """Encode with `tower`, on its device and in its dtype."""
        shape = tower.architecture
        self.side, self.cell, self.dimensions = shape.side, shape.patch, shape.dimensions
        self._tower = tower
        ones = normalise_alpha(torch.ones(1, 1, shape.side, shape.side))
        with torch.inference_mode():
            self._alpha = tower.conv1_alpha(ones.to(tower.proj))

    def encode_whole(self, rgb: Tensor) -> Tensor:
        """See `ImageTower.encode_whole`."""
        return self._tower.encode_patches(self._patches(rgb))

    def encode_dense(self, rgb: Tensor) -> Tensor:
        """See `ImageTower.encode_dense`; in MaskCLIP's form."""
        return self._tower.encode_dense(self._patches(rgb))

    def _patches(self, rgb: Tensor) -> Tensor:
        """Return (n, width, grid, grid): the embedded patches of images and mask."""
        y: Tensor = self._tower.conv1(rgb.to(self._tower.proj)) + self._alpha
        return y


class _Bottleneck(nn.Module):
    """Residual block of ModifiedResNet: convolutions of 1, 3 and 1 pixels, batch norms folded in."""

    def __init__(self, inputs: int, planes: int, stride: int, *, first: bool) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, planes, 1)
        self.conv2 = nn.Conv2d(planes, planes, 3, padding=1)
        self.conv3 = nn.Conv2d(planes, 4 * planes, 1)
        # OpenAI's strides are average pools; the convolution after one is named "downsample.0".
        self.downsample = nn.Sequential(nn.Conv2d(inputs, 4 * planes, 1)) if first else None
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        y = functional.relu(self.conv2(functional.relu(self.conv1(x))))
        if self.stride > 1:
            y, x = functional.avg_pool2d(y, self.stride), functional.avg_pool2d(x, self.stride)
        return functional.relu(self.conv3(y) + (x if self.downsample is None else self.downsample(x)))


def _make_layer(inputs: int, planes: int, blocks: int, stride: int) -> nn.Sequential:
    """Create one of ModifiedResNet's four layers; its first block has the stride."""
    later = (_Bottleneck(4 * planes, planes, 1, first=False) for _ in range(blocks - 1))
    return nn.Sequential(_Bottleneck(inputs, planes, stride, first=True), *later)


class _AttentionPool(nn.Module):
    """Attention from the mean of the cells to the mean and the cells, instead of average pooling."""

    def __init__(self, grid: int, width: int, heads: int, dimensions: int) -> None:
        super().__init__()
        self.positional_embedding = nn.Parameter(torch.empty(grid**2 + 1, width))
        self.q_proj, self.k_proj, self.v_proj = (nn.Linear(width, width) for _ in range(3))
        self.c_proj = nn.Linear(width, dimensions)
        self.heads = heads

    def forward(self, cells: Tensor) -> Tensor:
        """Pool (n, grid^2, width) cells to (n, d)."""
        x = torch.cat([cells.mean(dim=1, keepdim=True), cells], dim=1) + self.positional_embedding
        query, key, value = (
            y.unflatten(2, (self.heads, -1)).transpose(1, 2)  # (n, heads, tokens, width / heads)
            for y in (self.q_proj(x[:, :1]), self.k_proj(x), self.v_proj(x))
        )
        mixed = functional.scaled_dot_product_attention(query, key, value)
        y: Tensor = self.c_proj(mixed.transpose(1, 2).flatten(2))[:, 0]
        return y

    def project_cells(self, cells: Tensor) -> Tensor:
        """Project (n, grid^2, width) cells to (n, grid^2, d), without attention and positions."""
        y: Tensor = self.c_proj(self.v_proj(cells))
        return y


class ModifiedResNet(nn.Module):
    """Fulfils `ImageTower` with OpenAI's ModifiedResNet, its batch norms folded into the convolutions."""

    def __init__(self, width: int, blocks: tuple[int, ...], grid: int, heads: int, dimensions: int) -> None:
        """Create a network of `width` channels after the stem, `blocks` per layer, grid x grid cells."""
        super().__init__()
        self.side, self.cell, self.dimensions = grid * _STRIDE, _STRIDE, dimensions
        self.conv1 = nn.Conv2d(3, width // 2, 3, stride=2, padding=1)
        self.conv2 = nn.Conv2d(width // 2, width // 2, 3, padding=1)
        self.conv3 = nn.Conv2d(width // 2, width, 3, padding=1)
        self.layer1 = _make_layer(width, width, blocks[0], stride=1)
        self.layer2 = _make_layer(4 * width, 2 * width, blocks[1], stride=2)
        self.layer3 = _make_layer(8 * width, 4 * width, blocks[2], stride=2)
        self.layer4 = _make_layer(16 * width, 8 * width, blocks[3], stride=2)
        self.attnpool = _AttentionPool(grid, 32 * width, heads, dimensions)

    def encode_whole(self, rgb: Tensor) -> Tensor:
        """See `ImageTower.encode_whole`."""
        y: Tensor = self.attnpool(self._cells(rgb))
        return y

    def encode_dense(self, rgb: Tensor) -> Tensor:
        """See `ImageTower.encode_dense`; the attention pool without attention."""
        return self.attnpool.project_cells(self._cells(rgb))

    def _cells(self, rgb: Tensor) -> Tensor:
        """Return (n, grid^2, width): the cells of the last feature map, row by row."""
        x = rgb.to(self.conv1.weight)
        for convolution in (self.conv1, self.conv2, self.conv3):
            x = functional.relu(convolution(x))
        x = functional.avg_pool2d(x, 2)
        for layer in (self.layer1, self.layer2, self.layer3, self.layer4):
            x = layer(x)
        return x.flatten(2).transpose(1, 2)


def load_image_tower(path: Path, heads: int | None, device: str, precision: Precision) -> ImageTower:
    """Load the image tower of the CLIP in the file at `path`, on `device`.

    Args:
        path: a checkpoint as in `checkpoint.read_image_tower`.
        heads: attention heads; width / 64, as in all of OpenAI's CLIPs, if None.
        device: "cuda", "mps" or "cpu".
        precision: as in `choose_dtype`.

    Raises:
        CheckpointInvalid: the file holds no CLIP, or one whose image tower is of neither kind.
    """
    state = read_image_tower(path)
    if "attnpool.c_proj.weight" in state:
        network = _build_resnet(path, state, heads)
        network.to(device, choose_dtype(precision, device, width=0))
        return network
    return VisionTransformer(_build_transformer(path, state, heads, device, precision))


def load_vision_transformer(path: Path, heads: int | None, device: str, precision: Precision) -> VisualTower:
    """Load the image tower of the CLIP at `path`, which must be a ViT; arguments as in `load_image_tower`.

    Raises:
        CheckpointInvalid: the file holds no CLIP, or one whose image tower is no ViT.
    """
    state = read_image_tower(path)
    if "attnpool.c_proj.weight" in state:
        raise CheckpointInvalid(path, "its image tower is a ResNet, not a ViT")
    return _build_transformer(path, state, heads, device, precision)


def _build_transformer(
    path: Path, state: dict[str, Tensor], heads: int | None, device: str, precision: Precision
) -> VisualTower:
    """Build the ViT whose weights are `state`, with a mask embedding of zeros; errors as in `build_tower`."""
    if "conv1.weight" in state:
        first = state["conv1.weight"]
        if first.ndim != 4:
            raise CheckpointInvalid(path, f"not {_ROLE}: conv1.weight has shape {list(first.shape)}")
        state["conv1_alpha.weight"] = torch.zeros_like(first[:, :1])
    tower = build_tower(path, state, heads, _ROLE)
    tower.move(device, choose_dtype(precision, device, tower.architecture.width))
    return tower


def _build_resnet(path: Path, state: Mapping[str, Tensor], heads: int | None) -> ModifiedResNet:
    """Build the network whose weights are `state`, read from `path`; CheckpointInvalid if they do not fit."""
    try:
        folded = _fold_batch_norms(state)
        positions, channels = state["attnpool.positional_embedding"].shape
        grid = grid_side(positions)
        blocks = tuple(_count_blocks(folded, f"layer{number}") for number in range(1, 5))
        width, dimensions = len(state["conv3.weight"]), len(state["attnpool.c_proj.weight"])
    except KeyError as error:
        raise CheckpointInvalid(path, f"not {_ROLE}: no {error}") from error
    except (ValueError, RuntimeError, TypeError) as error:  # shapes that do not fit together
        raise CheckpointInvalid(path, f"not {_ROLE}: {error}") from error
    heads = heads or max(1, channels // 64)
    if channels % heads or channels != 32 * width or width % 2 or not dimensions:
        reason = f"width {width}, {channels} channels, {heads} heads, {dimensions} dimensions"
        raise CheckpointInvalid(path, f"not {_ROLE}: {reason}")
    with torch.device("meta"):
        network = ModifiedResNet(width, blocks, grid, heads, dimensions)
    load_weights(path, network, folded, _ROLE)
    return network


def _count_blocks(state: Mapping[str, Tensor], layer: str) -> int:
    """Return the number of blocks of `layer`; ValueError if there are none or too many."""
    numbers = (re.match(rf"{layer}\.(\d{{1,3}})\.conv1\.weight$", name) for name in state)
    count = 1 + max((int(number[1]) for number in numbers if number), default=-1)
    if not 1 <= count <= _BLOCK_LIMIT:
        raise ValueError(f"{count} blocks in {layer}")
    return count


def _fold_batch_norms(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return `state` in float32, with the scale and shift of each batch norm in the convolution before it."""
    folded = {name: value.float() for name, value in state.items() if name.startswith("attnpool.")}
    for name, weight in state.items():
        norm = _batch_norm_after(name)
        if norm is None:
            continue
        gamma, beta, mean, variance = (
            state[f"{norm}.{part}"].double() for part in ("weight", "bias", "running_mean", "running_var")
        )
        convolution = name.removesuffix(".weight")
        scale = gamma / (variance + _BATCH_NORM_EPSILON).sqrt()
        folded[f"{convolution}.weight"] = (weight.double() * scale.view(-1, 1, 1, 1)).float()
        folded[f"{convolution}.bias"] = (beta - mean * scale).float()
    return folded


def _batch_norm_after(name: str) -> str | None:
    """Return the name of the batch norm after the convolution whose weight is `name`; None if it is none."""
    if match := re.fullmatch(r"((?:layer\d\.\d+\.)?)conv(\d)\.weight", name):
        return f"{match[1]}bn{match[2]}"
    if match := re.fullmatch(r"(.*\.downsample)\.0\.weight", name):
        return f"{match[1]}.1"
    return None
