"""Trial of the judge: margins of true over false descriptions, and boxes of the objects."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np

from matir_cli.engines.protocols import GroundingQuestion, Judge, JudgePhoto
from matir_cli.errors import EngineFailed
from matir_cli.model_sets.trial.findings import (
    TrialFinding,
    check_reference,
    check_share,
    nearer,
    one_of,
    rms_difference,
    with_reason,
)
from matir_cli.model_sets.trial.pictures import Expectations, TrialObject, TrialPicture, TrialWorld
from matir_cli.progress import ProgressObserver
from matir_cli.records import Box, Grounding
from matir_cli.search.box_matching import box_iou

TOLERANCE = 0.5
"""Largest difference from the reference figures, which are margins in logits.

Measured with the tiny set, whose margins are 14 logits from those of a blank picture: the number of threads
changes nothing; every broken set measured differs by 6 or more. No GPU was available to measure its rounding.
"""

REFERENCE_OBJECTS = 12
"""Objects whose margins are the reference figures."""

WRONG_TEXTS = 2
"""Wrong colours, and wrong kinds, asked about per object."""

LEAST_SIGHT = 1.0
"""Mean difference of a margin, in logits, between a picture and a blank one, if the judge sees pictures.

Tiny set: 14.8; with a random projector 0.26, with a random text model at most 0.64.
"""

Answer = TypeVar("Answer")

_BOX = re.compile(r'"bbox_2d"\s*:\s*\[([^\]]*)\]')

_NUMBER = re.compile(r"-?\d+(?:\.\d+)?")


@dataclass(frozen=True, slots=True)
class JudgeFigures:
    """What a judge answers about the pictures; shares are 0..1."""

    colours: float
    """Share of wrong colours with a smaller margin than the right description's; 0.5 by chance."""
    kinds: float
    """Share of wrong kinds with a smaller margin; 0.5 by chance."""
    relations: float
    """Share of objects beside a ring with a smaller margin for "... inside a ring" than the one inside."""
    answers: float
    """Mean of the shares of right answers to true and to false descriptions; 0.5 for a constant answer."""
    margins: tuple[float, ...]
    """Margins of the first objects' right descriptions, logits."""


@dataclass(frozen=True, slots=True)
class BoxFigures:
    """Where a judge sees the objects of the pictures."""

    iou: float
    """Mean IoU of an object's box and the best of the judge's, 0..1."""
    iou_on_grid: float
    """As `iou`, with the numbers of the answers read as thousandths of the picture's sides."""


def try_judge(
    world: TrialWorld, judge: Judge, reference: Sequence[float], progress: ProgressObserver
) -> list[TrialFinding]:
    """Ask the judge about the pictures and compare its answers with those of a working one in this world."""
    pictures, least = world.pictures(world.judge_pictures), world.least
    figures = measure_judge(world, pictures, judge, progress)
    boxes = measure_boxes(world, pictures, judge, progress)
    findings = [
        check_share("judge", "colours", figures.colours, least.colours, "ranked right"),
        check_share("judge", "kinds", figures.kinds, least.kinds, "ranked right"),
        check_share("judge", "relations", figures.relations, least.relations, "ranked right"),
        check_share("judge", "true or false", figures.answers, least.answers, "answered right"),
        check_share("judge", "boxes", boxes.iou, least.grounded, "mean IoU"),
        check_reference("judge", figures.margins, reference, TOLERANCE),
    ]
    if not any(finding.failed for finding in findings):
        return findings
    exchanged = measure_judge(world, [each.exchange_channels() for each in pictures], judge, progress)
    blank = measure_judge(world, [_blank(each) for each in pictures], judge, progress)
    return with_reason(findings, explain_judge(figures, boxes, exchanged, blank, least, reference))


