"""Prompts of the Qwen-VL judges, and the `[judge.options]` of their model sets.

The questions are those of "Mask-aware Text-to-Image Retrieval" (Shen et al., ICMR 2025), inside the chat
template of each family.
"""

from typing import Annotated, ClassVar, Literal

import msgspec

from matir_cli.engines.options import EngineOptions
from matir_cli.engines.qwen_vl.boxes import ANSWER_GRAMMAR
from matir_cli.engines.qwen_vl.family import QWEN2_5_VL, QWEN3_VL, QwenFamily

HEAD = "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\n"
"""Qwen2.5-VL's prompt before the image: the system line and the opening of the user's turn."""

USER_TURN = "<|im_start|>user\n"
"""Qwen3-VL's prompt before the image: its template has no system line unless one is asked for."""

RERANK = "Does this image contain the described object? Answer True or False.\nObject description: "
"""Rerank question, to be followed by the query."""

GROUND = "Locate the described object, output the bbox coordinates in JSON format.\nObject description: "
"""Grounding question, to be followed by the query."""

CHOOSE = (
    "Regions of this image are framed and numbered. Which number marks the described object? "
    "Answer with the number.\nObject description: "
)
"""Question for one of several numbered regions, to be followed by the query."""

TAIL = "<|im_end|>\n<|im_start|>assistant\n"
"""Prompt after the question: the end of the user's turn and the opening of the answer."""


GroundingWay = Literal["write", "choose"]
"""How a judge says where an object is."""


class QwenVlOptions(EngineOptions, frozen=True):
    """Options of a Qwen2.5-VL judge in a model set."""

    FAMILY: ClassVar[QwenFamily] = QWEN2_5_VL
    """Family of the models that these options are for."""
    PROMPT_HEAD: ClassVar[str] = HEAD
    """Prompt before the image."""
    IDENTITY_OPTIONS = ("min_pixels", "max_pixels", "ground_min_pixels", "max_answer_tokens", "grounding")
    """Options that change the judge's answers; the others change speed and memory."""
    METHOD = "".join((HEAD, RERANK, GROUND, TAIL, ANSWER_GRAMMAR))
    """Prompts and answer grammar, on which the answers depend as well."""

    min_pixels: Annotated[int, msgspec.Meta(ge=28**2, le=12845056)] = 4 * 28**2
    """Smaller photos are enlarged to at least this many pixels; 3136 in Qwen's own processor."""
    max_pixels: Annotated[int, msgspec.Meta(ge=28**2, le=12845056)] = 1280 * 28**2
    """Larger photos are shrunk to at most this many pixels. 1280 tokens is the upper end of what
    Qwen2.5-VL's model card recommends, and does not shrink a photo of 1024 x 768 working pixels."""
    ground_min_pixels: Annotated[int, msgspec.Meta(ge=0, le=12845056)] = 0
    """For boxes, smaller photos are enlarged to at least this many pixels; 0: shown as for True or False.
    At most `max_pixels`. llama.cpp advises Qwen's models to have 1024 tokens for boxes (its issue 16842):
    802816 pixels of Qwen2.5-VL. A photo that is enlarged is encoded a second time."""
    grounding: GroundingWay = "write"
    """Whether the model writes the box of the described object, as in the paper, or chooses one of the
    photo's regions by its number (`choosing`)."""
    context_tokens: Annotated[int, msgspec.Meta(ge=0, le=1 << 20)] = 0
    """Tokens that the context holds; 0 allocates what `grounds_at_once` photos of the largest size need."""
    grounds_at_once: Annotated[int, msgspec.Meta(ge=1, le=64)] = 8
    """Number of grounding answers generated together."""
    prefix_cache_mib: Annotated[int, msgspec.Meta(ge=0, le=1 << 20)] = 2048
    """Main memory for the cache of encoded photos, in MiB. Qwen2.5-VL 7B needs 56 KiB per token,
    Qwen3-VL 4B and 8B need 144 KiB."""
    n_gpu_layers: Annotated[int, msgspec.Meta(ge=-1)] = -1
    """Layers to run on the GPU, if there is one; -1 means all."""
    threads: Annotated[int, msgspec.Meta(ge=0, le=1024)] = 0
    """CPU threads; 0 uses all processors that the process may run on."""
    max_answer_tokens: Annotated[int, msgspec.Meta(ge=16, le=4096)] = 256
    """Tokens after which an answer is cut off; a box with its label takes 30 to 40."""


class Qwen3VlOptions(QwenVlOptions, frozen=True):
    """Options of a Qwen3-VL judge in a model set."""

    FAMILY: ClassVar[QwenFamily] = QWEN3_VL
    PROMPT_HEAD: ClassVar[str] = USER_TURN
    METHOD = "".join((USER_TURN, RERANK, GROUND, TAIL, ANSWER_GRAMMAR))

    min_pixels: Annotated[int, msgspec.Meta(ge=32**2, le=16777216)] = 64 * 32**2
    """Smaller photos are enlarged to at least this many pixels; as in Qwen's own processor."""
    max_pixels: Annotated[int, msgspec.Meta(ge=32**2, le=16777216)] = 1024 * 32**2
    """Larger photos are shrunk to at most this many pixels, which no photo at the working resolution is: with
    1024 tokens, llama.cpp's authors found boxes to be reliable (llama.cpp issue 16842)."""
