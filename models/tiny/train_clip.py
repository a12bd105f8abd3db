"""Training of a tiny CLIP with an ordinary image tower, for comparing ways to encode regions.

The tower has the size of the tiny Alpha-CLIP and starts from its weights, without the mask's channel. It
learns pictures and crops of them around an object with a phrase for each, as CLIP learns photos with
captions: no mask is ever shown. It is not part of the tiny set.

    python -m matir_cli.models.tiny.train clip --out DIR
    python -m matir_cli.models.tiny.train_clip DIR [PICTURES]

The second command compares, on pictures of the validation split with the masks of their objects, the
Alpha-CLIP in the package, crops of the regions' boxes, and region tokens.
"""

import sys
import time
from collections.abc import Callable, Mapping, Sequence
from importlib.resources import files
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save
from torch import Tensor
from torch.nn import functional

from matir_cli import masks
from matir_cli.engines.registry import load_region_encoder, load_text_encoder
from matir_cli.model_sets.catalogue import load_model_set
from matir_cli.model_sets.weights import locate_files
from matir_cli.models.tiny import clip_tokenizer, recipe
from matir_cli.models.tiny.grammar import GROUPS, Query, fulfils
from matir_cli.models.tiny.train_alpha_clip import (
    HEADS,
    TwoTowers,
    cross_entropy,
    describe,
    half_precision,
    model_image,
)
from matir_cli.models.tiny.world import Picture
from matir_cli.records import EngineConfig, FloatArray, ImageArray, ModelIdentity, Rle

PICTURES, OBJECTS = 16, 2
"""Pictures per batch, and the crops taken from each beside the whole picture."""

SCHEDULE = recipe.Schedule("clip", steps=500, rate=5e-4, warm_up=50, report_every=100)

FILE = "clip.safetensors"

COMPARED = 80
"""Pictures of the validation split that the ways are compared on."""


def crop_around(picture: Picture, thing: int, rng: np.random.Generator) -> Picture | None:
    """Return the part of `picture` around a thing, up to three times as long; None if nothing is left."""
    height, width = picture.owner.shape
    box = picture.things[thing].box
    scale = rng.uniform(1.0, 3.0)
    across, down = scale * (box.x1 - box.x0) / 2, scale * (box.y1 - box.y0) / 2
    x, y = (box.x0 + box.x1) / 2, (box.y0 + box.y1) / 2
    rows = slice(max(0, round(y - down)), min(height, round(y + down)))
    columns = slice(max(0, round(x - across)), min(width, round(x + across)))
    if rows.stop - rows.start < 4 or columns.stop - columns.start < 4:
        return None
    return Picture(
        picture.seed,
        picture.image[rows, columns],
        picture.things,
        picture.ropes,
        picture.owner[rows, columns],
    )


def batch_of(first: int, count: int, device: torch.device) -> tuple[Tensor, list[Query], Tensor]:
    """Return images (n, 3, SIDE, SIDE), a phrase for each, and which phrase is true of which image (n, n)."""
    images, queries, shown = [], [], []
    for picture in recipe.pictures(first, count):
        rng = np.random.default_rng((picture.seed, 3))
        chosen = [int(thing) for thing in rng.permutation(len(picture.things))[: OBJECTS + 1]]
        for place, thing in enumerate(chosen):
            part = picture if place == 0 else crop_around(picture, thing, rng)
            if part is None or not (part.owner == thing).any():
                continue
            images.append(model_image(part))
            queries.append(describe(picture, picture.things[thing], rng))
            shown.append((picture, frozenset(np.unique(part.owner).tolist())))
    true = [
        [any(thing in visible for thing in fulfils(query, picture)) for query in queries]
        for picture, visible in shown
    ]
    return torch.stack(images).to(device), queries, torch.tensor(true, device=device).float()


def train(folder: Path, scale: float, device: torch.device) -> tuple[Path]:
    """Train in `folder`; return the file of both towers written there.

    Args:
        folder: for the checkpoint and the file.
        scale: factor for the number of steps.
        device: where to compute.
    """
    torch.manual_seed(4)
    towers = TwoTowers(clip_tokenizer.build())
    package = Path(str(files("matir_cli.models"))) / "tiny"
    visual = torch.load(package / "alpha_clip.pth", weights_only=True)
    towers.visual.load_state_dict({name: value.float() for name, value in visual.items()})
    towers.text.load_state_dict(
        {name: value.float() for name, value in load_file(package / "clip_text.safetensors").items()}
    )
    torch.nn.init.zeros_(towers.visual.conv1_alpha.weight).requires_grad_(False)
    towers.to(device)

    def logits(images: Tensor, queries: Sequence[Query]) -> Tensor:
        vectors = functional.normalize(
            towers.visual.encode_patches(towers.visual.conv1(images)).float(), dim=-1
        )
        scaled: Tensor = towers.logit_scale.clamp(max=4.6).exp() * (vectors @ towers.phrases(queries).T)
        return scaled

    def step(number: int) -> Tensor:
        images, queries, truth = batch_of(number * PICTURES, PICTURES, device)
        with recipe.autocast(device):
            found = logits(images, queries)
            loss: Tensor = cross_entropy(found, truth) + cross_entropy(found.T, truth.T)
        return loss

    recipe.train(towers, SCHEDULE.scaled(scale), step, lambda: "", folder)
    state = {
        f"visual.{name}": value for name, value in towers.visual.state_dict().items() if "alpha" not in name
    }
    path = folder / FILE
    path.write_bytes(save(half_precision({**state, **towers.text.state_dict()})))
    return (path,)


