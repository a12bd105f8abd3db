"""Model families of the judge: what Qwen2.5-VL and Qwen3-VL have different.

Both take an image in their own size, between the same two markers, and answer with the same JSON. They
differ in the size of a patch, in the frame of their boxes, and in the architectures of their two files.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class QwenFamily:
    """A family of Qwen-VL models."""

    name: str
    """Name of the family, for messages."""
    architecture: str
    """`general.architecture` of the text model's GGUF file."""
    projector: str
    """`clip.projector_type` of the projector's GGUF file."""
    patch_side: int
    """Side of a patch in pixels."""
    box_grid: int | None
    """Side of the grid, the same for all images, on which boxes are given; None if they are given in pixels
    of the resized image."""
    windowed: bool
    """True if the vision tower attends within windows, which llama.cpp makes a mask for."""
    deepstack: bool
    """True if the text model's first layers receive features of inner blocks of the vision tower."""
    free_heads: bool
    """True if the length of an attention head is independent of the text model's width."""

    @property
    def factor(self) -> int:
        """Number of pixels of which image sides are multiples: patches are merged 2 x 2 into one token."""
        return 2 * self.patch_side


QWEN2_5_VL = QwenFamily(
    name="Qwen2.5-VL",
    architecture="qwen2vl",
    projector="qwen2.5vl_merger",
    patch_side=14,
    box_grid=None,
    windowed=True,
    deepstack=False,
    free_heads=False,
)

QWEN3_VL = QwenFamily(
    name="Qwen3-VL",
    architecture="qwen3vl",
    projector="qwen3vl_merger",
    patch_side=16,
    box_grid=1000,
    windowed=False,
    deepstack=True,
    free_heads=True,
)
