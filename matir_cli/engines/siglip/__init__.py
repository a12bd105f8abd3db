"""SigLIP 2: text and image towers, from checkpoints of transformers' SiglipModel and Siglip2Model.

`text_encoder` and `tokenizer` run without torch, so that a query starts fast. May import `tensors` and the
modules at the root of `engines`; used by `region_tokens`.
"""
