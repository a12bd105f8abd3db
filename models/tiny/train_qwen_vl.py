"""Trains the tiny Qwen2.5-VL in four stages; from scratch at once it stays at chance.

1. The vision tower alone, with a throw-away linear head on its merged tokens: what lies here?
2. True or False on single objects: kinds, looks, parts.
3. True or False with relations mixed in.
4. Boxes mixed in, weighted per answer: a box is 14 tokens and would drown the one token "True".

Questions are put exactly as the judge puts them.
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
"""The space belongs to the first word of what is described, as in any text."""

SINGLES = {"kind": 1.0, "look": 2.0, "part": 1.0}
EVERYTHING = {"kind": 0.5, "look": 2.0, "part": 1.5, "not": 2.0, "side": 4.0, "inside": 1.5, "tied to": 2.5}

PICTURES = 16
QUESTIONS, BOXES = 16, 2
"""Of each picture, in one step."""

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
"""What the throw-away head tells of each merged token, and in how many numbers.

Place and box are absolute: rotary positions tell a token where another one lies, but put nothing
into what it passes on, and the language model then neither learnt boxes nor what is left of what.
"""

SPAN = 6
"""Tokens along a side, about: places and boxes are told in this unit."""


class Seer(nn.Module):
    """The vision tower and its throw-away head."""

    def __init__(self, visual: nn.Module) -> None:
        super().__init__()
        self.visual = visual
        self.head = nn.Linear(qwen_model.WIDTH, sum(HEADS.values()))

    def forward(self, patches: qwen_model.Patches) -> dict[str, Tensor]:
        """(pictures, tokens, n) for each of `HEADS`."""
        told = self.head(qwen_model.see(self.visual, patches).float())
        return dict(zip(HEADS, told.split(list(HEADS.values()), dim=-1), strict=True))


def cells(picture: Picture, size: ImageSize) -> NDArray[np.float32]:
    """(tokens, 11): the token's own place (x, y), kind (0: none), colour, texture, size, part, and the box.

    A token shows the object that covers most of it, if it covers a fifth. Place and box in units of `SPAN`.
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
    """Patches, (pictures, tokens, 11) truth and (pictures, tokens) which are no padding."""
    shown = list(recipe.pictures(first, count, split))
    patches = qwen_model.patches_of([picture.image for picture in shown], device)
    longest = patches.pixels.shape[1] // 4
    truth = torch.zeros(count, longest, 11)
    for row, (picture, size) in enumerate(zip(shown, patches.sizes, strict=True)):
        truth[row, : size.tokens] = torch.from_numpy(cells(picture, size))
    real = torch.arange(longest) < torch.tensor([size.tokens for size in patches.sizes])[:, None]
    return patches, truth.to(device), real.to(device)


def vision_loss(told: dict[str, Tensor], truth: Tensor, real: Tensor) -> Tensor:
    """Cross-entropies and the distance of the box's edges on tokens that show an object, places on all."""
    total = functional.cross_entropy(told["kind"][real], truth[real][:, 2].long())
    shown = real & (truth[..., 2] > 0)
    for column, name in enumerate(("colour", "texture", "size", "part"), start=3):
        total = total + 0.5 * functional.cross_entropy(told[name][shown], truth[shown][:, column].long())
    total = total + 5 * functional.smooth_l1_loss(told["place"][real], truth[real][:, :2], beta=0.1)
    return total + 5 * functional.smooth_l1_loss(told["box"][shown], truth[shown][:, 7:], beta=0.1)


def train_vision(
    model: Qwen2_5_VLForConditionalGeneration, folder: Path, scale: float, device: torch.device
) -> None:
    """Stage 1."""
    seer = Seer(model.model.visual).to(device)

    def step(number: int) -> Tensor:
        patches, truth, real = _vision_batch(number * 32, 32, "train", device)
        with recipe.autocast(device):
            told = seer(patches)
        return vision_loss(told, truth, real)

    def report() -> str:
        patches, truth, real = _vision_batch(0, 96, "validation", device)
        told = seer(patches)
        shown = real & (truth[..., 2] > 0)
        right = {
            name: float((told[name][shown].argmax(-1) == truth[shown][:, column]).float().mean())
            for column, name in enumerate(("kind", "colour", "texture", "size", "part"), start=2)
        }
        right["place"] = float((told["place"][real] - truth[real][:, :2]).abs().mean() * SPAN)
        right["box"] = float((told["box"][shown] - truth[shown][:, 7:]).abs().mean() * SPAN)
        return " ".join(f"{name} {value:.3f}" for name, value in right.items())

    recipe.train(seer, VISION.scaled(scale), step, report, folder)


