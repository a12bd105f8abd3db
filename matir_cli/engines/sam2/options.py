"""The `[proposer]` options of a model set with a SAM 2."""

from typing import Annotated, Literal, TypeAlias

import msgspec

from matir_cli.engines.options import EngineOptions

PackagedConfig: TypeAlias = Literal[
    "configs/sam2/sam2_hiera_t.yaml",
    "configs/sam2/sam2_hiera_s.yaml",
    "configs/sam2/sam2_hiera_b+.yaml",
    "configs/sam2/sam2_hiera_l.yaml",
    "configs/sam2.1/sam2.1_hiera_t.yaml",
    "configs/sam2.1/sam2.1_hiera_s.yaml",
    "configs/sam2.1/sam2.1_hiera_b+.yaml",
    "configs/sam2.1/sam2.1_hiera_l.yaml",
]
"""The image models of sam2 1.1, by the names that its `build_sam2` takes."""

Positive: TypeAlias = Annotated[int, msgspec.Meta(ge=1, le=4096)]

FourPositive: TypeAlias = tuple[Positive, Positive, Positive, Positive]

Fraction: TypeAlias = Annotated[float, msgspec.Meta(ge=0.0, le=1.0)]


class Architecture(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Numbers in which a model differs from its packaged configuration; None leaves them alone."""

    embed_dim: Positive | None = None
    """Channels of Hiera's first stage; each later stage doubles them."""
    num_heads: Positive | None = None
    """Attention heads of Hiera's first stage; each later stage doubles them."""
    stages: FourPositive | None = None
    """Hiera blocks a stage."""
    global_att_blocks: tuple[Annotated[int, msgspec.Meta(ge=0)], ...] | None = None
    """Hiera blocks, counted from 0, that attend globally; never the first of a later stage."""
    window_spec: FourPositive | None = None
    """Attention window of each stage, in that stage's tokens; even where a stage follows."""
    window_pos_embed_bkg_spatial_size: tuple[Positive, Positive] | None = None
    """Grid of Hiera's background position embedding."""
    d_model: Annotated[int, msgspec.Meta(ge=16, le=1024, multiple_of=16)] | None = None
    """Channels of neck, prompts and mask decoder; its 8 heads leave d_model / 16 each when they cross."""
    memory_layers: Annotated[int, msgspec.Meta(ge=0, le=8)] | None = None
    """Layers of the video memory attention, which still pictures never use."""


class Sam2Options(EngineOptions, frozen=True):
    """Settings of a SAM 2 proposer in a model set."""

    SHAPING = (
        *("config", "image_size", "architecture", "points_per_side"),
        *("predicted_iou_threshold", "stability_threshold", "stability_offset", "nms_threshold"),
    )
    """What the regions in a gallery depend on; the rest changes speed and memory."""

    config: PackagedConfig = "configs/sam2.1/sam2.1_hiera_l.yaml"
    """Which packaged configuration the checkpoint belongs to."""
    image_size: Annotated[int, msgspec.Meta(ge=64, le=4096, multiple_of=32)] = 1024
    """Side of the square that photos are squeezed into before they are encoded."""
    architecture: Architecture = Architecture()
    """Differences from `config`."""
    points_per_side: Annotated[int, msgspec.Meta(ge=1, le=256)] = 32
    """The grid of point prompts has the square of this many."""
    points_per_batch: Annotated[int, msgspec.Meta(ge=1, le=4096)] | None = None
    """Points decoded together; None leaves it to the device. It changes speed and memory alone."""
    predicted_iou_threshold: Fraction = 0.5
    """Masks whose predicted IoU is not above this are dropped; the paper's confidence."""
    stability_threshold: Fraction = 0.95
    """Masks less stable than this are dropped."""
    stability_offset: Annotated[float, msgspec.Meta(ge=0.0, le=100.0)] = 1.0
    """Stability compares the mask cut at +offset with the one cut at -offset, in logits."""
    nms_threshold: Fraction = 0.7
    """Of two masks whose boxes overlap more than this (IoU), the one of lower predicted IoU is dropped."""
