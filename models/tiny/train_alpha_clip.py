"""Contrastive training of the tiny Alpha-CLIP on regions and phrases.

A batch consists of pictures, a few regions of each (objects, and either the whole photo or a blob that
is no object) and a phrase for each object. The world knows which phrase is true of which region, so
every true pair in the batch is a positive, not only the pair that a phrase was made from. Phrases name
looks and parts but seldom relations, which are left to the judge.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from safetensors.torch import save
from tokenizers import Tokenizer
from torch import Tensor, nn
from torch.nn import functional
from transformers import CLIPTextConfig, CLIPTextModelWithProjection

from matir_cli.engines.clip.alpha_tower import Architecture, VisualTower
from matir_cli.models.tiny import clip_tokenizer, recipe
from matir_cli.models.tiny.grammar import GROUPS, Phrase, Query, describe_look, fulfils, part_of
from matir_cli.models.tiny.world import Picture, Thing

SIDE, PATCH, WIDTH, LAYERS, HEADS = 96, 8, 128, 4, 4
DIMENSIONS = 96
ALPHA_MEAN, ALPHA_STD = 0.5, 0.26
MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)

PICTURES, OBJECTS = 16, 4
"""Pictures per batch, and the largest number of objects taken from each."""

SCHEDULE = recipe.Schedule("alpha_clip", steps=1600, rate=1e-3, report_every=100)


class TwoTowers(nn.Module):
    """The engine's visual tower, transformers' text tower, and the learnt temperature."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        """Make untrained towers; `tokenizer` is set to pad."""
        super().__init__()
        self.visual = VisualTower(Architecture(WIDTH, LAYERS, HEADS, PATCH, SIDE // PATCH, DIMENSIONS))
        end = tokenizer.token_to_id(clip_tokenizer.END)
        self.text = CLIPTextModelWithProjection(
            CLIPTextConfig(
                vocab_size=tokenizer.get_vocab_size(),
                hidden_size=WIDTH,
                intermediate_size=4 * WIDTH,
                projection_dim=DIMENSIONS,
                num_hidden_layers=3,
                num_attention_heads=HEADS,
                max_position_embeddings=77,
                hidden_act="quick_gelu",
                bos_token_id=tokenizer.token_to_id(clip_tokenizer.START),
                eos_token_id=end,
                pad_token_id=end,
            )
        )
        self.logit_scale = nn.Parameter(torch.tensor(2.6))
        tokenizer.enable_padding(pad_id=end, pad_token=clip_tokenizer.END)
        self._tokenizer = tokenizer

    def regions(self, images: Tensor, alphas: Tensor) -> Tensor:
        """(n, DIMENSIONS) unit vectors of (n, 3, SIDE, SIDE) images and (n, 1, SIDE, SIDE) alphas."""
        return functional.normalize(self.visual(images, alphas).float(), dim=-1)

    def phrases(self, queries: Sequence[Query]) -> Tensor:
        """(len(queries), DIMENSIONS) unit vectors of texts."""
        ids = torch.tensor([e.ids for e in self._tokenizer.encode_batch([q.text for q in queries])]).to(
            self.logit_scale.device
        )
        return functional.normalize(self.text(input_ids=ids).text_embeds.float(), dim=-1)


@dataclass(frozen=True)
class Batch:
    """Regions, phrases, and the pairs that match."""

    images: Tensor
    """(regions, 3, SIDE, SIDE), normalised."""
    alphas: Tensor
    """(regions, 1, SIDE, SIDE), normalised."""
    queries: list[Query]
    """One per object region."""
    truth: Tensor
    """(regions, queries): 1.0 where the query is true of the region, else 0.0."""
    of_object: Tensor
    """(regions,) bool: True for an object, False for a whole photo or a blob."""


def model_image(picture: Picture) -> Tensor:
    """(3, SIDE, SIDE): the whole photo, squashed to the square as the engine does and normalised."""
    square = Image.fromarray(picture.image).resize((SIDE, SIDE), Image.Resampling.BICUBIC)
    image = torch.from_numpy(np.array(square)).permute(2, 0, 1).float() / 255
    return (image - torch.tensor(MEAN)[:, None, None]) / torch.tensor(STD)[:, None, None]


def model_alpha(mask: NDArray[np.bool_]) -> Tensor:
    """(1, SIDE, SIDE): the mask, squashed like the photo and normalised."""
    square = Image.fromarray(mask.astype(np.float32)).resize((SIDE, SIDE), Image.Resampling.BILINEAR)
    return (torch.from_numpy(np.array(square))[None] - ALPHA_MEAN) / ALPHA_STD


def describe(picture: Picture, thing: Thing, rng: np.random.Generator) -> Query:
    """A random true phrase: a look, a part if the kind has one, seldom a relation."""
    phrase, part = describe_look(thing, rng), part_of(thing, picture)
    roll = rng.random()
    if part is not None and roll < 0.4:
        phrase = Phrase(thing.kind, phrase.colour, part=part)
    elif roll < 0.15:
        pairs = [(r, b) for r, ab in picture.relations.items() for a, b in sorted(ab) if a == thing.id]
        if pairs:
            relation, other = pairs[rng.integers(len(pairs))]
            query = Query(
                replace(phrase, texture=None, size=None), relation, Phrase(picture.things[other].kind)
            )
            return Query(phrase) if query.held_out else query
    return Query(phrase)


def batch_of(first: int, count: int, split: str, device: torch.device) -> Batch:
    """The regions and phrases of `count` pictures of a split, beginning with number `first`."""
    images, alphas, queries = [], [], []
    owners: list[tuple[int, int | None]] = []
    pictures = list(recipe.pictures(first, count, split))
    for place, picture in enumerate(pictures):
        rng = np.random.default_rng((picture.seed, 2))
        image = model_image(picture)
        for thing in rng.permutation(len(picture.things))[:OBJECTS]:
            images.append(image)
            alphas.append(model_alpha(_imprecise(picture.mask(int(thing)), rng)))
            owners.append((place, int(thing)))
            queries.append(describe(picture, picture.things[int(thing)], rng))
        other = np.ones_like(picture.mask(0)) if place % 2 else _blob(picture, rng)
        images.append(image)
        alphas.append(model_alpha(other))
        owners.append((place, None if place % 2 else -1))
    truth = np.zeros((len(owners), len(queries)), dtype=np.float32)
    for column, query in enumerate(queries):
        true = [fulfils(query, picture) for picture in pictures]
        for row, (place, thing) in enumerate(owners):
            truth[row, column] = bool(true[place]) if thing is None else thing in true[place]
    return Batch(
        torch.stack(images).to(device),
        torch.stack(alphas).to(device),
        queries,
        torch.from_numpy(truth).to(device),
        torch.tensor([thing is not None and thing >= 0 for _, thing in owners]).to(device),
    )


def _imprecise(mask: NDArray[np.bool_], rng: np.random.Generator) -> NDArray[np.bool_]:
    """The mask shifted by up to two pixels, since a proposer's edges are never exact."""
    return np.roll(mask, tuple(int(v) for v in rng.integers(-2, 3, 2)), axis=(0, 1))


