"""Ranked photos as answers: each with the object's mask, by its best region or by the judge's box."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from matir_cli import rerank
from matir_cli.errors import PhotoUnknown
from matir_cli.gallery import GalleryFile
from matir_cli.protocols import RegionProposer, Verdict
from matir_cli.records import Box, Candidate, Rle
from matir_cli.rerank import Grounded, Instance, Judged, JudgeRoom
from matir_cli.stored import StoredPhoto, StoredRegion

MATCHED = "matched"
UNMATCHED = "unmatched"
REFINED = "refined"
NO_BOX = "no box"
UNREADABLE = "unreadable"


@dataclass(frozen=True, slots=True)
class Answer:
    """One object that answers the query."""

    box: Box
    """Photo pixels: the judge's where it was asked, else the region's."""
    region: StoredRegion | None
    """The stored region that fits best."""
    iou: float | None
    """Of the region's box with the judge's; None where there was no judge."""
    mask: Rle | None
    """Working pixels; None where no stored region fits the judge's box well enough."""


@dataclass(frozen=True, slots=True)
class Found:
    """A photo that answers a query."""

    rank: int
    """1 is the best."""
    photo: StoredPhoto
    candidate: Candidate
    """What stage 1 said of it."""
    answers: tuple[Answer, ...]
    """The first is *the* object; none where the judge gave no box."""
    verdict: Verdict | None = None
    """What the judge said of it, where it was asked."""
    grounding: str | None = None
    """How the judge's box became a mask: one of the names above; None where it was not asked."""

    @property
    def path(self) -> Path:
        """A file that holds the photo, one that is still there if any is."""
        return next((path for path in self.photo.paths if os.path.lexists(path)), self.photo.paths[0])

    @property
    def score(self) -> float:
        """S' of a judged photo, 0..1 (eq. 2), else the cosine of its best region, -1..1 (eq. 1)."""
        return self.verdict.p_true if self.verdict is not None else self.candidate.score


@dataclass(frozen=True, slots=True)
class Matching:
    """How the judge's boxes become masks."""

    min_iou: float = 0.5
    """A stored region stands for a box from this IoU of the boxes on."""
    refiner: Callable[[], RegionProposer] | None = None
    """Asked for the mask in a box that no stored region fits; None asks nobody."""


def by_region(gallery: GalleryFile, ranking: Sequence[Judged]) -> Iterator[Found]:
    """Results whose mask is that of the region that stage 1 liked best.

    Here as in `by_box`, a photo that another process has forgotten meanwhile is left out.
    """
    yield from _ranked(_by_region(gallery, item) for item in ranking)


def by_box(room: JudgeRoom, ranking: Sequence[Judged], matching: Matching) -> Iterator[Found]:
    """Results whose mask is that of the stored region which fits the judge's box best.

    Photos that the judge did not judge are not grounded; their mask is stage 1's.
    """
    judged = [item.candidate.photo_id for item in ranking if item.verdict is not None]
    grounded = rerank.ground(room, judged)
    outcomes = ((item, next(grounded)[1] if item.verdict is not None else None) for item in ranking)
    yield from _ranked(_by_box(room, item, outcome, matching) for item, outcome in outcomes)


def _ranked(results: Iterable[Found | None]) -> Iterator[Found]:
    """Those that are there, with ranks that count them."""
    there = (found for found in results if found is not None)
    return (replace(found, rank=rank) for rank, found in enumerate(there, start=1))


def _by_region(gallery: GalleryFile, item: Judged) -> Found | None:
    try:
        photo, region = gallery.photo(item.candidate.photo_id), gallery.region(item.candidate.region_id)
    except PhotoUnknown:
        return None
    answer = Answer(region.box, region, None, region.region.rle)
    return Found(0, photo, item.candidate, (answer,), item.verdict)


def _by_box(room: JudgeRoom, item: Judged, grounded: Grounded | None, matching: Matching) -> Found | None:
    if grounded is None:
        return _by_region(room.gallery, item)
    try:
        photo = room.gallery.photo(item.candidate.photo_id)
    except PhotoUnknown:
        return None
    answers, word = _answers(room, photo, grounded, matching)
    return Found(0, photo, item.candidate, answers, item.verdict, word)


def _answers(
    room: JudgeRoom, photo: StoredPhoto, grounded: Grounded, matching: Matching
) -> tuple[tuple[Answer, ...], str]:
    """The answers in a grounded photo, and the word for how the first one came about."""
    if not grounded.readable:
        return (), UNREADABLE
    if not grounded.instances:
        return (), NO_BOX
    fitting = [_fits(instance, matching.min_iou) for instance in grounded.instances]
    refined: list[Rle | None] = [None] * len(fitting)
    if matching.refiner is not None and not all(fitting):
        refined = _refine(room, matching.refiner(), photo, grounded.instances)
    answers = []
    for instance, fits, mask in zip(grounded.instances, fitting, refined, strict=True):
        region, iou = (instance.match.region, instance.match.iou) if instance.match else (None, None)
        stored = region.region.rle if region is not None and fits else None
        answers.append(Answer(instance.box, region, iou, stored or mask))
    if fitting[0]:
        return tuple(answers), MATCHED
    return tuple(answers), UNMATCHED if answers[0].mask is None else REFINED


def _fits(instance: Instance, min_iou: float) -> bool:
    return instance.match is not None and instance.match.iou >= min_iou


def _refine(
    room: JudgeRoom, refiner: RegionProposer, photo: StoredPhoto, instances: Sequence[Instance]
) -> list[Rle | None]:
    """The masks that the proposer sees in the judge's boxes."""
    shown = room.photo(photo.id)
    if shown is None:
        return [None] * len(instances)
    height, width = shown.image.shape[:2]
    across, down = width / photo.record.width, height / photo.record.height
    boxes = [instance.box.scaled(across, down) for instance in instances]
    return [None if region is None else region.rle for region in refiner.refine(shown.image, boxes)]
