"""CLIP's text encoder in numpy: encodes a query without loading torch.

Follows OpenAI's `clip/model.py` (CLIP.encode_text), with the tensor names of Hugging Face's
CLIPTextModelWithProjection. Alpha-CLIP uses OpenAI's text tower unchanged.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from matir_cli.engines.clip.options import ClipOptions, model_file
from matir_cli.engines.clip.tokenizer import ClipTokenizer, load_tokenizer
from matir_cli.engines.options import read_options
from matir_cli.engines.protocols import PromptVector, QueryVector
from matir_cli.engines.tensors.safetensors_mmap import MappedTensors, NamedTensors
from matir_cli.errors import CheckpointInvalid
from matir_cli.records import EngineConfig, FloatArray

_EMBEDDINGS = "text_model.embeddings"

_LAYERS = "text_model.encoder.layers"

_LAYER_NORM_EPSILON = 1e-5

_LAYER_LIMIT = 256
"""Largest number of layers that is accepted."""


@dataclass(frozen=True, slots=True)
class _Affine:
    """A linear layer, x -> x @ weight.T + bias, or the scale and shift of a layer norm."""

    weight: FloatArray
    bias: FloatArray


@dataclass(frozen=True, slots=True)
class _Layer:
    """Weights of one transformer block."""

    norm_1: _Affine
    query: _Affine
    key: _Affine
    value: _Affine
    out: _Affine
    norm_2: _Affine
    up: _Affine
    down: _Affine


@dataclass(slots=True)
class _PrefixTree:
    """Texts as a tree of tokens, in which shared beginnings are stored once.

    The tower is causal: the state at a token depends only on the tokens before it. So the start token of
    all prompts, and "a photo of the" of two of them, are computed once.
    """

    tokens: list[int] = field(default_factory=list)
    """Token id of each node."""
    parents: list[int] = field(default_factory=list)
    """Index of each node's predecessor, which is always smaller; -1 for none."""
    depths: list[int] = field(default_factory=list)
    """Position of each node in its text."""
    ends: list[int] = field(default_factory=list)
    """Index of the last node of each text."""

    @classmethod
    def from_texts(cls, texts: Sequence[Sequence[int]]) -> "_PrefixTree":
        """Build the tree of `texts`, sequences of token ids."""
        tree = cls()
        nodes: dict[tuple[int, int], int] = {}
        for text in texts:
            node = -1
            for depth, token in enumerate(text):
                step = (node, token)
                node = nodes.setdefault(step, len(nodes))
                if node == len(tree.tokens):
                    tree.tokens.append(token)
                    tree.parents.append(step[0])
                    tree.depths.append(depth)
            tree.ends.append(node)
        return tree

    def causal_mask(self) -> FloatArray:
        """Return (nodes, nodes) float32: 0 if the column is the row or precedes it in a text, else -inf."""
        visible = np.eye(len(self.tokens), dtype=np.bool_)
        for node, parent in enumerate(self.parents):
            if parent >= 0:
                visible[node] |= visible[parent]
        return np.where(visible, np.float32(0), np.float32(-np.inf))


