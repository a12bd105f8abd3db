"""The `[proposer.options]` of a model set with SAM 2."""

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
"""Names of the configurations in the package sam2 1.1, as its `build_sam2` takes them."""

Positive: TypeAlias = Annotated[int, msgspec.Meta(ge=1, le=4096)]

Blocks: TypeAlias = Annotated[int, msgspec.Meta(ge=1, le=128)]

FourPositive: TypeAlias = tuple[Positive, Positive, Positive, Positive]

Fraction: TypeAlias = Annotated[float, msgspec.Meta(ge=0.0, le=1.0)]


class Architecture(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Numbers in which a model differs from its packaged configuration; None keeps the packaged value."""

    embed_dim: Positive | None = None
    """Channels of Hiera's first stage; each later stage has twice as many."""
    num_heads: Positive | None = None
    """Attention heads of Hiera's first stage; each later stage has twice as many."""
    stages: tuple[Blocks, Blocks, Blocks, Blocks] | None = None
    """Number of Hiera blocks in each stage."""
    global_att_blocks: tuple[Annotated[int, msgspec.Meta(ge=0)], ...] | None = None
    """Indices, from 0, of the Hiera blocks with global attention; not the first block of a later stage."""
    window_spec: FourPositive | None = None
    """Attention window of each stage, in tokens of that stage; even, except in the last stage."""
    window_pos_embed_bkg_spatial_size: tuple[Positive, Positive] | None = None
    """Size of the grid of Hiera's background position embedding."""
    d_model: Annotated[int, msgspec.Meta(ge=16, le=1024, multiple_of=16)] | None = None
    """Channels of neck, prompts and mask decoder; cross-attention has 8 heads of d_model / 16 channels."""
    memory_layers: Annotated[int, msgspec.Meta(ge=0, le=8)] | None = None
    """Layers of the video memory attention, which still images never use."""


class Sam2Options(EngineOptions, frozen=True):
    """Options of a SAM 2 proposer in a model set."""

    IDENTITY_OPTIONS = (
        *("config", "image_size", "architecture", "points_per_side", "points"),
        *("predicted_iou_threshold", "stability_threshold", "stability_offset", "nms_threshold"),
        *("repeat_threshold", "min_area", "max_area", "max_regions"),
    )
    """Options that change the regions in a gallery; the others change speed and memory."""

    config: PackagedConfig = "configs/sam2.1/sam2.1_hiera_l.yaml"
    """Packaged configuration that the checkpoint belongs to."""
    image_size: Annotated[int, msgspec.Meta(ge=64, le=4096, multiple_of=32)] = 1024
    """Side in pixels of the square to which photos are resized before they are encoded."""
    architecture: Architecture = Architecture()
    """Differences from `config`."""
    points_per_side: Annotated[int, msgspec.Meta(ge=1, le=256)] = 32
    """Points along each side of the grid of point prompts, which has the square of this number."""
    points: Literal["grid", "adaptive"] = "grid"
    """Points of the grid that are asked: all, as in the paper, or at most a third, see `adaptive`."""
    points_per_batch: Annotated[int, msgspec.Meta(ge=1, le=4096)] | None = None
    """Points decoded together; None chooses by device. Changes speed and memory only."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """Dtype of the matrix products: "auto" is bfloat16 on CUDA, as in upstream's examples, and for a large
    model on a CPU that has instructions for it; float32 elsewhere. On a CPU, the image encoder and the
    upscaling of masks are computed in it, and what decides about a mask in float32: one mask in ten would
    otherwise be another one."""
    predicted_iou_threshold: Fraction = 0.5
    """Masks are kept if their predicted IoU is above this; the paper's confidence threshold."""
    stability_threshold: Fraction = 0.95
    """Masks less stable than this are dropped, 0..1."""
    stability_offset: Annotated[float, msgspec.Meta(ge=0.0, le=100.0)] = 1.0
    """Stability is the IoU of the masks cut at +offset and at -offset, in logits."""
    nms_threshold: Fraction = 0.7
    """Of two masks whose boxes overlap more (IoU), the one with the lower predicted IoU is dropped."""
    repeat_threshold: Annotated[float, msgspec.Meta(gt=0.0, le=1.0)] | None = None
    """Of two masks that overlap this much or more (IoU of the masks), the one with the lower predicted IoU is
    dropped; None leaves it at the boxes. A mask within a hardly larger one counts, too."""
    min_area: Fraction = 0.0
    """Masks that cover a smaller share of the photo are dropped."""
    max_area: Fraction = 1.0
    """Masks that cover a larger share of the photo are dropped."""
    max_regions: Annotated[int, msgspec.Meta(ge=1)] | None = None
    """Number of masks per photo at most, those with the highest predicted IoU x stability; None: any."""
