"""Typed bindings to llama.cpp, on llama-cpp-python's low-level functions.

`LanguageModel`, `Context` and `VisionProjector` own one C object each. `close` frees it and may be called
twice; close the other objects before the `LanguageModel` that they were made from. The logs of
llama.cpp, mtmd and clip go to Python's `logging` at DEBUG, under this module's name, and never directly
to stderr.
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

import llama_cpp.llama_cpp as C  # noqa: N812 - the C library
import llama_cpp.mtmd_cpp as M  # noqa: N812
import numpy as np
from numpy.typing import NDArray

from matir_cli.engines.llama_cpp.build import amx_present
from matir_cli.engines.llama_cpp.fatal import install_hooks
from matir_cli.errors import CheckpointInvalid, EngineFailed
from matir_cli.records import FloatArray, ImageArray

SequenceState = NDArray[np.uint8]
"""Contents of one sequence of a context, as llama.cpp serialises them."""

IMAGE_TOKENS_LIMIT = 16384
"""Largest image in tokens, Qwen-VL's own maximum; mtmd would scale a larger one down."""

_log = logging.getLogger(__name__)

_ERROR_LEVEL = 4
"""`GGML_LOG_LEVEL_ERROR` of ggml.h."""

_error_lines: list[str] = []
"""Error lines logged since the last long call began."""


def _receive_log(level: int, text: bytes, _data: object) -> None:
    """Pass a line of the C libraries' logs on to `logging`, and keep it if it is an error."""
    line = text.decode(errors="replace").rstrip("\n")
    if level == _ERROR_LEVEL:
        _error_lines.append(line)
    _log.debug("%s", line)


_LOG_CALLBACK = C.llama_log_callback(_receive_log)
"""Kept alive by the module: the C libraries hold no reference to it."""


def _route_logs(callback: object) -> None:
    """Send llama.cpp's log, which includes ggml's, and mtmd's, which includes clip's, to `callback`."""
    C.llama_log_set(callback, ctypes.c_void_p(0))
    M.mtmd_helper_log_set(callback, ctypes.c_void_p(0))


_route_logs(_LOG_CALLBACK)

# The libraries may still log while the process exits, when Python functions can no longer be called.
atexit.register(_route_logs, C.llama_log_callback(0))

C.llama_backend_init()

install_hooks()


@contextmanager
def _long_call() -> Iterator[list[str]]:
    """Guard a long call into the C libraries; yield the error lines that it logs.

    Ctrl-C takes effect after the call. The libraries call the log function in the middle of their work,
    and an exception raised there, such as KeyboardInterrupt, would be printed and lost.
    """
    _error_lines.clear()
    handler = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or not callable(handler):
        yield _error_lines
        return
    interrupts: list[FrameType | None] = []
    signal.signal(signal.SIGINT, lambda _, frame: interrupts.append(frame))
    try:
        yield _error_lines
    finally:
        signal.signal(signal.SIGINT, handler)
    if interrupts:
        handler(signal.SIGINT, interrupts[0])


def _reason(lines: Sequence[str], fallback: str) -> str:
    """Return the end of the first error line, without the function names and the path before it."""
    parts = [part.strip() for part in lines[0].split(": ")] if lines else []
    return next((part for part in reversed(parts) if " " in part), fallback)


def gpu_available() -> bool:
    """Return True if this build of llama.cpp supports a GPU and the machine has one."""
    return bool(C.llama_supports_gpu_offload())


