"""Training of the tiny Qwen2.5-VL in four stages.

1. The vision tower alone, with a temporary linear head on its merged tokens: which object is here?
2. True or False about single objects: kinds, looks, parts.
3. True or False with relations mixed in.
4. Boxes mixed in, weighted per answer: a box has 14 tokens and would outweigh the one token "True".

In a single stage from random weights, the model stays at chance. Questions have exactly the words in
which the judge asks them.
"""

import json
from collections import defaultdict
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional
from transformers import PreTrainedTokenizerFast, Qwen2_5_VLForConditionalGeneration

from matir_cli.engines.qwen_vl.boxes import ImageSize
from matir_cli.engines.qwen_vl.family import QWEN2_5_VL
from matir_cli.engines.qwen_vl.options import GROUND, HEAD, RERANK, TAIL
from matir_cli.models.tiny import qwen_model, recipe
from matir_cli.models.tiny.clip_tokenizer import corpus
from matir_cli.models.tiny.gguf_writer import write_gguf
from matir_cli.models.tiny.grammar import ASKED_SIZES, PARTS, part_of
from matir_cli.models.tiny.questions import FORMS, Question, ask
from matir_cli.models.tiny.qwen_model import Branch
from matir_cli.models.tiny.qwen_tokenizer import build_tokenizer
from matir_cli.models.tiny.shapes import COLOURS, KINDS, TEXTURES
from matir_cli.models.tiny.world import Picture

BEFORE, AFTER = f"{HEAD}<|vision_start|>", "<|vision_end|>"
JUDGE, LOCATE = RERANK.rstrip(), GROUND.rstrip()
"""Without the last space, which belongs to the first word of the description, as in any text."""

SINGLES = {"kind": 1.0, "look": 2.0, "part": 1.0}
EVERYTHING = {"kind": 0.5, "look": 2.0, "part": 1.5, "not": 2.0, "side": 4.0, "inside": 1.5, "tied to": 2.5}

PICTURES = 16
QUESTIONS = 16
"""True/False questions per picture in one step without boxes."""

WITH_BOXES = (8, 2)
"""True/False questions and boxes per picture in one step with boxes."""

VISION = recipe.Schedule("qwen_vision", steps=1500, rate=1.5e-3, report_every=100)
STAGE_SINGLES = recipe.Schedule("qwen_singles", steps=800, rate=1e-3, report_every=50)
STAGE_RELATIONS = recipe.Schedule("qwen_relations", steps=2000, rate=8e-4, report_every=100)
STAGE_BOXES = recipe.Schedule("qwen_boxes", steps=2000, rate=6e-4, report_every=100)

OFFSETS = {"qwen_singles": 200_000, "qwen_relations": 300_000, "qwen_boxes": 500_000}
"""First training picture of each stage of questions."""

HEADS = {
    "place": 2,
    "kind": len(KINDS) + 1,
    "colour": len(COLOURS),
    "texture": 2,
    "size": 3,
    "part": 5,
    "box": 4,
}
"""Outputs of the temporary head for each merged token, with their numbers of values.

Place and box are absolute: rotary positions let a token know where another one is, but add nothing to
the values passed on; without these outputs the language model learnt neither boxes nor "left of".
"""

SPAN = 6
"""Unit of places and boxes: the approximate number of tokens along a side."""


class VisionWithHead(nn.Module):
    """The vision tower and its temporary head."""

    def __init__(self, visual: nn.Module) -> None:
        """Put an untrained head on the tower `visual`."""
        super().__init__()
        self.visual = visual
        self.head = nn.Linear(qwen_model.WIDTH, sum(HEADS.values()))

    def forward(self, patches: qwen_model.Patches) -> dict[str, Tensor]:
        """(pictures, tokens, n) for each of `HEADS`."""
        outputs = self.head(qwen_model.encode_patches(self.visual, patches).float())
        return dict(zip(HEADS, outputs.split(list(HEADS.values()), dim=-1), strict=True))


