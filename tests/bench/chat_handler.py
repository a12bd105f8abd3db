"""llama-cpp-python's own chat handler as a judge: the peer of `bench_judge`."""

import base64
import io
from collections.abc import Callable
from pathlib import Path

import llama_cpp.llama_cpp as low_level
import numpy as np
from llama_cpp import Llama, LogitsProcessorList
from llama_cpp.llama_chat_format import Qwen25VLChatHandler
from llama_cpp.llama_grammar import LlamaGrammar
from llama_cpp.llama_types import ChatCompletionRequestUserMessage
from PIL import Image

from matir_cli.engines.llama_cpp.build import amx_present
from matir_cli.engines.qwen_vl.options import GROUND, RERANK
from matir_cli.records import ImageArray

ANSWER_TOKENS = 100
"""Tokens of a grounding answer at most."""


class WholePromptHandler(Qwen25VLChatHandler):
    """Jinja strips the last line break of the handler's prompt; with two, one stays."""

    CHAT_FORMAT = Qwen25VLChatHandler.CHAT_FORMAT + "\n"


class ChatHandlerJudge:
    """Asks one chat completion per question about one photo."""

    def __init__(self, folder: Path, *, threads: int, gpu: bool, flash: bool) -> None:
        """Load `text.gguf` and `projector.gguf` from `folder`; `flash` turns on flash attention."""
        _load_weights_as_the_judge_does()
        self._llama = Llama(
            str(folder / "text.gguf"),
            chat_handler=WholePromptHandler(str(folder / "projector.gguf"), verbose=False),
            n_ctx=2048,
            n_threads=threads,
            n_threads_batch=threads,
            n_gpu_layers=-1 if gpu else 0,
            flash_attn=flash,
            verbose=False,
        )
        self._true, self._false = (self.tokenize(word)[0] for word in ("True", "False"))

    def tokenize(self, text: str) -> list[int]:
        """Token ids of `text`."""
        return list(self._llama.tokenize(text.encode(), add_bos=False))

    def rerank(self, image: ImageArray, query: str) -> float:
        """The margin between the logits of True and False."""
        margins: list[float] = []

        def note_margin(_: object, scores: np.ndarray) -> np.ndarray:
            margins.append(float(scores[self._true]) - float(scores[self._false]))
            return scores

        self._ask(image, RERANK + query, 1, processors=LogitsProcessorList([note_margin]))
        return margins[0]

    def ground(self, image: ImageArray, query: str, grammar: LlamaGrammar) -> str:
        """The answer within `grammar`."""
        return self._ask(image, GROUND + query, ANSWER_TOKENS, grammar=grammar)

    def _ask(
        self,
        image: ImageArray,
        question: str,
        max_tokens: int,
        grammar: LlamaGrammar | None = None,
        processors: LogitsProcessorList | None = None,
    ) -> str:
        file = io.BytesIO()
        Image.fromarray(image).save(file, "PNG", compress_level=1)
        address = "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()
        message: ChatCompletionRequestUserMessage = {
            "role": "user",
            "content": [{"type": "image_url", "image_url": address}, {"type": "text", "text": question}],
        }
        reply = self._llama.create_chat_completion(
            [message],
            temperature=0.0,
            repeat_penalty=1.0,
            max_tokens=max_tokens,
            grammar=grammar,
            logits_processor=processors,
        )
        assert isinstance(reply, dict)
        return str(reply["choices"][0]["message"]["content"])


def _load_weights_as_the_judge_does() -> None:
    """Turn off repacked weights where llama.cpp's AMX code may crash; `Llama` has no setting for it."""
    make_defaults: Callable[[], low_level.llama_model_params] = low_level.llama_model_default_params

    def defaults() -> low_level.llama_model_params:
        params = make_defaults()
        params.use_extra_bufts = not amx_present()
        return params

    low_level.llama_model_default_params = defaults