def available_threads() -> int:
    """Return the number of processors that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class LanguageModel:
    """A text model and its vocabulary."""

    def __init__(self, path: Path, *, gpu_layers: int) -> None:
        """Map the GGUF file at `path`; `gpu_layers` 0 uses the CPU alone, -1 puts all layers on the GPU.

        Raises:
            CheckpointInvalid: llama.cpp cannot load the file.
        """
        params = C.llama_model_default_params()
        params.n_gpu_layers = gpu_layers
        params.use_extra_bufts = not amx_present()
        no_devices = (ctypes.c_void_p * 1)(None)
        if gpu_layers == 0:
            params.devices = ctypes.cast(no_devices, ctypes.c_void_p)
        with _long_call() as reasons:
            self.handle = C.llama_model_load_from_file(os.fsencode(path), params)
        if not self.handle:
            raise CheckpointInvalid(path, _reason(reasons, "llama.cpp cannot load it"))
        self.vocabulary = C.llama_model_get_vocab(self.handle)
        self.vocabulary_size = int(C.llama_vocab_n_tokens(self.vocabulary))
        self.width = int(C.llama_model_n_embd(self.handle))
        """Length of a token embedding."""
        layers, kv_heads = C.llama_model_n_layer(self.handle), C.llama_model_n_head_kv(self.handle)
        self.bytes_per_token = 2 * 2 * int(layers * kv_heads) * self._head_length()
        """Memory of one token in a context: its keys and values, float16."""

    def close(self) -> None:
        """Free the model."""
        if self.handle:
            C.llama_model_free(self.handle)
            self.handle = None

    def _head_length(self) -> int:
        """Return the length of a key of one attention head, which need not follow from the width."""
        given = self._metadata(f"{self._metadata('general.architecture')}.attention.key_length")
        return int(given) if given else self.width // max(1, C.llama_model_n_head(self.handle))

    def _metadata(self, key: str) -> str:
        """Return the file's value of `key` as text, at most 255 bytes; empty if the file has none."""
        buffer = ctypes.create_string_buffer(256)
        C.llama_model_meta_val_str(self.handle, key.encode(), buffer, len(buffer))
        return buffer.value.decode(errors="replace")

    def tokenize(self, text: str, *, special: bool = False) -> list[int]:
        """Return the token ids of `text`; with `special`, markers such as <|im_end|> become one token."""
        raw = text.encode()
        capacity = len(raw) + 1
        tokens = (C.llama_token * capacity)()
        count = C.llama_tokenize(self.vocabulary, raw, len(raw), tokens, capacity, False, special)
        if count < 0:
            raise EngineFailed("llama.cpp cannot tokenise the text")
        return list(tokens[:count])

    def token_bytes(self, token: int) -> bytes:
        """Return the bytes that `token` stands for."""
        capacity = 64
        while True:
            buffer = ctypes.create_string_buffer(capacity)
            length = C.llama_token_to_piece(self.vocabulary, token, buffer, capacity, 0, True)
            if length >= 0:
                return buffer.raw[:length]
            capacity = -length

    def is_end_of_turn(self, token: int) -> bool:
        """Return True if `token` ends the model's turn."""
        return bool(C.llama_vocab_is_eog(self.vocabulary, token))


@dataclass(frozen=True, slots=True)
class TokenRun:
    """Consecutive tokens of one sequence, decoded in one batch with the runs of other sequences."""

    sequence: int
    """Number of the sequence in the context."""
    position: int
    """Position of the first token; the others follow it."""
    tokens: Sequence[int]
    """Token ids."""
    first_output: int
    """Index in `tokens` of the first token to return logits for; all later ones return logits too."""


