"""The `[encoder]` options of a model set: one table, read by the region and by the text encoder."""

from pathlib import Path
from typing import Annotated, Literal, TypeAlias

import msgspec

from matir_cli.engines.options import EngineOptions
from matir_cli.errors import ModelSetInvalid
from matir_cli.records import EngineConfig

Transform: TypeAlias = Literal["letterbox", "squash", "crop"]
"""How a photo that is not square becomes one, see `alpha_clip.place`."""

Prompt: TypeAlias = Annotated[str, msgspec.Meta(pattern=r"^[^{}]*\{\}[^{}]*$", max_length=1000)]
"""A sentence with one `{}`, where the query goes."""

SEVEN_PROMPTS: tuple[Prompt, ...] = (
    "itap of a {}.",
    "a bad photo of the {}.",
    "a origami {}.",
    "a photo of the large {}.",
    "a {} in a video game.",
    "art of the {}.",
    "a photo of the small {}.",
)
"""The subset of ImageNet templates that OpenAI chose by forward selection (CLIP's prompt notebook)."""


class ClipOptions(EngineOptions, frozen=True):
    """Settings of Alpha-CLIP's visual tower and of CLIP's text tower."""

    SHAPING = ("transform", "heads")
    """What the vectors in a gallery depend on, beyond rounding; the rest concerns queries or speed."""

    transform: Transform = "letterbox"
    """How a photo and its masks are brought to the tower's square."""
    batch_size: Annotated[int, msgspec.Meta(ge=1, le=4096)] | None = None
    """Regions encoded at once; by the device when absent."""
    precision: Literal["auto", "float32", "float16", "bfloat16"] = "auto"
    """What the visual tower computes in: "auto" is float16 on CUDA and float32 elsewhere. Processors
    with AMX are several times faster in bfloat16, others slower."""
    heads: Annotated[int, msgspec.Meta(ge=1, le=256)] | None = None
    """Attention heads of the visual tower; width / 64, as in every CLIP of OpenAI, when absent."""
    text_heads: Annotated[int, msgspec.Meta(ge=1, le=256)] | None = None
    """Attention heads of the text tower; width / 64 when absent."""
    prompts: Annotated[tuple[Prompt, ...], msgspec.Meta(min_length=1, max_length=1000)] = SEVEN_PROMPTS
    """The sentences a query is put into; its vector is their mean."""


class PlainClipOptions(ClipOptions, frozen=True):
    """Settings of a CLIP without alpha; the same, but for what is CLIP's own way with a photo."""

    transform: Transform = "crop"
    """How a photo is brought to the tower's square; "crop" loses what lies beside the central square."""


def model_file(config: EngineConfig, role: str) -> Path:
    """The file that has `role` in the model set.

    Raises:
        ModelSetInvalid: there is none.
    """
    try:
        return config.files[role]
    except KeyError as error:
        raise ModelSetInvalid(config.engine, f"needs a file with the role {role!r}") from error