def measure_judge(
    world: TrialWorld, pictures: Sequence[TrialPicture], judge: Judge, progress: ProgressObserver
) -> JudgeFigures:
    """Ask about every object: its description, wrong ones, and its relation to a ring."""
    answers = _Answers()
    with progress("judging", len(pictures), "picture") as advance:
        for key, picture in enumerate(pictures):
            asked = _texts_about(world, picture)
            texts = list(dict.fromkeys(text for each in asked for text in each.all))
            verdicts = judge.rerank(JudgePhoto(key, picture.image), texts)
            answers.add(
                asked, {text: _given(each).margin for text, each in zip(texts, verdicts, strict=True)}
            )
            advance()
    return answers.figures()


def measure_boxes(
    world: TrialWorld, pictures: Sequence[TrialPicture], judge: Judge, progress: ProgressObserver
) -> BoxFigures:
    """Ask for the box of every object."""
    asked = [
        (shown, GroundingQuestion(JudgePhoto(key, picture.image), shown.text))
        for key, picture in enumerate(pictures)
        for shown in world.named_objects(picture)
    ]
    given: list[Grounding] = []
    with progress("asking for boxes", len(asked), "box") as advance:
        for begin in range(0, len(asked), judge.grounds_at_once):
            batch = [question for _, question in asked[begin : begin + judge.grounds_at_once]]
            given += map(_given, judge.ground(batch))
            advance(len(batch))
    ious, ious_on_grid = [], []
    for (shown, question), grounding in zip(asked, given, strict=True):
        height, width = question.photo.image.shape[:2]
        on_grid = [box.scaled(width / 1000, height / 1000) for box in _raw_boxes(grounding.answer)]
        ious.append(max((box_iou(box, shown.box) for box in grounding.boxes), default=0.0))
        ious_on_grid.append(max((box_iou(box, shown.box) for box in on_grid), default=0.0))
    return BoxFigures(float(np.mean(ious)), float(np.mean(ious_on_grid)))


def _given(answer: Answer | None) -> Answer:
    """Return the answer; EngineFailed if the judge computed none."""
    if answer is None:
        raise EngineFailed("the judge computes numbers that are not finite for a drawn picture")
    return answer


def explain_judge(
    figures: JudgeFigures,
    boxes: BoxFigures,
    exchanged: JudgeFigures,
    blank: JudgeFigures,
    least: Expectations,
    reference: Sequence[float],
) -> str:
    """Return the likely reason why a judge failed.

    Args:
        figures: its answers about the pictures.
        boxes: its boxes in the pictures.
        exchanged: its answers about the pictures with red and blue exchanged.
        blank: its answers about pictures of one grey.
        least: what a working one gives.
        reference: the recorded margins; may be empty.
    """
    if _ranks(exchanged, least) and nearer(exchanged.margins, figures.margins, reference):
        return "the projector expects the colour channels in the other order (BGR instead of RGB)"
    if rms_difference(figures.margins, blank.margins) < LEAST_SIGHT:
        return one_of(
            "the projector is of another model, untrained or damaged",
            "the text model is",
            "the tokens of the vocabulary are not those that the text model was trained with",
            "pictures are normalised with another mean and deviation than the projector was trained with",
        )
    if _ranks(figures, least) and boxes.iou < least.grounded:
        if boxes.iou_on_grid >= least.grounded:
            return "boxes are on a grid of 0 to 1000, not in pixels: another family (Qwen2-VL, Qwen3-VL)"
        return one_of(
            "min_pixels, max_pixels or ground_min_pixels shows pictures at a size that it does not ground at",
            "boxes are in other coordinates than those of the judge's engine",
        )
    if _works(figures, least):
        return one_of(
            "other files, or another quantisation, than those of the reference figures",
            "other min_pixels or max_pixels",
            "a device that computes wrongly (compare --device cpu)",
        )
    return one_of(
        "the text model and the projector are not of the same model, or one of them is untrained or damaged",
        "the tokens of the vocabulary are not those that the model was trained with",
        "pictures are seen too small or normalised wrongly (min_pixels, max_pixels, image_mean, image_std)",
        "a device that computes wrongly (compare --device cpu)",
    )


