"""llama.cpp through llama-cpp-python's low-level functions, thinly wrapped and typed.

`LanguageModel`, `Context`, `Vision` and `Grammar` own one C object each: `close` frees it,
closing twice is harmless, and everything must be closed before the model it was made from.
The log of llama.cpp, mtmd and clip goes to Python's `logging` at DEBUG, under this
module's name, and never to stderr by itself.
"""

import atexit
import ctypes
import logging
import os
import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

import llama_cpp.llama_cpp as C  # noqa: N812 (the C library, by its usual name)
import llama_cpp.mtmd_cpp as M  # noqa: N812
import numpy as np
from numpy.typing import NDArray

from matir_cli.errors import CheckpointInvalid, EngineFailed
from matir_cli.records import FloatArray, ImageArray

State = NDArray[np.uint8]
"""What a sequence holds in a context, as llama.cpp serialises it."""

IMAGE_TOKENS_LIMIT = 16384
"""mtmd scales images outside 1..this many tokens; Qwen2.5-VL's own maximum, so it never does."""

_log = logging.getLogger(__name__)

_ERROR_LEVEL = 4
"""`GGML_LOG_LEVEL_ERROR` of ggml.h."""

_noted: list[str] = []


def _receive_log(level: int, text: bytes, _data: object) -> None:
    """Every line of the C libraries' logs."""
    line = text.decode(errors="replace").rstrip("\n")
    if level == _ERROR_LEVEL:
        _noted.append(line)
    _log.debug("%s", line)


_LOG_CALLBACK = C.llama_log_callback(_receive_log)
"""Lives as long as the module: the C libraries hold no reference to it."""


def _route_logs(callback: object) -> None:
    """mtmd's helper log takes mtmd's and clip's with it; llama's takes ggml's."""
    C.llama_log_set(callback, ctypes.c_void_p(0))
    M.mtmd_helper_log_set(callback, ctypes.c_void_p(0))


_route_logs(_LOG_CALLBACK)

# Libraries may still log while the process ends, when no Python function may be called any more.
atexit.register(_route_logs, C.llama_log_callback(0))

C.llama_backend_init()


@contextmanager
def _long_call() -> Iterator[list[str]]:
    """Gives the error lines that are logged meanwhile. Ctrl-C takes effect when the call is over.

    The libraries log in the middle of their work; what Python raises in there is printed and lost.
    """
    _noted.clear()
    usual = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or not callable(usual):
        yield _noted
        return
    came: list[FrameType | None] = []
    signal.signal(signal.SIGINT, lambda _, frame: came.append(frame))
    try:
        yield _noted
    finally:
        signal.signal(signal.SIGINT, usual)
    if came:
        usual(signal.SIGINT, came[0])


def _first_reason(lines: Sequence[str], fallback: str) -> str:
    """The end of the first error line: what is wrong, without the functions and the path in front."""
    parts = [part.strip() for part in lines[0].split(": ")] if lines else []
    return next((part for part in reversed(parts) if " " in part), fallback)


def gpu_offered() -> bool:
    """Whether this build of llama.cpp can compute on a GPU that is there."""
    return bool(C.llama_supports_gpu_offload())


