"""SigLIP 2's text encoder in numpy: encodes a query without loading torch.

Follows transformers' `SiglipTextModel`: every text fills the whole context with padding, all tokens see each
other, padding included, and the state at the last one goes through a linear head.
"""

import math
from collections.abc import Sequence

import numpy as np

from matir_cli.engines.protocols import PromptVector, QueryVector
from matir_cli.engines.siglip.heads import count_heads
from matir_cli.engines.siglip.tokenizer import PADDING, GemmaTokenizer
from matir_cli.engines.tensors.numpy_transformer import (
    BlockKind,
    apply,
    apply_block,
    count_blocks,
    matrix_shape,
    normalise,
    read_affine,
    read_block,
    read_norm,
    unit_rows,
)
from matir_cli.engines.tensors.safetensors_mmap import NamedTensors
from matir_cli.errors import CheckpointInvalid
from matir_cli.records import FloatArray

_EMBEDDINGS = "text_model.embeddings"

_LAYERS = "text_model.encoder.layers"

_LAYER_NORM_EPSILON = 1e-6


class SiglipTextEncoder:
    """Fulfils `protocols.TextEncoder`."""

    def __init__(
        self, weights: NamedTensors, tokenizer: GemmaTokenizer, heads: int | None, prompts: Sequence[str]
    ) -> None:
        """Load the tower from `weights`; `heads` as in `count_heads`, `prompts` with one `{}` each.

        Raises:
            CheckpointInvalid: a tensor is missing or does not fit the others, or `tokenizer` has ids that
                the tower does not know.
        """
        self._tokenizer = tokenizer
        self._prompts = tuple(prompts)
        self._weights = weights
        self._vocabulary_shape = matrix_shape(weights, f"{_EMBEDDINGS}.token_embedding.weight")
        width = self._vocabulary_shape[1]
        self._context, _ = matrix_shape(weights, f"{_EMBEDDINGS}.position_embedding.weight")
        self._positions = weights.read(f"{_EMBEDDINGS}.position_embedding.weight", self._context, width)
        dimensions, _ = matrix_shape(weights, "text_model.head.weight")
        self._head = read_affine(weights, "text_model.head", dimensions, width)
        self._norm = read_norm(weights, "text_model.final_layer_norm", width)
        depth = count_blocks(weights, _LAYERS)
        self._layers = [read_block(weights, f"{_LAYERS}.{n}", width) for n in range(depth)]
        heads = count_heads(weights.path, width, heads)
        self._kind = BlockKind(heads, _LAYER_NORM_EPSILON, _tanh_gelu)
        if self._context < 2 or tokenizer.largest_id >= self._vocabulary_shape[0]:
            raise CheckpointInvalid(weights.path, "does not fit the vocabulary")

    @property
    def dimensions(self) -> int:
        """Length d of a vector."""
        return len(self._head.weight)

    def encode(self, query: str) -> QueryVector:
        """Return the vector of `query`: the mean of its prompts' unit vectors, scaled to unit length."""
        prompts = [prompt.replace("{}", query) for prompt in self._prompts]
        texts = [self._tokenizer.tokenize(prompt, self._context) for prompt in prompts]
        vectors = unit_rows(self._encode_tokens([text.ids for text in texts]))
        truncated = any(text.truncated for text in texts)
        mean = unit_rows(vectors.mean(axis=0))
        return QueryVector(mean, truncated, tuple(map(PromptVector, prompts, vectors)))

    def _encode_tokens(self, texts: Sequence[Sequence[int]]) -> FloatArray:
        """Return (len(texts), d): the vectors of texts of token ids, not normalised."""
        ids = np.full((len(texts), self._context), PADDING, dtype=np.intp)
        for row, text in zip(ids, texts, strict=True):
            row[: len(text)] = text
        embedded = self._weights.read_rows(
            f"{_EMBEDDINGS}.token_embedding.weight", self._vocabulary_shape, ids.ravel()
        )
        x = embedded.reshape(*ids.shape, -1) + self._positions  # (texts, context, width)
        every, last = np.arange(self._context), np.array([self._context - 1])
        # NaN weights give NaN vectors.
        with np.errstate(over="ignore", invalid="ignore"):
            for n, layer in enumerate(self._layers):
                # The last layer's other tokens are not used.
                x = apply_block(layer, self._kind, x, last if n == len(self._layers) - 1 else every, None)
            return apply(self._head, normalise(self._norm, x[:, 0], _LAYER_NORM_EPSILON))


def _tanh_gelu(x: FloatArray) -> FloatArray:
    """Compute the approximation of GELU by tanh, `gelu_pytorch_tanh` in transformers."""
    inner = np.square(x)
    inner *= np.float32(0.044715)
    inner += 1
    inner *= x
    inner *= np.float32(math.sqrt(2 / math.pi))
    np.tanh(inner, out=inner)
    inner += 1
    inner *= x
    inner *= np.float32(0.5)
    return inner