class ClipTextEncoder:
    """Fulfils `protocols.TextEncoder`."""

    def __init__(self, weights: NamedTensors, tokenizer: ClipTokenizer, options: ClipOptions) -> None:
        """Load the tower from `weights`.

        Raises:
            CheckpointInvalid: a tensor is missing or does not fit the others, or `tokenizer` has ids that
                the tower does not know.
        """
        self._tokenizer = tokenizer
        self._prompts = options.prompts
        self._weights = weights
        self._vocabulary_shape = _matrix_shape(weights, f"{_EMBEDDINGS}.token_embedding.weight")
        width = self._vocabulary_shape[1]
        self._context, _ = _matrix_shape(weights, f"{_EMBEDDINGS}.position_embedding.weight")
        self._positions = weights.read(f"{_EMBEDDINGS}.position_embedding.weight", self._context, width)
        dimensions, _ = _matrix_shape(weights, "text_projection.weight")
        self._projection = weights.read("text_projection.weight", dimensions, width)
        self._norm = _read_norm(weights, "text_model.final_layer_norm", width)
        self._layers = [_read_layer(weights, f"{_LAYERS}.{n}", width) for n in range(_depth(weights))]
        self._heads = options.text_heads or max(1, width // 64)
        if width % self._heads:
            raise CheckpointInvalid(weights.path, f"{self._heads} heads do not divide the width {width}")
        if self._context < 2 or tokenizer.largest_id >= self._vocabulary_shape[0]:
            raise CheckpointInvalid(weights.path, "does not fit the vocabulary")

    @property
    def dimensions(self) -> int:
        """Length d of a vector."""
        return len(self._projection)

    def encode(self, query: str) -> QueryVector:
        """Return the vector of `query`: the mean of its prompts' unit vectors, scaled to unit length."""
        prompts = [prompt.replace("{}", query) for prompt in self._prompts]
        texts = [self._tokenizer.tokenize(prompt, self._context) for prompt in prompts]
        vectors = _unit(self._encode_tokens([text.ids for text in texts]))
        truncated = any(text.truncated for text in texts)
        return QueryVector(_unit(vectors.mean(axis=0)), truncated, tuple(map(PromptVector, prompts, vectors)))

    def _encode_tokens(self, texts: Sequence[Sequence[int]]) -> FloatArray:
        """Return (len(texts), d): the projected states at the texts' last tokens, not normalised."""
        tree = _PrefixTree.from_texts(texts)
        mask = tree.causal_mask()
        tokens = np.array(tree.tokens, dtype=np.intp)
        x = self._weights.read_rows(f"{_EMBEDDINGS}.token_embedding.weight", self._vocabulary_shape, tokens)
        x = x + self._positions[tree.depths]  # (nodes, width)
        all_nodes, ends = np.arange(len(tokens)), np.array(tree.ends)
        # The exponential in a sigmoid may overflow, with the right result; NaN weights give NaN vectors.
        with np.errstate(over="ignore", invalid="ignore"):
            for n, layer in enumerate(self._layers):
                # The last layer's other nodes are not used.
                queries = ends if n == len(self._layers) - 1 else all_nodes
                x = x[queries] + self._attend(layer, _normalise(layer.norm_1, x), queries, mask)
                x = x + _apply(layer.down, _quick_gelu(_apply(layer.up, _normalise(layer.norm_2, x))))
            return np.asarray(_normalise(self._norm, x) @ self._projection.T)

    def _attend(
        self, layer: _Layer, x: FloatArray, queries: NDArray[np.intp], mask: FloatArray
    ) -> FloatArray:
        """Return (len(queries), width): the output of self-attention at the nodes `queries`."""
        query = self._split(_apply(layer.query, x[queries]))
        key, value = self._split(_apply(layer.key, x)), self._split(_apply(layer.value, x))
        scores: FloatArray = query @ key.transpose(0, 2, 1)  # (heads, queries, nodes)
        scores *= np.float32(query.shape[2] ** -0.5)
        scores += mask[queries]
        scores -= scores.max(axis=2, keepdims=True)
        np.exp(scores, out=scores)
        scores /= scores.sum(axis=2, keepdims=True)
        mixed: FloatArray = (scores @ value).transpose(1, 0, 2).reshape(len(queries), -1)
        return _apply(layer.out, mixed)

    def _split(self, x: FloatArray) -> FloatArray:
        """Reshape (nodes, width) to (heads, nodes, width / heads)."""
        return x.reshape(len(x), self._heads, -1).transpose(1, 0, 2)


def load_clip_text_encoder(config: EngineConfig) -> ClipTextEncoder:
    """Load a model set's text encoder from its files "text" (.safetensors) and "vocabulary" (tokenizer.json).

    "text" may also hold the visual tower; its bytes are not read.

    Raises:
        ModelSetInvalid: an option is invalid, or the model set does not name a file.
        CheckpointInvalid: a file is damaged or of the wrong kind.
    """
    options = read_options(config.options, ClipOptions, config.engine)
    weights = MappedTensors(model_file(config, "text"))
    return ClipTextEncoder(weights, load_tokenizer(model_file(config, "vocabulary")), options)


def _depth(weights: NamedTensors) -> int:
    """Return the number of layers; CheckpointInvalid if there are none or too many."""
    depth = 0
    while f"{_LAYERS}.{depth}.layer_norm1.weight" in weights:
        depth += 1
    if not 1 <= depth <= _LAYER_LIMIT:
        raise CheckpointInvalid(weights.path, f"has {depth} layers under {_LAYERS}")
    return depth


def _matrix_shape(weights: NamedTensors, name: str) -> tuple[int, int]:
    """Return the shape of tensor `name`; CheckpointInvalid if it is not a matrix with elements."""
    shape = weights.shape(name)
    if len(shape) != 2 or 0 in shape:
        raise CheckpointInvalid(weights.path, f"{name} has shape {list(shape)}, expected a matrix")
    return shape[0], shape[1]


def _read_layer(weights: NamedTensors, name: str, width: int) -> _Layer:
    """Read one transformer block."""
    wide, _ = _matrix_shape(weights, f"{name}.mlp.fc1.weight")
    return _Layer(
        norm_1=_read_norm(weights, f"{name}.layer_norm1", width),
        query=_read_affine(weights, f"{name}.self_attn.q_proj", width, width),
        key=_read_affine(weights, f"{name}.self_attn.k_proj", width, width),
        value=_read_affine(weights, f"{name}.self_attn.v_proj", width, width),
        out=_read_affine(weights, f"{name}.self_attn.out_proj", width, width),
        norm_2=_read_norm(weights, f"{name}.layer_norm2", width),
        up=_read_affine(weights, f"{name}.mlp.fc1", wide, width),
        down=_read_affine(weights, f"{name}.mlp.fc2", width, wide),
    )


def _read_affine(weights: NamedTensors, name: str, outputs: int, inputs: int) -> _Affine:
    """Read a linear layer."""
    return _Affine(weights.read(f"{name}.weight", outputs, inputs), weights.read(f"{name}.bias", outputs))


def _read_norm(weights: NamedTensors, name: str, width: int) -> _Affine:
    """Read the scale and shift of a layer norm."""
    return _Affine(weights.read(f"{name}.weight", width), weights.read(f"{name}.bias", width))


def _apply(affine: _Affine, x: FloatArray) -> FloatArray:
    """Apply a linear layer to the rows of `x`."""
    y: FloatArray = x @ affine.weight.T
    y += affine.bias
    return y


def _normalise(affine: _Affine, x: FloatArray) -> FloatArray:
    """Apply a layer norm to the rows of `x`."""
    centred = x - x.mean(axis=-1, keepdims=True)
    variance = np.square(centred).mean(axis=-1, keepdims=True)
    y: FloatArray = centred / np.sqrt(variance + np.float32(_LAYER_NORM_EPSILON))
    return y * affine.weight + affine.bias


def _quick_gelu(x: FloatArray) -> FloatArray:
    """Compute OpenAI's approximation of GELU, x * sigmoid(1.702 x)."""
    gate: FloatArray = np.exp(x * np.float32(-1.702))
    gate += 1
    return np.divide(x, gate, out=gate)


def _unit(x: FloatArray) -> FloatArray:
    """Scale rows to unit length; a row of length 0 becomes NaN."""
    with np.errstate(invalid="ignore", divide="ignore"):
        unit: FloatArray = x / np.linalg.norm(x, axis=-1, keepdims=True)
    return unit