@dataclass(frozen=True)
class Words:
    """The tokenizer and the prompt's fixed pieces."""

    tokenizer: PreTrainedTokenizerFast

    @cached_property
    def digits(self) -> frozenset[int]:
        """Ids of the ten digits."""
        return frozenset(self.ids(digit)[0] for digit in "0123456789")

    def ids(self, text: str) -> list[int]:
        """Token ids of a piece that begins where a piece of the prompt begins."""
        return list(self.tokenizer(text, add_special_tokens=False).input_ids)

    def verdict(self, picture: Picture, size: ImageSize, question: Question) -> Branch:
        """The branch of a True/False question, behind `AFTER` and `JUDGE`."""
        asked = self.ids(f" {question.query.text}{TAIL}")
        answer = self.ids("True" if question.things else "False")
        weights = (*[0.0] * len(asked), *[1.0] * len(answer))
        return Branch(True, (*asked, *answer), weights, _where(picture, size, question))

    def location(self, picture: Picture, size: ImageSize, question: Question) -> Branch:
        """The branch of a box question, behind `AFTER`; its answer's weights sum to one, numbers heavy."""
        asked = self.ids(f"{LOCATE} {question.query.text}{TAIL}")
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
        heavy = np.array([1.0 if token in self.digits else 0.15 for token in answer])
        weights = (*[0.0] * len(asked), *(heavy / heavy.sum()))
        return Branch(False, (*asked, *answer), weights, _where(picture, size, question))


def _where(picture: Picture, size: ImageSize, question: Question) -> tuple[float, float, float, float] | None:
    """The box of the first object that fulfils the question, in tokens."""
    if not question.things:
        return None
    height, width = picture.owner.shape
    box = picture.things[question.things[0]].box.scaled(size.width / 28 / width, size.height / 28 / height)
    return box.x0, box.y0, box.x1, box.y1


class Answerer(nn.Module):
    """The model and a throw-away head that says, where a question ends, where its object lies.

    A box is written a digit at a time, which by itself tells too little of what to look for: first
    digits were at 0.55 after 40,000 boxes.
    """

    def __init__(self, model: Qwen2_5_VLForConditionalGeneration) -> None:
        super().__init__()
        self.model = model
        self.pointer = nn.Linear(qwen_model.WIDTH, 4)

    def forward(self, lesson: "Lesson") -> tuple[Tensor, Tensor]:
        """(predictions, vocabulary) logits at the trees' places, and (boxes, 4) in units of `SPAN`."""
        seen = qwen_model.see(self.model.model.visual, lesson.patches)
        logits, states = qwen_model.predict(self.model, seen, lesson.trees)
        return logits, self.pointer(states)


def make_tokenizer() -> PreTrainedTokenizerFast:
    """The vocabulary of the prompts, the grammar and the answers."""
    texts = [
        BEFORE,
        JUDGE,
        LOCATE,
        TAIL,
        'True False ```json\n[\n\t{"bbox_2d": [1, 2, 3, 4], "label": ""}\n]\n```',
    ] * 50
    texts.extend(text for query in corpus() for text in (f" {query}", f'"{query}"'))
    made: PreTrainedTokenizerFast = build_tokenizer(texts, 640)
    return made


