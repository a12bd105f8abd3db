"""Prompts of the Qwen2.5-VL judge, and the `[judge.options]` of its model sets.

The questions are those of "Mask-aware Text-to-Image Retrieval" (Shen et al., ICMR 2025), inside
Qwen2.5-VL's chat template.
"""

from typing import Annotated

import msgspec

from matir_cli.engines.options import EngineOptions
from matir_cli.engines.qwen_vl.boxes import ANSWER_GRAMMAR, FACTOR

HEAD = "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\n"
"""Prompt before the image: the system line and the opening of the user's turn."""

RERANK = "Does this image contain the described object? Answer True or False.\nObject description: "
"""Rerank question, to be followed by the query."""

GROUND = "Locate the described object, output the bbox coordinates in JSON format.\nObject description: "
"""Grounding question, to be followed by the query."""

TAIL = "<|im_end|>\n<|im_start|>assistant\n"
"""Prompt after the question: the end of the user's turn and the opening of the answer."""


class QwenVlOptions(EngineOptions, frozen=True):
    """Options of the judge in a model set."""

    IDENTITY_OPTIONS = ("min_pixels", "max_pixels", "ground_min_pixels", "max_answer_tokens")
    """Options that change the judge's answers; the others change speed and memory."""
    METHOD = "".join((HEAD, RERANK, GROUND, TAIL, ANSWER_GRAMMAR))
    """Prompts and answer grammar, on which the answers depend as well."""

    min_pixels: Annotated[int, msgspec.Meta(ge=FACTOR**2, le=12845056)] = 4 * FACTOR**2
    """Smaller photos are enlarged to at least this many pixels; 3136 in Qwen's own processor."""
    max_pixels: Annotated[int, msgspec.Meta(ge=FACTOR**2, le=12845056)] = 1280 * FACTOR**2
    """Larger photos are shrunk to at most this many pixels. 1280 tokens is the upper end of what
    Qwen2.5-VL's model card recommends, and does not shrink a photo of 1024 x 768 working pixels."""
    ground_min_pixels: Annotated[int, msgspec.Meta(ge=0, le=12845056)] = 0
    """For boxes, smaller photos are enlarged to at least this many pixels; 0: shown as for True or False.
    At most `max_pixels`. llama.cpp advises Qwen's models to have 1024 tokens, 802816 pixels, for boxes
    (its issue 16842). A photo that is enlarged is encoded a second time."""
    context_tokens: Annotated[int, msgspec.Meta(ge=0, le=1 << 20)] = 0
    """Tokens that the context holds; 0 allocates what `grounds_at_once` photos of the largest size need."""
    grounds_at_once: Annotated[int, msgspec.Meta(ge=1, le=64)] = 8
    """Number of grounding answers generated together."""
    prefix_cache_mib: Annotated[int, msgspec.Meta(ge=0, le=1 << 20)] = 2048
    """Main memory for the cache of encoded photos, in MiB; the 7B model needs 56 KiB per token."""
    n_gpu_layers: Annotated[int, msgspec.Meta(ge=-1)] = -1
    """Layers to run on the GPU, if there is one; -1 means all."""
    threads: Annotated[int, msgspec.Meta(ge=0, le=1024)] = 0
    """CPU threads; 0 uses all processors that the process may run on."""
    max_answer_tokens: Annotated[int, msgspec.Meta(ge=16, le=4096)] = 256
    """Tokens after which an answer is cut off; a box with its label takes 30 to 40."""
