"""CLIP's text encoder in numpy: encodes a query without loading torch.

Follows OpenAI's `clip/model.py` (CLIP.encode_text), with the tensor names of Hugging Face's
CLIPTextModelWithProjection. Alpha-CLIP uses OpenAI's text tower unchanged.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from matir_cli.engines.clip.options import ClipOptions, model_file
from matir_cli.engines.clip.tokenizer import ClipTokenizer, load_tokenizer
from matir_cli.engines.options import read_options
from matir_cli.engines.protocols import PromptVector, QueryVector
from matir_cli.engines.tensors.numpy_transformer import (
    BlockKind,
    apply_block,
    count_blocks,
    matrix_shape,
    normalise,
    read_block,
    read_norm,
    unit_rows,
)
from matir_cli.engines.tensors.safetensors_mmap import MappedTensors, NamedTensors
from matir_cli.errors import CheckpointInvalid
from matir_cli.records import EngineConfig, FloatArray

_EMBEDDINGS = "text_model.embeddings"

_LAYERS = "text_model.encoder.layers"

_LAYER_NORM_EPSILON = 1e-5


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
        self._vocabulary_shape = matrix_shape(weights, f"{_EMBEDDINGS}.token_embedding.weight")
        width = self._vocabulary_shape[1]
        self._context, _ = matrix_shape(weights, f"{_EMBEDDINGS}.position_embedding.weight")
        self._positions = weights.read(f"{_EMBEDDINGS}.position_embedding.weight", self._context, width)
        dimensions, _ = matrix_shape(weights, "text_projection.weight")
        self._projection = weights.read("text_projection.weight", dimensions, width)
        self._norm = read_norm(weights, "text_model.final_layer_norm", width)
        depth = count_blocks(weights, _LAYERS)
        self._layers = [read_block(weights, f"{_LAYERS}.{n}", width) for n in range(depth)]
        heads = options.text_heads or max(1, width // 64)
        if width % heads:
            raise CheckpointInvalid(weights.path, f"{heads} heads do not divide the width {width}")
        self._kind = BlockKind(heads, _LAYER_NORM_EPSILON, _quick_gelu)
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
        vectors = unit_rows(self._encode_tokens([text.ids for text in texts]))
        truncated = any(text.truncated for text in texts)
        return QueryVector(
            unit_rows(vectors.mean(axis=0)), truncated, tuple(map(PromptVector, prompts, vectors))
        )

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
                x = apply_block(layer, self._kind, x, queries, mask)
            return np.asarray(normalise(self._norm, x, _LAYER_NORM_EPSILON) @ self._projection.T)


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


def _quick_gelu(x: FloatArray) -> FloatArray:
    """Compute OpenAI's approximation of GELU, x * sigmoid(1.702 x)."""
    gate: FloatArray = np.exp(x * np.float32(-1.702))
    gate += 1
    return np.divide(x, gate, out=gate)
