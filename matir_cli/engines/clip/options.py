"""The `[encoder.options]` of a model set, shared by its region and text encoders."""

from pathlib import Path
from typing import Annotated, Literal, TypeAlias

import msgspec

from matir_cli.engines.options import EngineOptions, Precision
from matir_cli.errors import ModelSetInvalid
from matir_cli.records import EngineConfig

Transform: TypeAlias = Literal["letterbox", "squash", "crop"]
"""Method to fit a photo into a square, see `alpha_encoder.compute_placement`."""

Prompt: TypeAlias = Annotated[str, msgspec.Meta(pattern=r"^[^{}]*\{\}[^{}]*$", max_length=1000)]
"""A sentence with one `{}`, to be replaced by the query."""

SEVEN_PROMPTS: tuple[Prompt, ...] = (
    "itap of a {}.",
    "a bad photo of the {}.",
    "a origami {}.",
    "a photo of the large {}.",
    "a {} in a video game.",
    "art of the {}.",
    "a photo of the small {}.",
)
"""The ImageNet templates that OpenAI chose by forward selection (CLIP's prompt notebook)."""


class TowerOptions(EngineOptions, frozen=True):
    """Options that all image towers with a text tower have."""

    batch_size: Annotated[int, msgspec.Meta(ge=1, le=4096)] | None = None
    """Images, or regions, encoded together; chosen by device if None."""
    precision: Precision = "auto"
    """Dtype in which the visual tower computes; "auto" is float16 on CUDA, bfloat16 for large towers on a CPU
    that has instructions for it, and float32 elsewhere."""
    heads: Annotated[int, msgspec.Meta(ge=1, le=256)] | None = None
    """Attention heads of the visual tower; if None, those of the published models of its width: width / 64 in
    all of OpenAI's CLIPs."""
    text_heads: Annotated[int, msgspec.Meta(ge=1, le=256)] | None = None
    """Attention heads of the text tower; as `heads` if None."""


class ClipOptions(TowerOptions, frozen=True):
    """Options of Alpha-CLIP's visual tower and CLIP's text tower."""

    IDENTITY_OPTIONS = ("transform", "heads")
    """Options that change the vectors in a gallery; the others concern queries, rounding or speed."""

    transform: Transform = "letterbox"
    """Method to fit a photo and its masks into the tower's square."""
    prompts: Annotated[tuple[Prompt, ...], msgspec.Meta(min_length=1, max_length=1000)] = SEVEN_PROMPTS
    """Sentences into which a query is inserted; its vector is the mean of their vectors."""


class PlainClipOptions(ClipOptions, frozen=True):
    """Options of a CLIP without alpha channel; only the default transform differs."""

    transform: Transform = "crop"
    """Method to fit a photo into the tower's square; "crop", CLIP's own, drops all but the central square."""


def model_file(config: EngineConfig, role: str) -> Path:
    """Return the path of the file with the given `role`, such as "checkpoint", in the model set.

    Raises:
        ModelSetInvalid: the model set names no such file.
    """
    try:
        return config.files[role]
    except KeyError as error:
        raise ModelSetInvalid(config.engine, f"needs a file with the role {role!r}") from error