class Context:
    """A llama.cpp context: sequences of tokens, with the keys and values of each position.

    All sequences share the same cells (`kv_unified`), so that a fork costs nothing.
    """

    def __init__(
        self, model: LanguageModel, *, cells: int, sequences: int, batch: int, outputs: int, threads: int
    ) -> None:
        """Allocate the context.

        Args:
            model: the model that will decode.
            cells: tokens that the context holds, of all sequences together.
            sequences: number of sequences.
            batch: tokens in one `decode`, at most.
            outputs: rows of logits from one `decode`, at most.
            threads: CPU threads to compute with.

        Raises:
            EngineFailed: there is not enough memory.
        """
        params = C.llama_context_default_params()
        params.n_ctx = cells
        params.n_batch = batch
        params.n_ubatch = min(batch, params.n_ubatch)
        params.n_seq_max = sequences
        # llama.cpp aborts the process if there is not at least one per sequence.
        params.n_outputs_max = max(outputs, sequences)
        params.n_threads = params.n_threads_batch = threads
        params.kv_unified = True
        params.no_perf = True
        with _long_call() as reasons:
            self.handle = C.llama_init_from_model(model.handle, params)
        if not self.handle:
            raise EngineFailed(_reason(reasons, "no context can be made"))
        self._memory = C.llama_get_memory(self.handle)
        self._vocabulary_size = model.vocabulary_size
        self.cells = int(C.llama_n_ctx(self.handle))
        """Tokens that the context holds."""
        self.batch_limit = int(C.llama_n_batch(self.handle))
        """Tokens in one `decode`: `batch`, but no more than `cells`."""
        self._batch = C.llama_batch_init(self.batch_limit, 0, 1)

    def close(self) -> None:
        """Free the context."""
        if self.handle:
            C.llama_batch_free(self._batch)
            C.llama_free(self.handle)
            self.handle = None

    def decode(self, runs: Sequence[TokenRun]) -> list[list[FloatArray]]:
        """Decode `runs`, at most `batch_limit` tokens in all.

        Returns:
            Per run, one row (vocabulary,) float32 of logits per output. The rows are views that the next
            call overwrites.

        Raises:
            EngineFailed: llama.cpp could not compute.
        """
        count = self._fill_batch(runs)
        with _long_call():
            status = C.llama_decode(self.handle, self._batch)
        if status != 0:
            raise EngineFailed(f"llama.cpp could not decode {count} tokens (status {status})")
        logits: list[list[FloatArray]] = []
        start = 0
        for run in runs:
            logits.append([self._logits_at(start + i) for i in range(run.first_output, len(run.tokens))])
            start += len(run.tokens)
        return logits

    def _fill_batch(self, runs: Sequence[TokenRun]) -> int:
        """Write the tokens of `runs` into the batch, one run after the other; return their number."""
        if sum(len(run.tokens) for run in runs) > self.batch_limit:
            raise EngineFailed(f"more than {self.batch_limit} tokens in a batch")
        batch, filled = self._batch, 0
        for run in runs:
            for index, token in enumerate(run.tokens):
                batch.token[filled] = token
                batch.pos[filled] = run.position + index
                batch.n_seq_id[filled] = 1
                batch.seq_id[filled][0] = run.sequence
                batch.logits[filled] = index >= run.first_output
                filled += 1
        batch.n_tokens = filled
        return filled

    def _logits_at(self, index: int) -> FloatArray:
        """Return (vocabulary,) float32: the logits of token `index` of the batch, as a view."""
        row = C.llama_get_logits_ith(self.handle, index)
        return np.ctypeslib.as_array(row, (self._vocabulary_size,))

    def fork(self, source: int, target: int) -> None:
        """Make the empty sequence `target` begin with everything in `source`."""
        C.llama_memory_seq_cp(self._memory, source, target, -1, -1)

    def drop(self, sequence: int, position: int = 0) -> None:
        """Remove the tokens of `sequence` from `position` on."""
        C.llama_memory_seq_rm(self._memory, sequence, position, -1)

    def drop_all(self) -> None:
        """Remove all sequences; the next one begins at the first cell."""
        C.llama_memory_clear(self._memory, False)

    def clear(self) -> None:
        """Remove all sequences, and set the numbers of the context to zero.

        Cells that are not in use are masked out, but a number in them that is not finite would still spoil
        all others: zero times infinity is not a number.
        """
        C.llama_memory_clear(self._memory, True)

    def save(self, sequence: int) -> SequenceState:
        """Return the contents of `sequence`, for `restore`."""
        size = C.llama_state_seq_get_size(self.handle, sequence)
        state = np.empty(size, np.uint8)
        with _long_call():
            written = C.llama_state_seq_get_data(self.handle, _as_c_bytes(state), size, sequence)
        if written != size:
            raise EngineFailed("llama.cpp could not save a sequence")
        return state

    def restore(self, sequence: int, state: SequenceState) -> None:
        """Put the result of `save` into the empty sequence `sequence`."""
        with _long_call():
            done = C.llama_state_seq_set_data(self.handle, _as_c_bytes(state), state.size, sequence)
        if not done:
            raise EngineFailed("llama.cpp could not restore a sequence")


