"""llama.cpp: typed bindings and a reader of GGUF headers.

The only package that calls the C library through llama-cpp-python's low-level functions. May import
`errors` and `records`; used by the `qwen_vl` engine, and by `matir doctor` to report on the hardware.
"""