Encode = Callable[[ImageArray, Sequence[Rle]], FloatArray]
"""Encodes regions of a picture as unit vectors."""


def compare(folder: Path, count: int = COMPARED) -> dict[str, tuple[dict[str, float], float]]:
    """Return, for each way to encode regions, mean average precision by query group and seconds per picture.

    Args:
        folder: holds the file that `train` has written.
        count: pictures of the validation split.
    """
    package = locate_files(load_model_set("tiny"), "encoder")
    vocabulary = package.files["vocabulary"]
    towers = {"checkpoint": folder / FILE, "vocabulary": vocabulary}
    texts = load_text_encoder(package), load_text_encoder(_config({}, towers))
    alpha = load_region_encoder(package, "cpu").encode
    ways: dict[str, tuple[Encode, int]] = {
        "Alpha-CLIP": (alpha, 0),
        "crops of boxes": (_crop_encoder(towers), 1),
    }
    for crops in (0, 1, 2, 3):
        for threshold in (-3.0, 0.07):
            options = {"crops": crops, "global_patch_threshold": threshold}
            kept = "all patches" if threshold < 0 else "global patches left out"
            ways[f"region tokens, crops = {crops}, {kept}"] = (
                load_region_encoder(_config(options, towers), "cpu").encode, 1
            )  # fmt: skip
    pictures = list(recipe.pictures(0, count, "validation"))
    shown = [[masks.encode(picture.mask(thing.id)) for thing in picture.things] for picture in pictures]
    queries, truth = questions_of(pictures)
    asked = [np.stack([each.encode(query.text).vector for query in queries]) for each in texts]
    result = {}
    for name, (encode, text) in ways.items():
        started = time.perf_counter()
        vectors = np.concatenate(
            [encode(picture.image, rles) for picture, rles in zip(pictures, shown, strict=True)]
        )
        seconds = (time.perf_counter() - started) / len(pictures)
        result[name] = (_precisions(queries, asked[text] @ vectors.T, truth), seconds)
    return result


def _config(options: Mapping[str, object], towers: dict[str, Path]) -> EngineConfig:
    """Return the configuration of region tokens with the tiny CLIP."""
    heads = {"heads": HEADS, "text_heads": HEADS, "prompts": ["{}"]}
    return EngineConfig("region_tokens", {**heads, **options}, towers, ModelIdentity("clip", "0" * 64))


def _crop_encoder(towers: dict[str, Path]) -> Encode:
    """Return an encoder of the regions' boxes, cut out and stretched over the tower's square."""
    encoder = load_region_encoder(_config({}, towers), "cpu")

    def encode(image: ImageArray, rles: Sequence[Rle]) -> FloatArray:
        vectors = []
        for box in map(masks.box, rles):
            part = image[round(box.y0) : max(round(box.y1), 1), round(box.x0) : max(round(box.x1), 1)]
            vectors.append(encoder.encode(part, [masks.whole(*part.shape[:2])]))
        return np.concatenate(vectors)

    return encode


def questions_of(pictures: Sequence[Picture]) -> tuple[list[Query], FloatArray]:
    """Return a phrase for each thing, and (phrases, things) 1 where it is true of the thing."""
    queries = [
        describe(picture, thing, np.random.default_rng((picture.seed, 2)))
        for picture in pictures
        for thing in picture.things
    ]
    rows = []
    for query in queries:
        true = [frozenset(fulfils(query, picture)) for picture in pictures]
        rows.append([t.id in ids for p, ids in zip(pictures, true, strict=True) for t in p.things])
    return queries, np.array(rows, dtype=np.float32)


def _precisions(queries: Sequence[Query], scores: FloatArray, truth: FloatArray) -> dict[str, float]:
    """Return the mean average precision of the things, by query group."""
    found: dict[str, list[float]] = {group: [] for group in GROUPS}
    for query, row, true in zip(queries, scores, truth, strict=True):
        hits = true[np.argsort(-row, kind="stable")]
        precision = np.cumsum(hits) / np.arange(1, len(hits) + 1)
        found[query.group].append(float((precision * hits).sum() / hits.sum()))
    return {group: float(np.mean(values)) for group, values in found.items() if values}


def main(arguments: Sequence[str]) -> None:
    """Print the comparison as a table."""
    results = compare(Path(arguments[0]), *map(int, arguments[1:]))
    groups = list(next(iter(results.values()))[0])
    sys.stdout.write(
        f"| regions by | {' | '.join(groups)} | ms per picture |\n|{'---|' * (len(groups) + 2)}\n"
    )
    for name, (precisions, seconds) in results.items():
        cells = " | ".join(f"{precisions[group]:.3f}" for group in groups)
        sys.stdout.write(f"| {name} | {cells} | {1e3 * seconds:.0f} |\n")


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(sys.argv[1:])