def label_tokens(picture: Picture, size: ImageSize) -> NDArray[np.float32]:
    """(tokens, 11): the token's place (x, y), kind (0: none), colour, texture, size, part, and box.

    A token shows the object that covers most of it, if that covers a fifth. Place and box are in units
    of `SPAN`.
    """
    rows, columns = size.height // 28, size.width // 28
    owner = Image.fromarray(picture.owner.astype(np.int32)).resize(
        (columns * 7, rows * 7), Image.Resampling.NEAREST
    )
    counted = np.asarray(owner).reshape(rows, 7, columns, 7).transpose(0, 2, 1, 3).reshape(rows, columns, 49)
    shares = np.stack([(counted == thing.id).sum(-1) for thing in picture.things])
    table = np.zeros((rows, columns, 11), dtype=np.float32)
    table[..., 1], table[..., 0] = np.mgrid[:rows, :columns] / SPAN
    height, width = picture.owner.shape
    for y, x in zip(*np.nonzero(shares.max(0) >= 10), strict=True):
        thing = picture.things[int(shares[:, y, x].argmax())]
        box = thing.box.scaled(columns / width, rows / height)
        part = part_of(thing, picture)
        table[y, x, 2:] = (
            1 + KINDS.index(thing.kind),
            list(COLOURS).index(thing.colour),
            TEXTURES.index(thing.texture),
            ("medium", *ASKED_SIZES).index(thing.size),
            list(PARTS).index(part) if part in PARTS else 0,
            *(box.x0 / SPAN, box.y0 / SPAN, box.x1 / SPAN, box.y1 / SPAN),
        )
    return table.reshape(-1, 11)


def _vision_batch(
    first: int, count: int, split: str, device: torch.device
) -> tuple[qwen_model.Patches, Tensor, Tensor]:
    """Patches, their (pictures, tokens, 11) labels, and (pictures, tokens) False for padding."""
    pictures = list(recipe.pictures(first, count, split))
    patches = qwen_model.patches_of([picture.image for picture in pictures], device)
    longest = patches.pixels.shape[1] // 4
    truth = torch.zeros(count, longest, 11)
    tokens = [size.tokens(QWEN2_5_VL.factor) for size in patches.sizes]
    for row, (picture, size) in enumerate(zip(pictures, patches.sizes, strict=True)):
        truth[row, : tokens[row]] = torch.from_numpy(label_tokens(picture, size))
    real = torch.arange(longest) < torch.tensor(tokens)[:, None]
    return patches, truth.to(device), real.to(device)


def vision_loss(outputs: dict[str, Tensor], truth: Tensor, real: Tensor) -> Tensor:
    """Kinds and places of all tokens; looks, parts and boxes of tokens that show an object.

    Cross-entropies, and smooth L1 distances of places and boxes.
    """
    total = functional.cross_entropy(outputs["kind"][real], truth[real][:, 2].long())
    shown = real & (truth[..., 2] > 0)
    for column, name in enumerate(("colour", "texture", "size", "part"), start=3):
        total = total + 0.5 * functional.cross_entropy(outputs[name][shown], truth[shown][:, column].long())
    total = total + 5 * functional.smooth_l1_loss(outputs["place"][real], truth[real][:, :2], beta=0.1)
    return total + 5 * functional.smooth_l1_loss(outputs["box"][shown], truth[shown][:, 7:], beta=0.1)


def train_vision(
    model: Qwen2_5_VLForConditionalGeneration, folder: Path, scale: float, device: torch.device
) -> None:
    """Stage 1."""
    vision = VisionWithHead(model.model.visual).to(device)

    def step(number: int) -> Tensor:
        patches, truth, real = _vision_batch(number * 32, 32, "train", device)
        with recipe.autocast(device):
            outputs = vision(patches)
        return vision_loss(outputs, truth, real)

    def report() -> str:
        patches, truth, real = _vision_batch(0, 96, "validation", device)
        outputs = vision(patches)
        shown = real & (truth[..., 2] > 0)
        right = {
            name: float((outputs[name][shown].argmax(-1) == truth[shown][:, column]).float().mean())
            for column, name in enumerate(("kind", "colour", "texture", "size", "part"), start=2)
        }
        right["place"] = float((outputs["place"][real] - truth[real][:, :2]).abs().mean() * SPAN)
        right["box"] = float((outputs["box"][shown] - truth[shown][:, 7:]).abs().mean() * SPAN)
        return " ".join(f"{name} {value:.3f}" for name, value in right.items())

    recipe.train(vision, VISION.scaled(scale), step, report, folder)


