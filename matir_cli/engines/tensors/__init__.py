"""Readers of weight files: named tensors, without running anything in a file.

Torch checkpoints, TorchScript archives and safetensors. The files come from the internet and are not
trusted: no code in them is run, offsets and sizes are checked, and no reader allocates much more than
the file's size. May import `errors` and `records`; used by the `clip` and `sam2` engines.
"""
