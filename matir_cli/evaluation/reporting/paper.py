"""The paper's figures: tables 1 to 4 of "Mask-aware Text-to-Image Retrieval" (Shen et al., ICMR 2025)."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Figures:
    """What the paper's table says of a method, in per cent; None where it has no figure that we know."""

    coco: float | None = None
    """On COCO val2017, its 80 category names as queries."""
    d3: float | None = None
    """On D3, all 422 descriptions."""


NONE = Figures()

# Table 1, mAP@50.
CLIP_RN50X64 = Figures(71.00, 33.23)

CLIP_VIT_L14 = Figures(69.77, 33.78)

DENSE_CLIP = Figures(77.59, 25.31)

CLUSTER_CLIP = Figures(78.07, None)

STAGE_1 = Figures(83.54, 40.75)

MATIR = Figures(92.97, 61.00)

# Table 2, mAP@50@50: segmenters on MaTIR's reranked list.
SEGMENTERS = {
    "LISA++": Figures(49.13, 38.03),
    "SAM4MLLM": Figures(55.48, 42.16),
    "APE": Figures(71.27, 41.56),
}

MATIR_MASKS = Figures(71.64, 49.16)

# Table 3, mAP@50 without reranking; the other row is `STAGE_1`.
CROPPING = Figures(71.06, 31.04)

# Table 4, mAP@50@50; the other row is `MATIR_MASKS`.
BEST_REGION = Figures(34.19, 8.84)