@dataclass(frozen=True)
class QuestionTokenizer:
    """Turns questions and their answers into branches of tokens."""

    tokenizer: PreTrainedTokenizerFast

    @cached_property
    def digits(self) -> frozenset[int]:
        """Ids of the ten digits."""
        return frozenset(self.ids(digit)[0] for digit in "0123456789")

    def ids(self, text: str) -> list[int]:
        """Token ids of a piece of the prompt; it must begin where a token begins."""
        return list(self.tokenizer(text, add_special_tokens=False).input_ids)

    def verdict(self, picture: Picture, size: ImageSize, question: Question) -> Branch:
        """The branch of a True/False question, after `AFTER` and `JUDGE`."""
        prompt = self.ids(f" {question.query.text}{TAIL}")
        answer = self.ids("True" if question.things else "False")
        weights = (*[0.0] * len(prompt), *[1.0] * len(answer))
        return Branch(True, (*prompt, *answer), weights, _box_of(picture, size, question))

    def location(self, picture: Picture, size: ImageSize, question: Question) -> Branch:
        """The branch of a box question, after `AFTER`; weights sum to one, most of it on digits."""
        prompt = self.ids(f"{LOCATE} {question.query.text}{TAIL}")
        height, width = picture.owner.shape
        boxes = [
            picture.things[i].box.scaled(size.width / width, size.height / height) for i in question.things
        ]
        label = json.dumps(question.query.text)
        objects = [
            f'{{"bbox_2d": [{b.x0:.0f}, {b.y0:.0f}, {b.x1:.0f}, {b.y1:.0f}], "label": {label}}}'
            for b in boxes
        ]
        answer = self.ids("```json\n[\n\t" + ",\n\t".join(objects) + "\n]\n```<|im_end|>")
        weighted = np.array([1.0 if token in self.digits else 0.15 for token in answer])
        weights = (*[0.0] * len(prompt), *(weighted / weighted.sum()))
        return Branch(False, (*prompt, *answer), weights, _box_of(picture, size, question))


def _box_of(
    picture: Picture, size: ImageSize, question: Question
) -> tuple[float, float, float, float] | None:
    """The box of the first object that fulfils the question, in tokens; None if there is none."""
    if not question.things:
        return None
    height, width = picture.owner.shape
    box = picture.things[question.things[0]].box.scaled(size.width / 28 / width, size.height / 28 / height)
    return box.x0, box.y0, box.x1, box.y1


class ModelWithPointer(nn.Module):
    """The model and a temporary head that predicts, at the end of a question, its object's box.

    The digits of a box alone are too weak a signal: without the head, first digits were right in 0.55
    of cases after 40,000 boxes.
    """

    def __init__(self, model: Qwen2_5_VLForConditionalGeneration) -> None:
        """Put an untrained head on `model`."""
        super().__init__()
        self.model = model
        self.pointer = nn.Linear(qwen_model.WIDTH, 4)

    def forward(self, batch: "QuestionBatch") -> tuple[Tensor, Tensor]:
        """(predictions, vocabulary) logits of the trees, and (boxes, 4) boxes in units of `SPAN`."""
        visual_tokens = qwen_model.encode_patches(self.model.model.visual, batch.patches)
        logits, states = qwen_model.predict(self.model, visual_tokens, batch.trees)
        return logits, self.pointer(states)


def make_tokenizer() -> PreTrainedTokenizerFast:
    """Train a tokenizer on the prompts, the grammar and the answers."""
    texts = [
        BEFORE,
        JUDGE,
        LOCATE,
        TAIL,
        'True False ```json\n[\n\t{"bbox_2d": [1, 2, 3, 4], "label": ""}\n]\n```',
    ] * 50
    texts.extend(text for query in corpus() for text in (f" {query}", f'"{query}"'))
    tokenizer: PreTrainedTokenizerFast = build_tokenizer(texts, 640)
    return tokenizer


class QuestionBatch:
    """Pictures and questions about them, laid out for one step."""

    def __init__(
        self,
        tokenizer: QuestionTokenizer,
        pictures: list[Picture],
        forms: dict[str, float],
        seed: int,
        device: torch.device,
        *,
        counts: tuple[int, int] = (QUESTIONS, 0),
    ) -> None:
        """Draw questions by `seed`.

        Args:
            counts: True/False questions and boxes per picture.
        """
        to_judge_count, boxes = counts
        self.patches = qwen_model.patches_of([picture.image for picture in pictures], device)
        self.kinds: list[str] = []
        branches = []
        judged = ask(pictures, to_judge_count, forms, seed)
        boxed = ask(pictures, 6 * boxes, forms, seed + 1) if boxes else [[] for _ in pictures]
        for picture, size, to_judge, to_box in zip(pictures, self.patches.sizes, judged, boxed, strict=True):
            to_locate = [question for question in to_box if question.things][:boxes]
            branches.append(
                [tokenizer.verdict(picture, size, q) for q in to_judge]
                + [tokenizer.location(picture, size, q) for q in to_locate]
            )
            self.kinds.extend(q.form for q in to_judge)
            self.kinds.extend("box" for _ in to_locate)
        self.answers = len(self.kinds)
        after = tokenizer.ids(AFTER), tokenizer.ids(JUDGE)
        self.trees = qwen_model.lay_out_questions(
            tokenizer.ids(BEFORE), self.patches.sizes, after, branches, device
        )