@dataclass(frozen=True, slots=True)
class _Asked:
    """The texts asked about one object."""

    right: str
    colours: tuple[str, ...]
    """Texts that are wrong in the colour alone, of nothing in the picture."""
    kinds: tuple[str, ...]
    """Texts that are wrong in the kind alone, of nothing in the picture."""
    inside: str
    """That the object lies inside a ring."""
    beside: tuple[str, ...]
    """The same of the picture's objects that do not; empty unless this one does."""

    @property
    def all(self) -> tuple[str, ...]:
        """All texts to ask about."""
        relations = (self.inside, *self.beside) if self.beside else ()
        return (self.right, *self.colours, *self.kinds, *relations)


class _Answers:
    """Outcomes of the comparisons, collected picture by picture."""

    def __init__(self) -> None:
        self._colours: list[bool] = []
        self._kinds: list[bool] = []
        self._relations: list[bool] = []
        self._true: list[bool] = []
        self._false: list[bool] = []
        self._margins: list[float] = []

    def add(self, asked: Sequence[_Asked], margins: dict[str, float]) -> None:
        """Add the margins of a picture's texts."""
        for texts in asked:
            own = margins[texts.right]
            self._margins.append(own)
            self._true.append(own > 0)
            self._colours += [own > margins[text] for text in texts.colours]
            self._kinds += [own > margins[text] for text in texts.kinds]
            self._false += [margins[text] < 0 for text in (*texts.colours, *texts.kinds)]
            self._relations += [margins[texts.inside] > margins[text] for text in texts.beside]

    def figures(self) -> JudgeFigures:
        """Return the shares and means."""
        return JudgeFigures(
            colours=float(np.mean(self._colours)),
            kinds=float(np.mean(self._kinds)),
            relations=float(np.mean(self._relations)),
            answers=float(np.mean(self._true) + np.mean(self._false)) / 2,
            margins=tuple(self._margins[:REFERENCE_OBJECTS]),
        )


def _texts_about(world: TrialWorld, picture: TrialPicture) -> list[_Asked]:
    """Return the texts to ask about each named object of the picture."""
    present = {shown.text for shown in picture.objects}
    objects = world.named_objects(picture)
    beside = tuple(_inside(shown) for shown in objects if not shown.inside_ring and shown.kind != "ring")
    return [
        _Asked(
            shown.text,
            tuple(text for text in world.other_colours(shown) if text not in present)[:WRONG_TEXTS],
            tuple(text for text in world.other_kinds(shown) if text not in present)[:WRONG_TEXTS],
            _inside(shown),
            beside if shown.inside_ring else (),
        )
        for shown in objects
    ]


def _inside(shown: TrialObject) -> str:
    """Return the description of the object as one inside a ring."""
    return f"{shown.text} inside a ring"


def _raw_boxes(answer: str) -> list[Box]:
    """Return the boxes in a grounding answer with their numbers as they stand there."""
    found = [_NUMBER.findall(numbers) for numbers in _BOX.findall(answer)]
    return [Box(*map(float, numbers)) for numbers in found if len(numbers) == 4]


def _blank(picture: TrialPicture) -> TrialPicture:
    """Return the picture with every pixel the same grey, and the descriptions as they were."""
    return replace(picture, image=np.full_like(picture.image, 160))


def _ranks(figures: JudgeFigures, least: Expectations) -> bool:
    """Return True if the judge tells true descriptions from false ones."""
    return figures.colours >= least.colours and figures.kinds >= least.kinds


def _works(figures: JudgeFigures, least: Expectations) -> bool:
    """Return True if the answers are those of a working judge."""
    return (
        _ranks(figures, least) and figures.relations >= least.relations and figures.answers >= least.answers
    )
