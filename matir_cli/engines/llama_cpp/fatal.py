"""Fatal errors of llama.cpp: one line on standard error instead of an abort.

A C library cannot raise. Where ggml finds a condition violated, or a C++ exception is not caught (such as for
lack of memory), the process would end by SIGABRT. The hooks here end it at once with a message and the exit
code of an error instead; nothing after them runs, and the gallery is as safe as after SIGKILL.
"""

import contextlib
import ctypes
import os
import re
import sys

from llama_cpp.llama_cpp import _lib

EXIT_CODE = 2
"""Exit code, the same as `cli.exit_codes.ERROR`."""

_REMEDY = "Check its files with: matir models verify; or search with stage 1 alone: --no-rerank."


def _end_process(reason: str) -> None:
    """Print a line and end the process; called in the middle of the library's work."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):  # whatever is wrong with them, the process must end
            stream.flush()
    line = f"matir: llama.cpp cannot go on: {reason}. {_REMEDY}\n"
    with contextlib.suppress(OSError):
        os.write(2, line.encode("ascii", "replace"))
    os._exit(EXIT_CODE)


def _describe_abort(message: bytes) -> str:
    """Return ggml's message, "/path/file.c:12: reason", in one line without the path."""
    text = re.sub(r"[^ -~]+", " ", message.decode(errors="replace")).strip()
    return re.sub(r"^\S*/", "", text)[:300]


_ON_ABORT = ctypes.CFUNCTYPE(None, ctypes.c_char_p)(lambda message: _end_process(_describe_abort(message)))

_ON_TERMINATE = ctypes.CFUNCTYPE(None)(
    lambda: _end_process("it ran out of memory, or met a fault that it does not handle")
)


def install_hooks() -> None:
    """Replace the ends of the process that ggml and C++ would choose."""
    _lib.ggml_set_abort_callback.argtypes = [ctypes.c_void_p]
    _lib.ggml_set_abort_callback.restype = ctypes.c_void_p
    _lib.ggml_set_abort_callback(_ON_ABORT)
    # std::set_terminate, which is found through the library's dependencies; not on Windows.
    with contextlib.suppress(AttributeError):
        set_terminate = _lib._ZSt13set_terminatePFvvE
        set_terminate.argtypes = [ctypes.c_void_p]
        set_terminate.restype = ctypes.c_void_p
        set_terminate(_ON_TERMINATE)
