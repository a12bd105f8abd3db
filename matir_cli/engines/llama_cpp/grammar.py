"""Grammars of llama.cpp, which restrict what a model answers."""

import ctypes

import llama_cpp.llama_cpp as C  # noqa: N812 - the C library
import numpy as np
from numpy.typing import NDArray

from matir_cli.engines.llama_cpp.bindings import LanguageModel
from matir_cli.errors import EngineFailed
from matir_cli.records import FloatArray


class Grammar:
    """A GBNF grammar, advanced token by token along an answer.

    It owns a C object, which `close` frees; close it before the model that it was made for.
    """

    def __init__(self, model: LanguageModel, rules: str) -> None:
        """Parse `rules` and start at the rule `root`; EngineFailed if they are not valid."""
        self.handle = C.llama_sampler_init_grammar(model.vocabulary, rules.encode(), b"root")
        if not self.handle:
            raise EngineFailed("llama.cpp does not accept the grammar")

    def close(self) -> None:
        """Free the grammar."""
        if self.handle:
            C.llama_sampler_free(self.handle)
            self.handle = None

    def best_token(self, logits: FloatArray) -> int:
        """Return the token with the highest of the (vocabulary,) `logits` that the grammar allows next.

        Raises:
            EngineFailed: no token of the vocabulary is allowed.
        """
        # The model's own choice is nearly always allowed, and checking one token is cheap.
        first = int(logits.argmax())
        if self._allowed(np.array([first]))[0]:
            return first
        likely = np.argpartition(-logits, min(64, len(logits) - 1))[:64]
        for tokens in (np.sort(likely), np.arange(len(logits))):
            allowed = tokens[self._allowed(tokens)]
            if len(allowed):
                return int(allowed[logits[allowed].argmax()])
        raise EngineFailed("no token of the vocabulary can continue the answer")

    def accept(self, token: int) -> None:
        """Advance past `token`, which must be allowed."""
        C.llama_sampler_accept(self.handle, token)

    def _allowed(self, tokens: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Return (len(tokens),) bool: True for the tokens that may come next."""
        candidates = np.zeros(len(tokens), [("id", np.int32), ("logit", np.float32), ("p", np.float32)])
        candidates["id"] = tokens
        data = ctypes.cast(candidates.ctypes.data, C.llama_token_data_p)
        array = C.llama_token_data_array(data, len(tokens), -1, False)
        C.llama_sampler_apply(self.handle, ctypes.byref(array))
        return np.asarray(np.isfinite(candidates["logit"]))
