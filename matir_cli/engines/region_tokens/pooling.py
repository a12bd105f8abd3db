"""TextRegion's pooling: features of a photo and its crops on one grid, mixed by mask.

Xiao et al., "TextRegion: Text-Aligned Region Tokens from Frozen Image-Text Models" (arXiv 2505.23769), as
in the authors' `TextRegionSegmenter.py`. Two things differ from it: crops are cut from the photo at fractions
of a pixel, so that they fit the grid of masks; and a region that covers no patch's centre, or would lose all
its patches, keeps what it touches instead of being dropped.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from pycocotools import mask as coco
from torch import Tensor
from torch.nn import functional

from matir_cli import masks
from matir_cli.records import FloatArray, ImageArray, Rle

_MOST_ALONG = 3
"""Crops along the long side at most, in multiples of those along the short one."""

_MASKS_AT_ONCE = 16
"""Masks decoded together; one of 1,024 x 1,024 pixels takes 5 MB."""


@dataclass(frozen=True, slots=True)
class CropGrid:
    """Crops of a photo, side by side without overlap."""

    rows: int
    """Crops along the photo's height; 0 if the photo is not cropped."""
    columns: int
    """Crops along the photo's width; 0 if the photo is not cropped."""

    @classmethod
    def fit(cls, height: int, width: int, side: int, along_short: int) -> "CropGrid":
        """Return the crops of a photo of `height` x `width` pixels for a tower of `side` pixels.

        The photo is thought of as scaled so that `along_short` squares fit along its short side, or three
        times as many along its long one if that is smaller; all squares that fit become crops.
        """
        if not along_short:
            return cls(0, 0)
        short, long = sorted((height, width))
        scale = side * along_short * min(1 / short, _MOST_ALONG / long)
        rows, columns = (max(int(length * scale + 0.5) // side, 1) for length in (height, width))
        return cls(rows, columns)

    def render(self, image: ImageArray, side: int) -> FloatArray:
        """Return (1 + rows * columns, 3, side, side) float32 in 0..1: the photo, then its crops row by row.

        Args:
            image: (h, w, 3) uint8 RGB; it is stretched over the square, as are the crops.
            side: side of the square, pixels.
        """
        height, width = image.shape[:2]
        picture = Image.fromarray(np.ascontiguousarray(image))
        y, x = (height / max(self.rows, 1), width / max(self.columns, 1))
        boxes = [(0.0, 0.0, float(width), float(height))]
        boxes += [
            (column * x, row * y, min((column + 1) * x, width), min((row + 1) * y, height))
            for row in range(self.rows)
            for column in range(self.columns)
        ]
        squares = [picture.resize((side, side), Image.Resampling.BICUBIC, box=box) for box in boxes]
        return np.stack([np.asarray(square, dtype=np.float32) for square in squares]).transpose(
            0, 3, 1, 2
        ) / np.float32(255)

    def merge(self, features: Tensor, photo_weight: float) -> Tensor:
        """Return (patches, width): one grid of features over the photo, row by row.

        Args:
            features: (1 + rows * columns, grid^2, width), of the photo and of its crops.
            photo_weight: weight of the photo's features beside a crop's, which has 1.
        """
        side = round(features.shape[1] ** 0.5)
        maps = features.transpose(1, 2).reshape(len(features), -1, side, side)  # (n, width, grid, grid)
        if not self.rows:
            return maps[0].flatten(1).T
        size = (self.rows * side, self.columns * side)
        photo = functional.interpolate(maps[:1], size, mode="bilinear")[0]
        crops = maps[1:].reshape(self.rows, self.columns, -1, side, side).permute(2, 0, 3, 1, 4)
        crops = crops.reshape(photo.shape)  # (width, rows * grid, columns * grid)
        return (photo_weight * photo + crops).flatten(1).T

    def render_masks(self, rles: Sequence[Rle], side: int) -> Tensor:
        """Return (len(rles), patches) float32 in 0..1: masks on the grid of `merge`, `side` patches per crop.

        The value is the mask's at the centre of the patch, interpolated between pixels. Of a mask that covers
        no centre, it is the share of the patch that the mask covers.
        """
        size = (max(self.columns, 1) * side, max(self.rows, 1) * side)
        parts = [torch.empty(0, size[0] * size[1])]
        for start in range(0, len(rles), _MASKS_AT_ONCE):
            # pycocotools stores masks one after the other, each column-major.
            decoded: NDArray[np.uint8] = coco.decode(
                [masks.to_coco(rle) for rle in rles[start : start + _MASKS_AT_ONCE]]
            )
            pixels = torch.from_numpy(decoded.transpose(2, 1, 0))[:, None].float()  # (n, 1, width, height)
            shares = functional.interpolate(pixels, size, mode="bilinear").flatten(1)
            missed = shares.sum(dim=1) == 0
            if missed.any():
                shares[missed] = functional.adaptive_avg_pool2d(pixels[missed], size).flatten(1)
            parts.append(shares.reshape(-1, *size).transpose(1, 2).flatten(1))
        return torch.cat(parts)


def suppress_global_patches(features: Tensor, shares: Tensor, threshold: float) -> Tensor:
    """Return `shares` with 0 for patches that are hardly more alike to their own regions than to others.

    Such patches hold information about the whole photo, as do the registers of large vision transformers. A
    region of no other patches keeps its own.

    Args:
        features: (patches, width).
        shares: (regions, patches), see `CropGrid.render_masks`; every region has a patch.
        threshold: least difference of the two mean cosines.
    """
    unit = functional.normalize(features, dim=1)
    inside = (shares > 0).float()
    # Mean cosine of each patch with the patches of each region, without the cosines of all pairs of patches.
    alike = unit @ (inside @ unit / inside.sum(dim=1, keepdim=True).clamp(min=1)).T  # (patches, regions)
    own, outside = inside.T, 1 - inside.T
    difference = (alike * own).sum(dim=1) / (own.sum(dim=1) + 1e-9)
    difference -= (alike * outside).sum(dim=1) / (outside.sum(dim=1) + 1e-9)
    kept = shares * (difference >= threshold)
    return torch.where(kept.sum(dim=1, keepdim=True) > 0, kept, shares)
