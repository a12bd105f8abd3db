"""TextRegion's formulas restated plainly, patch by patch, over transformers' own towers."""

import math
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn
from transformers import CLIPVisionModelWithProjection

from matir_cli.records import ImageArray, MaskArray
from tests.support.clip_weights import normalised
from tests.support.siglip_weights import siglip_pixels

Floats = NDArray[np.float64]


class Features:
    """What a tower gives for one square: a vector, and a feature per patch."""

    def __init__(self, vision: nn.Module, square: Image.Image) -> None:
        """Run the tower of transformers on a square of its size."""
        self.vision = vision
        if isinstance(vision, CLIPVisionModelWithProjection):
            out = vision(normalised(square), output_hidden_states=True)
            self.vector = out.image_embeds[0]
            last = vision.vision_model.encoder.layers[-1]
            values = last.self_attn.v_proj(last.layer_norm1(out.hidden_states[-2]))
            self.patches = values[0, 1:].double().numpy()
        else:
            rgb = torch.from_numpy(np.array(square)).permute(2, 0, 1)[None] / 255
            out = vision(pixel_values=siglip_pixels(rgb))
            self.vector = out.pooler_output[0]
            self.patches = out.last_hidden_state[0].double().numpy()


def crop_counts(height: int, width: int, side: int, short: int) -> tuple[int, int]:
    """The authors' `imrescale` to at most (3 * 2 * side, 2 * side), and squares that fit."""
    scale = min(3 * short * side / max(height, width), short * side / min(height, width))
    return max(int(height * scale + 0.5) // side, 1), max(int(width * scale + 0.5) // side, 1)


def bilinear(values: Floats, y: float, x: float) -> Floats:
    """The value of (h, w, ...) at a point between pixel centres; beyond the edge, that of the edge."""
    height, width = values.shape[:2]
    y, x = min(max(y, 0), height - 1), min(max(x, 0), width - 1)
    top, left = int(y), int(x)
    bottom, right = min(top + 1, height - 1), min(left + 1, width - 1)
    upper = (1 - (x - left)) * values[top, left] + (x - left) * values[top, right]
    lower = (1 - (x - left)) * values[bottom, left] + (x - left) * values[bottom, right]
    result: Floats = np.asarray((1 - (y - top)) * upper + (y - top) * lower)
    return result


def grid_features(
    vision: nn.Module, image: ImageArray, side: int, short: int, photo_weight: float
) -> tuple[Tensor, Floats]:
    """The photo's vector, and (rows, columns, width): features of its crops and of itself, on one grid."""
    height, width = image.shape[:2]
    picture = Image.fromarray(image)
    whole = Features(vision, picture.resize((side, side), Image.Resampling.BICUBIC))
    grid = math.isqrt(len(whole.patches))
    photo = whole.patches.reshape(grid, grid, -1)
    if short == 0:
        return whole.vector, photo
    rows, columns = crop_counts(height, width, side, short)
    merged = np.empty((rows * grid, columns * grid, photo.shape[2]))
    for row in range(rows):
        for column in range(columns):
            edges = (
                *(column * width / columns, row * height / rows),
                *((column + 1) * width / columns, (row + 1) * height / rows),
            )
            crop = picture.resize((side, side), Image.Resampling.BICUBIC, box=edges)
            own = Features(vision, crop).patches.reshape(grid, grid, -1)
            for i in range(grid):
                for j in range(grid):
                    y, x = row * grid + i, column * grid + j
                    beside = bilinear(photo, (y + 0.5) / rows - 0.5, (x + 0.5) / columns - 0.5)
                    merged[y, x] = photo_weight * beside + own[i, j]
    return whole.vector, merged


def mask_shares(mask: MaskArray, rows: int, columns: int) -> Floats:
    """(rows, columns): a mask at the centres of patches, or else the share of each patch."""
    height, width = mask.shape
    shares = np.zeros((rows, columns))
    for i in range(rows):
        for j in range(columns):
            y, x = (i + 0.5) * height / rows - 0.5, (j + 0.5) * width / columns - 0.5
            shares[i, j] = bilinear(mask.astype(np.float64), y, x)
    if shares.any():
        return shares
    for i in range(rows):
        for j in range(columns):
            part = mask[
                i * height // rows : -(-(i + 1) * height // rows),
                j * width // columns : -(-(j + 1) * width // columns),
            ]
            shares[i, j] = part.mean()
    return shares


def suppressed(features: Floats, shares: Sequence[Floats], threshold: float) -> list[Floats]:
    """The shares without the patches that are as alike to other regions as to their own."""
    unit = features / np.linalg.norm(features, axis=1, keepdims=True)
    result = [share.copy() for share in shares]
    for patch in range(len(features)):
        own: list[float] = []
        others: list[float] = []
        for share in shares:
            members = [other for other in range(len(features)) if share[other] > 0]
            alike = sum(float(unit[patch] @ unit[other]) for other in members) / len(members)
            (own if share[patch] > 0 else others).append(alike)
        difference = sum(own) / max(len(own), 1) - sum(others) / max(len(others), 1)
        if difference < threshold:
            for share in result:
                share[patch] = 0
    return [new if new.any() else old for new, old in zip(result, shares, strict=True)]


def pooled(vision: nn.Module, features: Floats, share: Floats) -> Tensor:
    """The vector of one region."""
    if isinstance(vision, CLIPVisionModelWithProjection):
        mixed = np.zeros(features.shape[1])
        for patch, weight in enumerate(share):
            mixed += weight * features[patch] / np.linalg.norm(features[patch])
        last = vision.vision_model.encoder.layers[-1]
        x = last.self_attn.out_proj(torch.from_numpy(mixed).float()[None])
        x = x + last.mlp(last.layer_norm2(x))
        vector: Tensor = vision.visual_projection(vision.vision_model.post_layernorm(x))[0]
        return vector
    head = vision.head
    assert isinstance(head, nn.Module)
    attention = head.attention
    assert isinstance(attention, nn.MultiheadAttention)
    width = features.shape[1]
    key, value = attention.in_proj_weight[width:].chunk(2)
    assert key.shape == value.shape
    values = features @ value.double().numpy().T + attention.in_proj_bias[2 * width :].double().numpy()
    mean = np.mean([values[patch] for patch, weight in enumerate(share) if weight > 0], axis=0)
    result: Tensor = attention.out_proj(torch.from_numpy(mean).float())
    return result


@torch.no_grad()
def region_tokens(
    vision: nn.Module, image: ImageArray, masks: Sequence[MaskArray], side: int, short: int, threshold: float
) -> Floats:
    """(len(masks), d) unit vectors; a mask of all ones gets the photo's vector."""
    weight = 1.0 if isinstance(vision, CLIPVisionModelWithProjection) else 0.5
    vector, merged = grid_features(vision, image, side, short, weight)
    rows, columns = merged.shape[:2]
    features = merged.reshape(rows * columns, -1)
    shares = [mask_shares(mask, rows, columns).ravel() for mask in masks if not mask.all()]
    remaining = iter(suppressed(features, shares, threshold))
    found = [vector if mask.all() else pooled(vision, features, next(remaining)) for mask in masks]
    return np.stack([(each / each.norm()).double().numpy() for each in found])