class Lesson:
    """Pictures with their questions, laid out for one step, and what the model says to them."""

    def __init__(
        self,
        words: Words,
        shown: list[Picture],
        forms: dict[str, float],
        seed: int,
        device: torch.device,
        *,
        boxes: bool = False,
    ) -> None:
        """Ask for True or False, and for `boxes` as well, questions drawn by `seed`."""
        self.patches = qwen_model.patches_of([picture.image for picture in shown], device)
        self.kinds: list[str] = []
        branches = []
        asked_of = ask(shown, QUESTIONS // 2 if boxes else QUESTIONS, forms, seed)
        sought_of = ask(shown, 6 * BOXES, forms, seed + 1) if boxes else [[] for _ in shown]
        for picture, size, asked, sought in zip(shown, self.patches.sizes, asked_of, sought_of, strict=True):
            located = [question for question in sought if question.things][:BOXES]
            branches.append(
                [words.verdict(picture, size, q) for q in asked]
                + [words.location(picture, size, q) for q in located]
            )
            self.kinds.extend(q.form for q in asked)
            self.kinds.extend("box" for _ in located)
        self.answers = len(self.kinds)
        self.trees = qwen_model.trees(
            words.ids(BEFORE), self.patches.sizes, (words.ids(AFTER), words.ids(JUDGE)), branches, device
        )


def lesson_loss(logits: Tensor, pointed: Tensor, lesson: Lesson) -> Tensor:
    """Every answer counts as one, however many tokens it has; and how far off objects were pointed at."""
    each = functional.cross_entropy(logits, lesson.trees.wanted, reduction="none")
    far = functional.smooth_l1_loss(pointed, lesson.trees.boxes / SPAN, beta=0.1)
    total: Tensor = (each * lesson.trees.weights).sum() / lesson.answers + 5 * far
    return total


def accuracy(
    answerer: Answerer,
    words: Words,
    forms: dict[str, float],
    boxes: bool,
    device: torch.device,
) -> str:
    """Share of right answers by form of question (base rate one half), on 96 validation pictures.

    For boxes, the share of right digits given the right ones before them; and how far off, in tokens,
    objects are pointed at.
    """
    far: list[float] = []
    right: dict[str, list[bool]] = defaultdict(list)
    true, false = words.ids("True")[0], words.ids("False")[0]
    for first in range(0, 96, 16):
        lesson = Lesson(
            words, list(recipe.pictures(first, 16, "validation")), forms, first, device, boxes=boxes
        )
        logits, pointed = answerer(lesson)
        far.append(float((pointed * SPAN - lesson.trees.boxes).abs().mean()))
        wanted = lesson.trees.wanted
        verdict = (wanted == true) | (wanted == false)
        said_true = logits[:, true] > logits[:, false]
        hits = torch.where(verdict, said_true == (wanted == true), logits.argmax(-1) == wanted)
        forms_of = iter(kind for kind in lesson.kinds if kind != "box")
        digits = torch.tensor([token in words.digits for token in wanted.tolist()])
        for is_verdict, is_digit, hit in zip(verdict.tolist(), digits.tolist(), hits.tolist(), strict=True):
            if is_verdict:
                right[next(forms_of)].append(hit)
            elif is_digit:
                right["digit"].append(hit)
    told = [f"{form} {np.mean(right[form]):.3f}" for form in (*FORMS, "digit") if right[form]]
    return " ".join([*told, f"far {np.mean(far):.3f}"])


def train_answers(
    answerer: Answerer,
    words: Words,
    schedule: recipe.Schedule,
    forms: dict[str, float],
    folder: Path,
    device: torch.device,
    *,
    boxes: bool = False,
) -> None:
    """Stages 2 to 4.

    The vision tower stays as stage 1 left it. Learning with a language model that knows nothing
    yet, it forgot within 400 steps what it had seen: kinds from 0.90 right to 0.15.
    """
    answerer.model.model.visual.requires_grad_(False)

    def step(number: int) -> Tensor:
        first = OFFSETS[schedule.name] + number * PICTURES
        lesson = Lesson(words, list(recipe.pictures(first, PICTURES)), forms, first, device, boxes=boxes)
        with recipe.autocast(device):
            logits, pointed = answerer(lesson)
        return lesson_loss(logits, pointed, lesson)

    recipe.train(answerer, schedule, step, lambda: accuracy(answerer, words, forms, boxes, device), folder)


def train(folder: Path, scale: float, device: torch.device) -> tuple[Path, Path]:
    """All stages in `folder`; returns the text model and the projector written there."""
    torch.manual_seed(4)
    words = Words(make_tokenizer())
    model = qwen_model.build(words.tokenizer).to(device)
    train_vision(model, folder, scale, device)
    answerer = Answerer(model).to(device)
    train_answers(answerer, words, STAGE_SINGLES.scaled(scale), SINGLES, folder, device)
    train_answers(answerer, words, STAGE_RELATIONS.scaled(scale), EVERYTHING, folder, device)
    train_answers(answerer, words, STAGE_BOXES.scaled(scale), EVERYTHING, folder, device, boxes=True)
    return write(model, words.tokenizer, folder)


def write(
    model: Qwen2_5_VLForConditionalGeneration, tokenizer: PreTrainedTokenizerFast, folder: Path
) -> tuple[Path, Path]:
    """The two GGUF files, float16."""
    text, projector = folder / "qwen_vl.gguf", folder / "qwen_vl_projector.gguf"
    write_gguf(model, tokenizer, text, projector, name="tiny, of the drawn world")
    return text, projector
