"""The build of llama.cpp: its backends, and the processor that it meets."""

import ctypes
from pathlib import Path

from llama_cpp.llama_cpp import _lib


def backend_names() -> list[str]:
    """Return the names of the backends that this build of llama.cpp contains, such as "CUDA" and "CPU"."""
    _lib.ggml_backend_reg_count.restype = ctypes.c_size_t
    _lib.ggml_backend_reg_get.argtypes = [ctypes.c_size_t]
    _lib.ggml_backend_reg_get.restype = ctypes.c_void_p
    _lib.ggml_backend_reg_name.argtypes = [ctypes.c_void_p]
    _lib.ggml_backend_reg_name.restype = ctypes.c_char_p
    handles = [_lib.ggml_backend_reg_get(number) for number in range(_lib.ggml_backend_reg_count())]
    return [_lib.ggml_backend_reg_name(handle).decode(errors="replace") for handle in handles]


def amx_present() -> bool:
    """Return True if the CPU has AMX, which llama.cpp would use for quantised weights.

    Built with some compilers, llama.cpp loads an invalid AMX tile configuration and the process dies
    (ggml-org/llama.cpp, issue 20824 and pull request 26954, open as of 0.3.36).
    """
    cpu_info = Path("/proc/cpuinfo")
    return cpu_info.exists() and "amx_tile" in cpu_info.read_text(errors="replace")
