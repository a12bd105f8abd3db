"""Training of the tiny SAM 2 from points to masks and predicted IoU.

The model is built from the `sam2` package's classes. A point on an object prompts for that object's
visible mask. The best of the three masks has the largest share in the loss, as in SAM, but all three
learn: in this world a point means one object, and an untrained mask could only be chosen by mistake.
All three learn to predict their own IoU. A point on the background has no mask to learn, only a low
predicted IoU.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional

from matir_cli.engines.sam2.model import build_model
from matir_cli.engines.sam2.options import Sam2Options
from matir_cli.models.tiny import recipe
from matir_cli.models.tiny.world import Picture
from matir_cli.records import FloatArray, MaskArray

SIDE = 192
"""Side of the model's input, pixels."""

TARGET = 96
"""Side at which masks are compared, pixels: twice the decoder's own resolution."""

POINTS = 16
"""Points per picture; the encoder costs as much as all of them."""

BACKGROUND = 3
"""Points among them that lie on no object."""

BATCH = 8
SCHEDULE = recipe.Schedule("sam2", steps=1800, rate=8e-4, report_every=100)
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Prompts:
    """Points on a batch of pictures, with their targets."""

    images: Tensor
    """(pictures, 3, SIDE, SIDE), normalised."""
    points: Tensor
    """(pictures, POINTS, 2): x and y in input pixels."""
    targets: Tensor
    """(pictures, POINTS, TARGET, TARGET): coverage 0..1; zeros for a background point."""
    on_object: Tensor
    """(pictures, POINTS) bool."""


def model_input(picture: Picture) -> Tensor:
    """(3, SIDE, SIDE): the picture, squashed to the square as the engine does and normalised."""
    image = torch.from_numpy(picture.image).permute(2, 0, 1).float()[None] / 255
    image = functional.interpolate(image, (SIDE, SIDE), mode="bilinear", antialias=True, align_corners=False)[
        0
    ]
    return (image - torch.tensor(MEAN)[:, None, None]) / torch.tensor(STD)[:, None, None]


def prompts(first: int, count: int, split: str, device: torch.device) -> Prompts:
    """`count` pictures with points; the size of an object does not affect how often it gets a point."""
    images, points, targets, flags = [], [], [], []
    for number, picture in enumerate(recipe.pictures(first, count, split), start=first):
        rng = np.random.default_rng((number, 1))
        images.append(model_input(picture))
        height, width = picture.owner.shape
        masks = {t.id: picture.mask(t.id) for t in picture.things}
        small = {i: _shrink(mask) for i, mask in masks.items()}
        ids = [-1] * BACKGROUND + [int(i) for i in rng.choice(list(masks), POINTS - BACKGROUND)]
        for thing in ids:
            rows, columns = np.nonzero(picture.owner == thing)
            spot = int(rng.integers(len(rows)))
            points.append(((columns[spot] + 0.5) * SIDE / width, (rows[spot] + 0.5) * SIDE / height))
            targets.append(small.get(thing, np.zeros((TARGET, TARGET), dtype=np.float32)))
            flags.append(thing >= 0)
    return Prompts(
        torch.stack(images).to(device),
        torch.tensor(points, dtype=torch.float32).view(count, POINTS, 2).to(device),
        torch.from_numpy(np.stack(targets)).view(count, POINTS, TARGET, TARGET).to(device),
        torch.tensor(flags).view(count, POINTS).to(device),
    )


def _shrink(mask: MaskArray) -> FloatArray:
    """(TARGET, TARGET) coverage 0..1 of the mask."""
    picture = Image.fromarray(mask.astype(np.float32))
    return np.asarray(picture.resize((TARGET, TARGET), Image.Resampling.BOX), dtype=np.float32)


def predict_masks(model: Any, images: Tensor, points: Tensor) -> tuple[Tensor, Tensor]:
    """Run the model; the decoder gives three masks per point.

    Returns:
        (pictures x points, 3, SIDE / 4, SIDE / 4) logits and (pictures x points, 3) predicted IoU.
    """
    per = points.shape[1]
    _, features, _, sizes = model._prepare_backbone_features(model.forward_image(images))
    maps = [
        f.permute(1, 2, 0).reshape(len(images), -1, *size) for f, size in zip(features, sizes, strict=True)
    ]
    # SAM 2 adds this to still pictures, for which there is no memory.
    maps[-1] = maps[-1] + model.no_mem_embed.view(1, -1, 1, 1)
    maps = [m.repeat_interleave(per, dim=0) for m in maps]
    labels = torch.ones(points.shape[:2], dtype=torch.int32, device=points.device).view(-1, 1)
    sparse, dense = model.sam_prompt_encoder(
        points=(points.reshape(-1, 1, 2), labels), boxes=None, masks=None
    )
    logits, ious, _, _ = model.sam_mask_decoder(
        image_embeddings=maps[-1],
        image_pe=model.sam_prompt_encoder.get_dense_pe(),
        sparse_prompt_embeddings=sparse,
        dense_prompt_embeddings=dense,
        multimask_output=True,
        repeat_image=False,
        high_res_features=maps[:-1],
    )
    return logits, ious


