"""CLIP and Alpha-CLIP: text, region and image encoders.

`text_encoder` and `tokenizer` run without torch, so that a query starts fast; `alpha_encoder` encodes
regions; `alpha_dense`, `image_encoder` and `checkpoint` serve the evaluation's CLIP baselines. May
import `tensors` and the modules at the root of `engines`; loaded by the registry alone.
"""
