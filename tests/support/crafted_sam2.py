"""An untrained SAM 2 whose masks surround their points, and upstream's reference.

With random weights every mask is a texture over the whole image: all have the same box, and the filters
have nothing to choose from. `craft_model` keeps the random weights except for a few set by hand, so that
a point marks the image tokens near it; the last layer, which reads masks off the tokens, is then fitted
by least squares. The resulting masks are local, of three sizes, ragged along the image's edges, some
with specks far away: enough to exercise every filter.

The reference is upstream's generator, with thresholds computed from its own scores, so that each filter
drops a given share of the masks.
"""

from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np
import torch
from PIL import Image, ImageDraw
from sam2.automatic_mask_generator import SAM2AutomaticMaskGenerator
from sam2.modeling.sam.transformer import Attention
from sam2.modeling.sam2_base import SAM2Base
from sam2.sam2_image_predictor import SAM2ImagePredictor
from torch import Tensor

from matir_cli import masks
from matir_cli.engines.sam2.model import build_model
from matir_cli.engines.sam2.options import Architecture, PackagedConfig, Sam2Options
from matir_cli.records import EngineConfig, ImageArray, ModelIdentity, Region, Rle

RADII = (0.06, 0.12, 0.22)
"""Radii of the discs that the three masks of a point approximate, in sides of the square."""

GAIN = 30.0
"""Logit at a disc's centre; the higher, the more stable the masks."""

MARK = 12.0
"""Strength of the mark by which a prompt token can be identified; a position encoding has length 11."""

CONFIG: PackagedConfig = "configs/sam2.1/sam2.1_hiera_t.yaml"
"""Packaged configuration of the small models."""

SMALL_ARCHITECTURE = {
    "embed_dim": 32,
    "num_heads": 1,
    "stages": [1, 2, 3, 1],
    "global_att_blocks": [4],
    "window_spec": [8, 4, 8, 4],
    "window_pos_embed_bkg_spatial_size": [7, 7],
    "d_model": 128,
    "memory_layers": 0,
}
"""Differences of the small models from `CONFIG`, as in a model set."""

SMALL_OPTIONS = Sam2Options(
    config=CONFIG,
    image_size=256,
    points_per_side=12,
    architecture=msgspec.convert(SMALL_ARCHITECTURE, Architecture),
)
"""Options of a model that runs in seconds."""


def small_config(checkpoint: Path, **options: object) -> EngineConfig:
    """Return the configuration of a small proposer with the weights in `checkpoint`."""
    settings = {
        **{"config": CONFIG, "image_size": 256, "architecture": SMALL_ARCHITECTURE, "points_per_side": 4},
        **options,
    }
    return EngineConfig("sam2", settings, {"checkpoint": checkpoint}, ModelIdentity("small", "0" * 64))


def draw_scene(width: int, height: int, seed: int = 0) -> ImageArray:
    """Return (height, width, 3) uint8: a gradient with coloured discs and boxes on it, and noise."""
    random = np.random.default_rng(seed)
    ramp = np.linspace(40, 200, width)[None, :, None] + np.linspace(-30, 30, height)[:, None, None]
    picture = Image.fromarray(np.broadcast_to(ramp, (height, width, 3)).clip(0, 255).astype(np.uint8))
    draw = ImageDraw.Draw(picture)
    for _ in range(24):
        x, y = random.uniform(0, width), random.uniform(0, height)
        rx, ry = random.uniform(0.02, 0.12, size=2) * max(width, height)
        shape = draw.ellipse if random.random() < 0.5 else draw.rectangle
        shape((x - rx, y - ry, x + rx, y + ry), fill=tuple(int(v) for v in random.integers(0, 256, 3)))
    noisy = np.asarray(picture, dtype=np.float64) + random.normal(0, 6, (height, width, 3))
    return noisy.clip(0, 255).astype(np.uint8)


def craft_model(options: Sam2Options, image: ImageArray, seed: int = 0) -> SAM2Base:
    """Create the model that `options` describe, with local masks on images like `image`."""
    torch.manual_seed(seed)
    model = build_model(options).eval().requires_grad_(False)
    _let_points_through(model)
    _fit_discs(model, image, seed)
    # Predicted IoU differs more from point to point.
    model.sam_mask_decoder.iou_prediction_head.layers[-1].weight *= 10
    return model


