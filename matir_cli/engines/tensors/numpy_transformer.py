"""Transformer blocks in numpy for text towers, with Hugging Face's tensor names; no torch is loaded.

The blocks of CLIP's and SigLIP's text towers differ in mask, activation and the epsilon of layer norms
alone: https://github.com/huggingface/transformers (`modeling_clip.py`, `modeling_siglip.py`).
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from matir_cli.engines.tensors.safetensors_mmap import NamedTensors
from matir_cli.errors import CheckpointInvalid
from matir_cli.records import FloatArray

_LAYER_LIMIT = 256
"""Largest number of layers that is accepted."""


@dataclass(frozen=True, slots=True)
class Affine:
    """A linear layer, x -> x @ weight.T + bias, or the scale and shift of a layer norm."""

    weight: FloatArray
    bias: FloatArray


@dataclass(frozen=True, slots=True)
class Block:
    """Weights of one transformer block."""

    norm_1: Affine
    query: Affine
    key: Affine
    value: Affine
    out: Affine
    norm_2: Affine
    up: Affine
    down: Affine


@dataclass(frozen=True, slots=True)
class BlockKind:
    """What the blocks of a tower have in common."""

    heads: int
    """Attention heads; they divide the width."""
    epsilon: float
    """Added to the variance in layer norms."""
    activation: Callable[[FloatArray], FloatArray]
    """Function between the linear layers of the MLP."""


def count_blocks(weights: NamedTensors, layers: str) -> int:
    """Return the number of blocks named `layers`.0 and so on; CheckpointInvalid if none or too many."""
    depth = 0
    while f"{layers}.{depth}.layer_norm1.weight" in weights:
        depth += 1
    if not 1 <= depth <= _LAYER_LIMIT:
        raise CheckpointInvalid(weights.path, f"has {depth} layers under {layers}")
    return depth


def matrix_shape(weights: NamedTensors, name: str) -> tuple[int, int]:
    """Return the shape of tensor `name`; CheckpointInvalid if it is not a matrix with elements."""
    shape = weights.shape(name)
    if len(shape) != 2 or 0 in shape:
        raise CheckpointInvalid(weights.path, f"{name} has shape {list(shape)}, expected a matrix")
    return shape[0], shape[1]


def read_block(weights: NamedTensors, name: str, width: int) -> Block:
    """Read one transformer block; CheckpointInvalid if a tensor is missing or has another shape."""
    wide, _ = matrix_shape(weights, f"{name}.mlp.fc1.weight")
    return Block(
        norm_1=read_norm(weights, f"{name}.layer_norm1", width),
        query=read_affine(weights, f"{name}.self_attn.q_proj", width, width),
        key=read_affine(weights, f"{name}.self_attn.k_proj", width, width),
        value=read_affine(weights, f"{name}.self_attn.v_proj", width, width),
        out=read_affine(weights, f"{name}.self_attn.out_proj", width, width),
        norm_2=read_norm(weights, f"{name}.layer_norm2", width),
        up=read_affine(weights, f"{name}.mlp.fc1", wide, width),
        down=read_affine(weights, f"{name}.mlp.fc2", width, wide),
    )


def read_affine(weights: NamedTensors, name: str, outputs: int, inputs: int) -> Affine:
    """Read a linear layer; errors as in `read_block`."""
    return Affine(weights.read(f"{name}.weight", outputs, inputs), weights.read(f"{name}.bias", outputs))


def read_norm(weights: NamedTensors, name: str, width: int) -> Affine:
    """Read the scale and shift of a layer norm; errors as in `read_block`."""
    return Affine(weights.read(f"{name}.weight", width), weights.read(f"{name}.bias", width))


def apply_block(
    block: Block, kind: BlockKind, x: FloatArray, queries: NDArray[np.intp], mask: FloatArray | None
) -> FloatArray:
    """Return (..., len(queries), width): the outputs of a block at the nodes `queries` of each text.

    Args:
        block: weights.
        kind: what the tower's blocks have in common.
        x: (..., nodes, width) states.
        queries: indices of the nodes whose outputs are needed.
        mask: (nodes, nodes) added to the scores of attention, row to column; None: each sees all.
    """
    attention = _attend(block, kind.heads, normalise(block.norm_1, x, kind.epsilon), queries, mask)
    x = x[..., queries, :] + attention
    wide = kind.activation(apply(block.up, normalise(block.norm_2, x, kind.epsilon)))
    return x + apply(block.down, wide)


def _attend(
    block: Block, heads: int, x: FloatArray, queries: NDArray[np.intp], mask: FloatArray | None
) -> FloatArray:
    """Return (..., len(queries), width): the output of self-attention at the nodes `queries`."""
    query = _split(apply(block.query, x[..., queries, :]), heads)
    key, value = _split(apply(block.key, x), heads), _split(apply(block.value, x), heads)
    scores: FloatArray = query @ key.swapaxes(-1, -2)  # (..., heads, queries, nodes)
    scores *= np.float32(query.shape[-1] ** -0.5)
    if mask is not None:
        scores += mask[queries]
    scores -= scores.max(axis=-1, keepdims=True)
    np.exp(scores, out=scores)
    scores /= scores.sum(axis=-1, keepdims=True)
    mixed: FloatArray = (scores @ value).swapaxes(-2, -3)  # (..., queries, heads, width / heads)
    return apply(block.out, mixed.reshape(*mixed.shape[:-2], -1))


def _split(x: FloatArray, heads: int) -> FloatArray:
    """Reshape (..., nodes, width) to (..., heads, nodes, width / heads)."""
    return x.reshape(*x.shape[:-1], heads, -1).swapaxes(-2, -3)


def apply(affine: Affine, x: FloatArray) -> FloatArray:
    """Apply a linear layer to the rows of `x`."""
    y: FloatArray = x @ affine.weight.T
    y += affine.bias
    return y


def normalise(affine: Affine, x: FloatArray, epsilon: float) -> FloatArray:
    """Apply a layer norm to the rows of `x`."""
    centred = x - x.mean(axis=-1, keepdims=True)
    variance = np.square(centred).mean(axis=-1, keepdims=True)
    y: FloatArray = centred / np.sqrt(variance + np.float32(epsilon))
    return y * affine.weight + affine.bias


def unit_rows(x: FloatArray) -> FloatArray:
    """Scale rows to unit length; a row of length 0 becomes NaN."""
    with np.errstate(invalid="ignore", divide="ignore"):
        unit: FloatArray = x / np.linalg.norm(x, axis=-1, keepdims=True)
    return unit