def available_threads() -> int:
    """Processors that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def amx_present() -> bool:
    """Whether llama.cpp would use Intel's matrix tiles for quantised weights.

    Built with some compilers it loads an invalid tile configuration, and the process ends
    (ggml-org/llama.cpp, issue 20824 and pull request 26954, open as of 0.3.36).
    """
    cpu = Path("/proc/cpuinfo")
    return cpu.exists() and "amx_tile" in cpu.read_text(errors="replace")


class LanguageModel:
    """A text model and its vocabulary."""

    def __init__(self, path: Path, *, gpu_layers: int) -> None:
        """Loads (maps) the GGUF file at `path`; `gpu_layers` 0 keeps off the GPU, -1 means all.

        Raises:
            CheckpointInvalid: llama.cpp refuses the file.
        """
        params = C.llama_model_default_params()
        params.n_gpu_layers = gpu_layers
        params.use_extra_bufts = not amx_present()
        no_devices = (ctypes.c_void_p * 1)(None)
        if gpu_layers == 0:
            params.devices = ctypes.cast(no_devices, ctypes.c_void_p)
        with _long_call() as reasons:
            self.handle = C.llama_model_load_from_file(str(path).encode(), params)
        if not self.handle:
            raise CheckpointInvalid(path, _first_reason(reasons, "llama.cpp cannot load it"))
        self.vocabulary = C.llama_model_get_vocab(self.handle)
        self.vocabulary_size = int(C.llama_vocab_n_tokens(self.vocabulary))
        self.width = int(C.llama_model_n_embd_inp(self.handle))
        heads, kept_heads = C.llama_model_n_head(self.handle), C.llama_model_n_head_kv(self.handle)
        rows = C.llama_model_n_layer(self.handle) * kept_heads * (self.width // max(1, heads))
        self.cell_bytes = 2 * 2 * int(rows)
        """Memory that one token takes in a context: keys and values, float16."""

    def close(self) -> None:
        """Frees the model."""
        if self.handle:
            C.llama_model_free(self.handle)
            self.handle = None

    def tokenize(self, text: str, *, special: bool = False) -> list[int]:
        """Token ids of `text`; with `special`, markers such as <|im_end|> become their token."""
        raw = text.encode()
        room = len(raw) + 1
        tokens = (C.llama_token * room)()
        count = C.llama_tokenize(self.vocabulary, raw, len(raw), tokens, room, False, special)
        if count < 0:
            raise EngineFailed("llama.cpp cannot tokenise the text")
        return list(tokens[:count])

    def piece(self, token: int) -> bytes:
        """The bytes that `token` stands for."""
        room = 64
        while True:
            buffer = ctypes.create_string_buffer(room)
            length = C.llama_token_to_piece(self.vocabulary, token, buffer, room, 0, True)
            if length >= 0:
                return buffer.raw[:length]
            room = -length

    def ends_answer(self, token: int) -> bool:
        """Whether `token` ends a turn."""
        return bool(C.llama_vocab_is_eog(self.vocabulary, token))


@dataclass(frozen=True, slots=True)
class Run:
    """Tokens of one sequence, to be decoded together with the runs of others."""

    sequence: int
    position: int
    """Of the first token; the others follow one by one."""
    tokens: Sequence[int]
    first_output: int
    """Logits are wanted behind this token of the run and behind all later ones."""


class Context:
    """The working memory of a model: sequences of positions with their keys and values.

    The cells are shared by all sequences (`kv_unified`), so that a fork costs nothing.
    """

    def __init__(
        self, model: LanguageModel, *, cells: int, sequences: int, batch: int, outputs: int, threads: int
    ) -> None:
        """Room for `cells` tokens in up to `sequences` sequences, `batch` tokens and `outputs`
        rows of logits at once.

        Raises:
            EngineFailed: there is not enough memory.
        """
        params = C.llama_context_default_params()
        params.n_ctx = cells
        params.n_batch = batch
        params.n_ubatch = min(batch, params.n_ubatch)
        params.n_seq_max = sequences
        # llama.cpp ends the process if there is not at least one for each sequence.
        params.n_outputs_max = max(outputs, sequences)
        params.n_threads = params.n_threads_batch = threads
        params.kv_unified = True
        params.no_perf = True
        with _long_call() as reasons:
            self.handle = C.llama_init_from_model(model.handle, params)
        if not self.handle:
            raise EngineFailed(_first_reason(reasons, "no context can be made"))
        self._memory = C.llama_get_memory(self.handle)
        self._vocabulary_size = model.vocabulary_size
        self.cells = int(C.llama_n_ctx(self.handle))
        self.batch = int(C.llama_n_batch(self.handle))
        """Tokens that one `decode` takes: as many as asked for, but no more than cells."""
        self._batch = C.llama_batch_init(self.batch, 0, 1)

    def close(self) -> None:
        """Frees the context."""
        if self.handle:
            C.llama_batch_free(self._batch)
            C.llama_free(self.handle)
            self.handle = None

    def decode(self, runs: Sequence[Run]) -> list[list[FloatArray]]:
        """Logits of `runs`, at most `batch` tokens: for each run a row (vocabulary,) an output.

        The rows are views that the next call overwrites.

        Raises:
            EngineFailed: llama.cpp could not compute them.
        """
        batch, filled = self._batch, 0
        if sum(len(run.tokens) for run in runs) > self.batch:
            raise EngineFailed(f"more than {self.batch} tokens in a batch")
        for run in runs:
            for index, token in enumerate(run.tokens):
                batch.token[filled] = token
                batch.pos[filled] = run.position + index
                batch.n_seq_id[filled] = 1
                batch.seq_id[filled][0] = run.sequence
                batch.logits[filled] = index >= run.first_output
                filled += 1
        batch.n_tokens = filled
        with _long_call():
            status = C.llama_decode(self.handle, batch)
        if status != 0:
            raise EngineFailed(f"llama.cpp could not decode {filled} tokens (status {status})")
        rows: list[list[FloatArray]] = []
        start = 0
        for run in runs:
            rows.append([self._logits(start + i) for i in range(run.first_output, len(run.tokens))])
            start += len(run.tokens)
        return rows

    def _logits(self, index: int) -> FloatArray:
        row = C.llama_get_logits_ith(self.handle, index)
        return np.ctypeslib.as_array(row, (self._vocabulary_size,))

    def fork(self, source: int, target: int) -> None:
        """Makes the empty sequence `target` begin with all that `source` holds."""
        C.llama_memory_seq_cp(self._memory, source, target, -1, -1)

    def drop(self, sequence: int, position: int = 0) -> None:
        """Forgets what `sequence` holds from `position` on."""
        C.llama_memory_seq_rm(self._memory, sequence, position, -1)

    def save(self, sequence: int) -> State:
        """What `sequence` holds, for `restore`."""
        size = C.llama_state_seq_get_size(self.handle, sequence)
        state = np.empty(size, np.uint8)
        written = C.llama_state_seq_get_data(self.handle, _bytes_of(state), size, sequence)
        if written != size:
            raise EngineFailed("llama.cpp could not save a sequence")
        return state

    def restore(self, sequence: int, state: State) -> None:
        """Puts what `save` gave into the empty sequence `sequence`."""
        if not C.llama_state_seq_set_data(self.handle, _bytes_of(state), state.size, sequence):
            raise EngineFailed("llama.cpp could not restore a sequence")


class Vision:
    """A vision projector, and the way of its embeddings into a context."""

    def __init__(self, path: Path, model: LanguageModel, *, gpu: bool, threads: int) -> None:
        """Loads the GGUF file at `path` for `model`.

        Raises:
            CheckpointInvalid: mtmd refuses the file, it does not see, or it does not fit `model`.
        """
        params = M.mtmd_context_params_default()
        params.use_gpu = gpu
        params.n_threads = threads
        params.print_timings = False
        # A warm-up image is as large as 1288 x 1288 whatever is asked for later.
        params.warmup = False
        params.image_min_tokens = 1
        params.image_max_tokens = IMAGE_TOKENS_LIMIT
        with _long_call() as reasons:
            self.handle = M.mtmd_init_from_file(str(path).encode(), model.handle, params)
        if not self.handle:
            raise CheckpointInvalid(path, _first_reason(reasons, "llama.cpp cannot load it"))
        self._marker = M.mtmd_get_marker(self.handle)
        if not M.mtmd_support_vision(self.handle):
            self.close()
            raise CheckpointInvalid(path, "a projector that does not see images")

    def close(self) -> None:
        """Frees the projector."""
        if self.handle:
            M.mtmd_free(self.handle)
            self.handle = None

    def put(self, context: Context, image: ImageArray, sequence: int, position: int) -> int:
        """Encodes `image` into `sequence` from `position` on, its two markers with it.

        Args:
            context: of the model that the projector was loaded for.
            image: (h, w, 3) uint8 RGB, both sides multiples of 28.

        Returns:
            The next free position: with M-RoPE an image takes as many as its longer side has tokens.

        Raises:
            EngineFailed: not enough room or memory.
        """
        chunks = M.mtmd_input_chunks_init()
        try:
            after = C.llama_pos(position)
            with _long_call() as reasons:
                self._split(chunks, image)
                status = M.mtmd_helper_eval_chunks(
                    self.handle,
                    context.handle,
                    chunks,
                    position,
                    sequence,
                    context.batch,
                    False,
                    ctypes.byref(after),
                )
            if status != 0:
                raise EngineFailed(_first_reason(reasons, f"an image could not be encoded (status {status})"))
            return int(after.value)
        finally:
            M.mtmd_input_chunks_free(chunks)

    def _split(self, chunks: object, image: ImageArray) -> None:
        """Fills `chunks` with marker, image and marker, as mtmd wants them."""
        pixels = np.ascontiguousarray(image)
        bitmap = M.mtmd_bitmap_init(image.shape[1], image.shape[0], _bytes_of(pixels))
        try:
            text = M.mtmd_input_text(self._marker, len(self._marker), False, True)
            bitmaps = (M.mtmd_bitmap_p_ctypes * 1)(bitmap)
            status = M.mtmd_tokenize(self.handle, chunks, ctypes.byref(text), bitmaps, 1)
        finally:
            M.mtmd_bitmap_free(bitmap)
        if status != 0:
            raise EngineFailed(f"mtmd could not take an image in (status {status})")


class Grammar:
    """A GBNF grammar that follows an answer token by token."""

    def __init__(self, model: LanguageModel, rules: str) -> None:
        """Begins at the rule `root` of `rules`."""
        self.handle = C.llama_sampler_init_grammar(model.vocabulary, rules.encode(), b"root")
        if not self.handle:
            raise EngineFailed("llama.cpp does not accept the grammar")

    def close(self) -> None:
        """Frees the grammar."""
        if self.handle:
            C.llama_sampler_free(self.handle)
            self.handle = None

    def best(self, logits: FloatArray) -> int:
        """The token of the highest logit among those that may come next."""
        # The model's own choice is nearly always allowed, and asking about one token is cheap.
        first = int(logits.argmax())
        if self._allowed(np.array([first]))[0]:
            return first
        likely = np.argpartition(-logits, min(64, len(logits) - 1))[:64]
        for tokens in (np.sort(likely), np.arange(len(logits))):
            allowed = tokens[self._allowed(tokens)]
            if len(allowed):
                return int(allowed[logits[allowed].argmax()])
        raise EngineFailed("no token of the vocabulary can go on with the answer")

    def accept(self, token: int) -> None:
        """Goes on behind `token`, which must be allowed."""
        C.llama_sampler_accept(self.handle, token)

    def _allowed(self, tokens: NDArray[np.int64]) -> NDArray[np.bool_]:
        """(len(tokens),) whether each may come next."""
        candidates = np.zeros(len(tokens), [("id", np.int32), ("logit", np.float32), ("p", np.float32)])
        candidates["id"] = tokens
        data = ctypes.cast(candidates.ctypes.data, C.llama_token_data_p)
        array = C.llama_token_data_array(data, len(tokens), -1, False)
        C.llama_sampler_apply(self.handle, ctypes.byref(array))
        return np.asarray(np.isfinite(candidates["logit"]))


def _bytes_of(array: NDArray[np.uint8]) -> "ctypes._Pointer[ctypes.c_uint8]":
    """The C view of a contiguous array."""
    return array.ctypes.data_as(ctypes.POINTER(ctypes.c_uint8))