def _blob(picture: Picture, rng: np.random.Generator) -> NDArray[np.bool_]:
    """An ellipse of background: a region that a proposer may propose and no phrase describes."""
    height, width = picture.owner.shape
    rows, columns = np.mgrid[:height, :width]
    y, x = rng.uniform(0, height), rng.uniform(0, width)
    ry, rx = rng.uniform(0.08, 0.5, 2) * min(height, width)
    return np.asarray((((rows - y) / ry) ** 2 + ((columns - x) / rx) ** 2 < 1) & (picture.owner == -1))


def loss(towers: TwoTowers, batch: Batch) -> Tensor:
    """Cross-entropy against all true pairs: each phrase over all regions, each object over all phrases."""
    logits = towers.logit_scale.clamp(max=4.6).exp() * (
        towers.regions(batch.images, batch.alphas) @ towers.phrases(batch.queries).T
    )
    to_region = cross_entropy(logits.T, batch.truth.T)
    objects = batch.of_object
    return to_region + cross_entropy(logits[objects], batch.truth[objects])


def cross_entropy(logits: Tensor, truth: Tensor) -> Tensor:
    """Mean over rows of the cross-entropy, the row's true columns being equally likely."""
    return -(logits.log_softmax(1) * truth / truth.sum(1, keepdim=True)).sum(1).mean()


def measure_ranking(towers: TwoTowers, device: torch.device) -> str:
    """Mean average precision over the object regions of 160 validation pictures, by query group."""
    batch = batch_of(0, 160, "validation", device)
    with torch.no_grad():
        parts = [slice(first, first + 64) for first in range(0, len(batch.images), 64)]
        regions = torch.cat([towers.regions(batch.images[part], batch.alphas[part]) for part in parts])
        scores = towers.phrases(batch.queries) @ regions.T
    precisions: dict[str, list[float]] = {group: [] for group in (*GROUPS, "by chance")}
    truth = batch.truth.T[:, batch.of_object].cpu()
    for query, row, true in zip(batch.queries, scores[:, batch.of_object].cpu(), truth, strict=True):
        hits = true[row.argsort(descending=True)]
        precision = hits.cumsum(0) / torch.arange(1, len(hits) + 1)
        precisions[query.group].append(float((precision * hits).sum() / hits.sum()))
        precisions["by chance"].append(float(true.mean()))
    return " ".join(f"{name} {np.mean(values):.3f}" for name, values in precisions.items() if values)


def train(folder: Path, scale: float, device: torch.device) -> tuple[Path, Path, Path]:
    """Train in `folder`; return the files of visual tower, text tower and tokenizer written there.

    Args:
        scale: factor for the number of steps.
    """
    torch.manual_seed(3)
    tokenizer = clip_tokenizer.build()
    towers = TwoTowers(tokenizer).to(device)

    def step(number: int) -> Tensor:
        batch = batch_of(number * PICTURES, PICTURES, "train", device)
        with recipe.autocast(device):
            return loss(towers, batch)

    recipe.train(towers, SCHEDULE.scaled(scale), step, lambda: measure_ranking(towers, device), folder)
    return write(towers, folder)


def write(towers: TwoTowers, folder: Path) -> tuple[Path, Path, Path]:
    """Write Alpha-CLIP's state dict, transformers' text tower (both float16) and CLIP's `tokenizer.json`."""
    visual, text, words = (
        folder / "alpha_clip.pth",
        folder / "clip_text.safetensors",
        folder / "tokenizer.json",
    )
    torch.save(half_precision(towers.visual.state_dict()), visual)
    text.write_bytes(save(half_precision(towers.text.state_dict())))
    clip_tokenizer.build().save(str(words))
    return visual, text, words


def half_precision(state: dict[str, Any]) -> dict[str, Tensor]:
    """The floating-point tensors in float16."""
    return {name: value.half().contiguous() for name, value in state.items() if value.is_floating_point()}
