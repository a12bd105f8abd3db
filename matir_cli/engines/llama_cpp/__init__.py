"""llama.cpp: typed bindings and a reader of GGUF headers.

The only package that calls the C library through llama-cpp-python's low-level functions. May import
`errors` and `records`; used by the `qwen_vl` engine, and by `matir doctor` to report on the hardware.
"""

import os

# Read by the library when it is loaded: without it, an abort prints some 140 lines of C functions.
os.environ.setdefault("GGML_NO_BACKTRACE", "1")

# By default cuBLAS computes float16 weights in float16, in which Qwen2.5-VL's vision tower overflows for some
# photos (ggml-org/llama.cpp, issue 17534). Read at each matrix product; a user's own value is kept.
os.environ.setdefault("GGML_CUDA_CUBLAS_COMPUTE_TYPE", "f32")