def loss(logits: Tensor, ious: Tensor, batch: Prompts) -> Tensor:
    """Focal and dice loss (half for the best mask, half for all) plus the error of the predicted IoU."""
    logits = functional.interpolate(logits.float(), (TARGET, TARGET), mode="bilinear", align_corners=False)
    target = batch.targets.flatten(0, 1)[:, None].expand_as(logits)
    cross = functional.binary_cross_entropy_with_logits(logits, target, reduction="none")
    chance = logits.sigmoid()
    wrong = (chance - target).abs()
    focal = (wrong.square() * cross).mean((-2, -1))
    shared = (chance * target).sum((-2, -1))
    dice = 1 - (2 * shared + 1) / (chance.sum((-2, -1)) + target.sum((-2, -1)) + 1)
    each = 20 * focal + dice
    on_object = batch.on_object.flatten().float()
    masks = ((0.5 * each.min(1).values + 0.5 * each.mean(1)) * on_object).sum() / on_object.sum()
    predicted, true = logits.detach() > 0, target > 0.5
    real = (predicted & true).sum((-2, -1)) / (predicted | true).sum((-2, -1)).clamp(min=1)
    return masks + 2 * functional.mse_loss(ious.float(), real)


def measure_iou(model: Any, device: torch.device) -> str:
    """IoU of the best mask and of the mask with the highest predicted IoU, on validation points."""
    best, chosen, sure, background = [], [], [], []
    for first in range(0, 32, 8):
        batch = prompts(first, 8, "validation", device)
        with recipe.autocast(device):
            logits, ious = predict_masks(model, batch.images, batch.points)
        predicted = (
            functional.interpolate(logits.float(), (TARGET, TARGET), mode="bilinear", align_corners=False) > 0
        )
        true = batch.targets.flatten(0, 1)[:, None] > 0.5
        real = (predicted & true).sum((-2, -1)) / (predicted | true).sum((-2, -1)).clamp(min=1)
        on = batch.on_object.flatten()
        best.append(real.max(1).values[on])
        chosen.append(real.gather(1, ious.argmax(1, keepdim=True))[on])
        sure.append(ious.max(1).values[on])
        background.append(ious.max(1).values[~on])
    at = torch.cat(chosen).float()
    figures = {
        "best": torch.cat(best).mean(),
        "chosen": at.mean(),
        "chosen>=0.75": (at >= 0.75).float().mean(),
        "predicted": torch.cat(sure).float().mean(),
        "on background": torch.cat(background).float().mean(),
    }
    return " ".join(f"{name} {value:.3f}" for name, value in figures.items())


def equalise_projections(model: Any) -> None:
    """Start cross-attention with equal query and key projections, so that a point attends to its place.

    With random projections the prompt is ignored for a long time, and every point gets all objects.
    """
    for module in model.sam_mask_decoder.transformer.modules():
        if hasattr(module, "q_proj") and module.q_proj.weight.shape == module.k_proj.weight.shape:
            with torch.no_grad():
                module.q_proj.weight.mul_(1.5)
                module.k_proj.weight.copy_(module.q_proj.weight)


def train(folder: Path, options: Sam2Options, scale: float, device: torch.device) -> Path:
    """Train in `folder` and return the checkpoint written there, in SAM 2's own format.

    Args:
        options: options of the engine, which determine the model.
        scale: factor for the number of steps.
    """
    torch.manual_seed(2)
    model: nn.Module = build_model(options).to(device)
    equalise_projections(model)
    for part in ("memory_attention", "memory_encoder"):
        getattr(model, part).requires_grad_(False)

    def step(number: int) -> Tensor:
        batch = prompts(number * BATCH, BATCH, "train", device)
        with recipe.autocast(device):
            logits, ious = predict_masks(model, batch.images, batch.points)
        return loss(logits, ious, batch)

    recipe.train(model, SCHEDULE.scaled(scale), step, lambda: measure_iou(model, device), folder)
    return write(model, folder / "sam2.pt")


def write(model: nn.Module, path: Path) -> Path:
    """Write the checkpoint in SAM 2's form, {"model": state dict}, in float16, which the loader widens."""
    partial = path.with_suffix(".part")
    torch.save({"model": {name: value.half() for name, value in model.state_dict().items()}}, partial)
    partial.replace(path)
    return path