def answer_loss(logits: Tensor, pointed: Tensor, batch: QuestionBatch) -> Tensor:
    """Cross-entropy, every answer counting as one however many tokens it has, plus the pointer's error."""
    each = functional.cross_entropy(logits, batch.trees.targets, reduction="none")
    far = functional.smooth_l1_loss(pointed, batch.trees.boxes / SPAN, beta=0.1)
    total: Tensor = (each * batch.trees.weights).sum() / batch.answers + 5 * far
    return total


def measure_accuracy(
    model: ModelWithPointer,
    tokenizer: QuestionTokenizer,
    forms: dict[str, float],
    boxes: bool,
    device: torch.device,
) -> str:
    """Share of right answers by form of question (base rate one half), on 96 validation pictures.

    For boxes, the share of right digits given the right digits before them; "far" is the pointer's
    mean error in tokens.
    """
    errors: list[float] = []
    right: dict[str, list[bool]] = defaultdict(list)
    true, false = tokenizer.ids("True")[0], tokenizer.ids("False")[0]
    for first in range(0, 96, 16):
        batch = QuestionBatch(
            tokenizer,
            list(recipe.pictures(first, 16, "validation")),
            forms,
            first,
            device,
            counts=WITH_BOXES if boxes else (QUESTIONS, 0),
        )
        logits, pointed = model(batch)
        errors.append(float((pointed * SPAN - batch.trees.boxes).abs().mean()))
        targets = batch.trees.targets
        verdict = (targets == true) | (targets == false)
        answered_true = logits[:, true] > logits[:, false]
        hits = torch.where(verdict, answered_true == (targets == true), logits.argmax(-1) == targets)
        forms_of = iter(kind for kind in batch.kinds if kind != "box")
        digits = torch.tensor([token in tokenizer.digits for token in targets.tolist()])
        for is_verdict, is_digit, hit in zip(verdict.tolist(), digits.tolist(), hits.tolist(), strict=True):
            if is_verdict:
                right[next(forms_of)].append(hit)
            elif is_digit:
                right["digit"].append(hit)
    shares = [f"{form} {np.mean(right[form]):.3f}" for form in (*FORMS, "digit") if right[form]]
    return " ".join([*shares, f"far {np.mean(errors):.3f}"])


def train_answers(
    model: ModelWithPointer,
    tokenizer: QuestionTokenizer,
    schedule: recipe.Schedule,
    forms: dict[str, float],
    folder: Path,
    device: torch.device,
    *,
    boxes: bool = False,
) -> None:
    """Stages 2 to 4.

    The vision tower stays as stage 1 left it. When it was trained together with the untrained language
    model, it forgot within 400 steps: kinds fell from 0.90 right to 0.15.
    """
    model.model.model.visual.requires_grad_(False)

    def step(number: int) -> Tensor:
        first = OFFSETS[schedule.name] + number * PICTURES
        pictures = list(recipe.pictures(first, PICTURES))
        counts = WITH_BOXES if boxes else (QUESTIONS, 0)
        batch = QuestionBatch(tokenizer, pictures, forms, first, device, counts=counts)
        with recipe.autocast(device):
            logits, pointed = model(batch)
        return answer_loss(logits, pointed, batch)

    def report() -> str:
        return measure_accuracy(model, tokenizer, forms, boxes, device)

    recipe.train(model, schedule, step, report, folder)


def train(folder: Path, scale: float, device: torch.device) -> tuple[Path, Path]:
    """Train all stages in `folder`; return the files of text model and projector written there.

    Args:
        scale: factor for the number of steps.
    """
    torch.manual_seed(4)
    tokenizer = QuestionTokenizer(make_tokenizer())
    model = qwen_model.build(tokenizer.tokenizer).to(device)
    train_vision(model, folder, scale, device)
    pointer = ModelWithPointer(model).to(device)
    train_answers(pointer, tokenizer, STAGE_SINGLES.scaled(scale), SINGLES, folder, device)
    train_answers(pointer, tokenizer, STAGE_RELATIONS.scaled(scale), EVERYTHING, folder, device)
    train_answers(pointer, tokenizer, STAGE_BOXES.scaled(scale), EVERYTHING, folder, device, boxes=True)
    return write(model, tokenizer.tokenizer, folder)


def write(
    model: Qwen2_5_VLForConditionalGeneration, tokenizer: PreTrainedTokenizerFast, folder: Path
) -> tuple[Path, Path]:
    """Write the two GGUF files in float16."""
    text, projector = folder / "qwen_vl.gguf", folder / "qwen_vl_projector.gguf"
    write_gguf(model, tokenizer, text, projector, name="tiny, of the drawn world")
    return text, projector