def _let_points_through(model: SAM2Base) -> None:
    """Set the weights by which a point marks the image tokens near it."""
    decoder, prompts = model.sam_mask_decoder, model.sam_prompt_encoder
    frequencies = prompts.pe_layer.positional_encoding_gaussian_matrix.norm(dim=0).argsort()
    sines, cosines = frequencies, frequencies + len(frequencies)
    marks = frequencies[-8:]  # channels that no attention below uses for the position
    tokens = [(decoder.obj_score_token.weight, 0), (decoder.iou_token.weight, 0)]
    tokens += [(decoder.mask_tokens.weight, row) for row in range(4)]
    tokens += [(prompts.point_embeddings[1].weight, 0), (prompts.not_a_point_embed.weight, 0)]
    for (table, row), channel in zip(tokens, marks, strict=True):
        table[row] *= 0.3
        table[row, channel] = MARK
    prompts.no_mask_embed.weight *= 0.3
    for layer in decoder.transformer.layers:
        # Each prompt token attends to itself alone, and passes on its own mark.
        own = layer.self_attn
        select = torch.zeros_like(own.q_proj.weight)
        for row, channel in enumerate(marks):
            select[row :: len(select) // own.num_heads, channel] = 1
        _attend_by(own, select)
        own.v_proj.weight *= select.any(dim=0)
        layer.cross_attn_token_to_image.out_proj.weight *= 0
        layer.mlp.layers[-1].weight *= 0
        layer.norm3.weight *= 0.3
        # Image tokens attend to prompt tokens at their own position: sum of cos(2 pi f (p - q)), a bump.
        to_token = layer.cross_attn_image_to_token
        select = torch.zeros_like(to_token.q_proj.weight)
        for pair, (sine, cosine) in enumerate(zip(sines, cosines, strict=True)):
            if 2 * pair < len(select):
                select[2 * pair, sine] = select[2 * pair + 1, cosine] = 2.5
        _attend_by(to_token, select)
        to_token.v_proj.weight *= 8
        to_token.out_proj.weight *= 8
    for convolution in (decoder.output_upscaling[0], decoder.output_upscaling[3]):
        # Nearly the same for all four subpixels, else masks come out dithered.
        mean = convolution.weight.mean(dim=(2, 3), keepdim=True)
        convolution.weight.copy_(6 * mean + 0.1 * (convolution.weight - mean))
    for convolution in (decoder.conv_s0, decoder.conv_s1):
        convolution.weight *= 0.5


def _attend_by(attention: Attention, select: Tensor) -> None:
    """Make queries and keys of `attention` the projection `select`, without bias."""
    for projection in (attention.q_proj, attention.k_proj):
        projection.weight.copy_(select)
        projection.bias.zero_()


def _fit_discs(model: SAM2Base, image: ImageArray, seed: int) -> None:
    """Fit the weights of the upscaled channels so that each mask is close to a disc around its point."""
    decoder = model.sam_mask_decoder
    predictor = upstream_predictor(model)
    predictor.set_image(image)
    upscaled: list[Tensor] = []
    hook = decoder.output_upscaling[4].register_forward_hook(lambda _, __, out: upscaled.append(out))
    channels = decoder.conv_s0.out_channels
    gram = torch.zeros(len(RADII), channels, channels, dtype=torch.float64)
    right = torch.zeros(len(RADII), channels, dtype=torch.float64)
    for point in torch.rand(48, 1, 1, 2, generator=torch.Generator().manual_seed(seed)):
        predictor._predict(point * model.image_size, torch.ones(1, 1, dtype=torch.int))
        features = upscaled.pop()[0]
        along = (torch.arange(features.shape[1]) + 0.5) / features.shape[1]
        distance = torch.hypot(along[None, :] - point[..., 0], along[:, None] - point[..., 1])
        for i, radius in enumerate(RADII):
            target = (2 - 2 * distance / radius).clamp(-1, 1)
            weighted = features * torch.where(distance < 1.5 * radius, 1.0, 0.1)
            gram[i] += weighted.flatten(1) @ features.flatten(1).T
            right[i] += (weighted * target).sum(dim=(1, 2))
    hook.remove()
    for squares, products, mlp in zip(gram, right, decoder.output_hypernetworks_mlps[1:], strict=True):
        ridge = 1e-3 * squares.trace() / channels * torch.eye(channels)
        mlp.layers[-1].weight.zero_()
        mlp.layers[-1].bias.copy_(GAIN * torch.linalg.solve(squares + ridge, products))


def upstream_predictor(model: SAM2Base) -> SAM2ImagePredictor:
    """Return upstream's predictor with the feature sizes of `model`; it assumes those of 1024 pixels."""
    predictor = SAM2ImagePredictor(model)
    predictor._bb_feat_sizes = [(model.image_size // stride,) * 2 for stride in (4, 8, 16)]
    return predictor


def upstream_generator(
    model: SAM2Base, options: Sam2Options, points_per_batch: int = 16
) -> SAM2AutomaticMaskGenerator:
    """Return upstream's generator with the settings of `options`."""
    generator = SAM2AutomaticMaskGenerator(
        model,
        points_per_side=options.points_per_side,
        points_per_batch=points_per_batch,
        pred_iou_thresh=options.predicted_iou_threshold,
        stability_score_thresh=options.stability_threshold,
        stability_score_offset=options.stability_offset,
        box_nms_thresh=options.nms_threshold,
        output_mode="coco_rle",
    )
    generator.predictor._bb_feat_sizes = upstream_predictor(model)._bb_feat_sizes
    return generator


@dataclass(frozen=True, slots=True)
class Thresholds:
    """Thresholds of the filters by predicted IoU and by stability."""

    predicted_iou: float
    stability: float


def choose_thresholds(
    model: SAM2Base, options: Sam2Options, image: ImageArray, likely: float, stable: float
) -> Thresholds:
    """Return thresholds that a share `likely` of upstream's masks passes, and of these a share `stable`."""
    everything = upstream_generator(model, options)
    everything.pred_iou_thresh = everything.stability_score_thresh = 0.0
    everything.box_nms_thresh = 1.1
    found = everything.generate(image)
    predicted = np.array([mask["predicted_iou"] for mask in found])
    floor = float(np.quantile(predicted, 1 - likely))
    stability = np.array([mask["stability_score"] for mask in found])[predicted > floor]
    # An empty mask has no stability (0 / 0), and passes no threshold.
    return Thresholds(floor, float(np.quantile(np.nan_to_num(stability), 1 - stable)))


def upstream_rles(generator: SAM2AutomaticMaskGenerator, image: ImageArray) -> list[Rle]:
    """Return the masks that `generator` finds in `image`."""
    height, width = image.shape[:2]
    return [Rle(height, width, mask["segmentation"]["counts"].encode()) for mask in generator.generate(image)]


def match_shares(ours: list[Region], theirs: list[Rle]) -> tuple[float, float]:
    """Return the share of our masks with a match of IoU >= 0.95 among theirs, and vice versa."""
    overlap = masks.iou([region.rle for region in ours], theirs)
    return float((overlap.max(axis=1) >= 0.95).mean()), float((overlap.max(axis=0) >= 0.95).mean())
