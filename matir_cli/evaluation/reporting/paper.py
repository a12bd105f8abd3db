"""Figures of the paper's tables 1 to 4.

Source: "Mask-aware Text-to-Image Retrieval" (Shen et al., ICMR 2025).
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class PaperFigures:
    """A method's figures in the paper, in per cent; None where no figure is known."""

    coco: float | None = None
    """COCO val2017, with its 80 category names as queries."""
    d3: float | None = None
    """D3, all 422 descriptions."""


NONE = PaperFigures()

# Table 1, mAP@50.
CLIP_RN50X64 = PaperFigures(71.00, 33.23)

CLIP_VIT_L14 = PaperFigures(69.77, 33.78)

DENSE_CLIP = PaperFigures(77.59, 25.31)

CLUSTER_CLIP = PaperFigures(78.07, None)

STAGE_1 = PaperFigures(83.54, 40.75)

MATIR = PaperFigures(92.97, 61.00)

# Table 2, mAP@50@50: segmenters on MaTIR's reranked list.
SEGMENTERS = {
    "LISA++": PaperFigures(49.13, 38.03),
    "SAM4MLLM": PaperFigures(55.48, 42.16),
    "APE": PaperFigures(71.27, 41.56),
}

MATIR_MASKS = PaperFigures(71.64, 49.16)

# Table 3, mAP@50 without reranking; the other row is `STAGE_1`.
CROPPING = PaperFigures(71.06, 31.04)

# Table 4, mAP@50@50; the other row is `MATIR_MASKS`.
BEST_REGION = PaperFigures(34.19, 8.84)