class VisionProjector:
    """A vision tower with its projector, which embeds images into a context."""

    def __init__(self, path: Path, model: LanguageModel, *, gpu: bool, threads: int) -> None:
        """Load the GGUF file at `path` for `model`.

        Raises:
            CheckpointInvalid: mtmd cannot load the file, it has no vision tower, or it does not fit
                `model`.
        """
        params = M.mtmd_context_params_default()
        params.use_gpu = gpu
        params.n_threads = threads
        params.print_timings = False
        # A warm-up image has 1288 x 1288 pixels, however small the images are later.
        params.warmup = False
        params.image_min_tokens = 1
        params.image_max_tokens = IMAGE_TOKENS_LIMIT
        with _long_call() as reasons:
            self.handle = M.mtmd_init_from_file(os.fsencode(path), model.handle, params)
        if not self.handle:
            raise CheckpointInvalid(path, _reason(reasons, "llama.cpp cannot load it"))
        self._marker = M.mtmd_get_marker(self.handle)
        if not M.mtmd_support_vision(self.handle):
            self.close()
            raise CheckpointInvalid(path, "a projector that cannot encode images")

    def close(self) -> None:
        """Free the projector."""
        if self.handle:
            M.mtmd_free(self.handle)
            self.handle = None

    def encode_image(self, context: Context, image: ImageArray, sequence: int, position: int) -> int:
        """Append `image`, between its two markers, to `sequence` at `position`.

        Args:
            context: a context of the model that the projector was loaded for.
            image: (h, w, 3) uint8 RGB, both sides multiples of the model's factor, 28 or 32.
            sequence: number of the sequence.
            position: first free position of the sequence.

        Returns:
            The next free position. With M-RoPE an image takes as many positions as its longer side has
            tokens.

        Raises:
            EngineFailed: the context is full, or there is not enough memory.
        """
        chunks = M.mtmd_input_chunks_init()
        try:
            next_position = C.llama_pos(position)
            with _long_call() as reasons:
                self._fill_chunks(chunks, image)
                status = M.mtmd_helper_eval_chunks(
                    self.handle,
                    context.handle,
                    chunks,
                    position,
                    sequence,
                    context.batch_limit,
                    False,
                    ctypes.byref(next_position),
                )
            if status != 0:
                raise EngineFailed(_reason(reasons, f"an image could not be encoded (status {status})"))
            return int(next_position.value)
        finally:
            M.mtmd_input_chunks_free(chunks)

    def _fill_chunks(self, chunks: object, image: ImageArray) -> None:
        """Fill mtmd's input `chunks` with the start marker, the image and the end marker."""
        pixels = np.ascontiguousarray(image)
        bitmap = M.mtmd_bitmap_init(image.shape[1], image.shape[0], _as_c_bytes(pixels))
        try:
            text = M.mtmd_input_text(self._marker, len(self._marker), False, True)
            bitmaps = (M.mtmd_bitmap_p_ctypes * 1)(bitmap)
            status = M.mtmd_tokenize(self.handle, chunks, ctypes.byref(text), bitmaps, 1)
        finally:
            M.mtmd_bitmap_free(bitmap)
        if status != 0:
            raise EngineFailed(f"mtmd could not read an image (status {status})")


def _as_c_bytes(array: NDArray[np.uint8]) -> "ctypes._Pointer[ctypes.c_uint8]":
    """Return a C pointer to the bytes of a contiguous array."""
    return array.ctypes.data_as(ctypes.POINTER(ctypes.c_uint8))
