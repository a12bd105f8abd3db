"""The `[judge]` options of a model set with a Qwen2.5-VL, and the words it is asked in.

The questions are those of "Mask-aware Text-to-Image Retrieval" (Shen et al., ICMR 2025), around
them stands Qwen2.5-VL's chat template.
"""

from typing import Annotated

import msgspec

from matir_cli.engines.options import EngineOptions
from matir_cli.engines.qwen_vl.boxes import ANSWER_GRAMMAR, FACTOR

HEAD = "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\n"

RERANK = "Does this image contain the described object? Answer True or False.\nObject description: "

GROUND = "Locate the described object, output the bbox coordinates in JSON format.\nObject description: "

TAIL = "<|im_end|>\n<|im_start|>assistant\n"


class QwenVlOptions(EngineOptions, frozen=True):
    """Settings of the judge in a model set."""

    SHAPING = ("min_pixels", "max_pixels", "max_answer_tokens")
    """What the judge's answers depend on; the rest changes speed and memory."""
    METHOD = "".join((HEAD, RERANK, GROUND, TAIL, ANSWER_GRAMMAR))
    """What they depend on that cannot be set: how it is asked, and in which form it may answer."""

    min_pixels: Annotated[int, msgspec.Meta(ge=FACTOR**2, le=12845056)] = 4 * FACTOR**2
    """Photos are looked at with at least this many pixels; Qwen's processor has 3136."""
    max_pixels: Annotated[int, msgspec.Meta(ge=FACTOR**2, le=12845056)] = 1280 * FACTOR**2
    """And at most with this many. 1280 tokens is the upper end that Qwen2.5-VL's model card
    recommends, and does not shrink a photo of 1024 x 768 working pixels."""
    context_tokens: Annotated[int, msgspec.Meta(ge=0, le=1 << 20)] = 0
    """Cells of the context; 0 takes what `grounds_at_once` of the largest photos need."""
    grounds_at_once: Annotated[int, msgspec.Meta(ge=1, le=64)] = 8
    """Boxes of so many photos are written together."""
    prefix_cache_mib: Annotated[int, msgspec.Meta(ge=0, le=1 << 20)] = 2048
    """Main memory for encoded photos that may be asked about again; 56 KiB a token for 7B."""
    n_gpu_layers: Annotated[int, msgspec.Meta(ge=-1)] = -1
    """Layers on the GPU where there is one; -1 is all."""
    threads: Annotated[int, msgspec.Meta(ge=0, le=1024)] = 0
    """0 takes all processors the process may use."""
    max_answer_tokens: Annotated[int, msgspec.Meta(ge=16, le=4096)] = 256
    """An answer is cut off here; a box with its label takes 30 to 40."""
