"""Grounding: the judge's boxes become stored masks.

ranked photos -> judge's box -> stored region that fits it best -> its mask
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from matir_cli.engines.protocols import GroundingQuestion, JudgePhoto, RegionProposer
from matir_cli.errors import PhotoUnknown
from matir_cli.gallery.database import GalleryFile
from matir_cli.gallery.rows import StoredPhoto
from matir_cli.records import Box, Grounding, Rle
from matir_cli.search.box_matching import BoxMatch, match_box
from matir_cli.search.rerank import JudgedCandidate, JudgeSession
from matir_cli.search.results import (
    MATCHED,
    NO_BOX,
    REFINED,
    UNMATCHED,
    UNREADABLE,
    GroundedObject,
    SearchResult,
)


@dataclass(frozen=True, slots=True)
class MatchedBox:
    """One object that the judge pointed at."""

    box: Box
    """The judge's, photo pixels."""
    match: BoxMatch | None
    """The stored region that stands for the box; None where the photo has no regions."""


@dataclass(frozen=True, slots=True)
class MatchedGrounding:
    """Where the judge saw the object in a photo."""

    instances: tuple[MatchedBox, ...]
    """In the order of the judge's answer; the first is *the* object."""
    readable: bool
    """The answer could be read; without instances it then means that the judge saw none."""


def ground_photos(
    room: JudgeSession, photo_ids: Sequence[int]
) -> Iterator[tuple[int, MatchedGrounding | None]]:
    """Ask the judge where the object is in each photo, and match its boxes to stored regions.

    Yields photo id and outcome as they come, in the order given; None where the photo is
    not to be had. Photos are asked about in groups as large as the judge does at once.
    """
    waiting = deque(photo_ids)
    while waiting:
        remembered = room.memory.grounding(waiting[0])
        if remembered is not None:
            photo_id = waiting.popleft()
            yield photo_id, _match_boxes(room.gallery, photo_id, remembered)
            continue
        together = min(len(waiting), room.judge().grounds_at_once)
        yield from _ground_together(room, [waiting.popleft() for _ in range(together)])


def _ground_together(
    room: JudgeSession, photo_ids: Sequence[int]
) -> Iterator[tuple[int, MatchedGrounding | None]]:
    known = {photo_id: room.memory.grounding(photo_id) for photo_id in photo_ids}
    looked_at = [room.photo(photo_id) for photo_id, grounding in known.items() if grounding is None]
    questions = [GroundingQuestion(photo, room.query) for photo in looked_at if photo is not None]
    for question, answer in zip(questions, room.judge().ground(questions), strict=True):
        try:
            grounding = to_photo_pixels(room.gallery, question.photo, answer)
        except PhotoUnknown:  # forgotten by another process while the judge was at work
            continue
        room.memory.remember_grounding(question.photo.key, grounding)
        known[question.photo.key] = grounding
    for photo_id, outcome in known.items():
        yield photo_id, None if outcome is None else _match_boxes(room.gallery, photo_id, outcome)


def to_photo_pixels(gallery: GalleryFile, photo: JudgePhoto, grounding: Grounding) -> Grounding:
    """The grounding of a photo at working size, with boxes at its true size."""
    size = gallery.photo(photo.key).record
    height, width = photo.image.shape[:2]
    boxes = tuple(size.scaled_from(box, width, height) for box in grounding.boxes)
    return replace(grounding, boxes=boxes)


def _match_boxes(gallery: GalleryFile, photo_id: int, grounding: Grounding) -> MatchedGrounding:
    regions = gallery.regions(photo_id)
    instances = tuple(MatchedBox(box, match_box(box, regions)) for box in grounding.boxes)
    return MatchedGrounding(instances, grounding.readable)


@dataclass(frozen=True, slots=True)
class MatchOptions:
    """How the judge's boxes become masks."""

    min_iou: float = 0.5
    """A stored region stands for a box from this IoU of the boxes on."""
    refiner: Callable[[], RegionProposer] | None = None
    """Asked for the mask in a box that no stored region fits; None asks nobody."""


def results_by_region(gallery: GalleryFile, ranking: Sequence[JudgedCandidate]) -> Iterator[SearchResult]:
    """Results whose mask is that of the region that stage 1 liked best.

    Here as in `by_box`, a photo that another process has forgotten meanwhile is left out.
    """
    yield from _ranked(_by_region(gallery, item) for item in ranking)


def results_by_box(
    room: JudgeSession, ranking: Sequence[JudgedCandidate], matching: MatchOptions
) -> Iterator[SearchResult]:
    """Results whose mask is that of the stored region which fits the judge's box best.

    Photos that the judge did not judge are not grounded; their mask is stage 1's.
    """
    judged = [item.candidate.photo_id for item in ranking if item.verdict is not None]
    grounded = ground_photos(room, judged)
    outcomes = ((item, next(grounded)[1] if item.verdict is not None else None) for item in ranking)
    yield from _ranked(_by_box(room, item, outcome, matching) for item, outcome in outcomes)


def _ranked(results: Iterable[SearchResult | None]) -> Iterator[SearchResult]:
    """Those that are there, with ranks that count them."""
    there = (found for found in results if found is not None)
    return (replace(found, rank=rank) for rank, found in enumerate(there, start=1))


def _by_region(gallery: GalleryFile, item: JudgedCandidate) -> SearchResult | None:
    try:
        photo, region = gallery.photo(item.candidate.photo_id), gallery.region(item.candidate.region_id)
    except PhotoUnknown:
        return None
    answer = GroundedObject(region.box, region, None, region.region.rle)
    return SearchResult(0, photo, item.candidate, (answer,), item.verdict)


def _by_box(
    room: JudgeSession, item: JudgedCandidate, grounded: MatchedGrounding | None, matching: MatchOptions
) -> SearchResult | None:
    if grounded is None:
        return _by_region(room.gallery, item)
    try:
        photo = room.gallery.photo(item.candidate.photo_id)
    except PhotoUnknown:
        return None
    answers, word = _grounded_objects(room, photo, grounded, matching)
    return SearchResult(0, photo, item.candidate, answers, item.verdict, word)


def _grounded_objects(
    room: JudgeSession, photo: StoredPhoto, grounded: MatchedGrounding, matching: MatchOptions
) -> tuple[tuple[GroundedObject, ...], str]:
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
        answers.append(GroundedObject(instance.box, region, iou, stored or mask))
    if fitting[0]:
        return tuple(answers), MATCHED
    return tuple(answers), UNMATCHED if answers[0].mask is None else REFINED


def _fits(instance: MatchedBox, min_iou: float) -> bool:
    return instance.match is not None and instance.match.iou >= min_iou


def _refine(
    room: JudgeSession, refiner: RegionProposer, photo: StoredPhoto, instances: Sequence[MatchedBox]
) -> list[Rle | None]:
    """The masks that the proposer sees in the judge's boxes."""
    shown = room.photo(photo.id)
    if shown is None:
        return [None] * len(instances)
    height, width = shown.image.shape[:2]
    boxes = [photo.record.scaled_to(instance.box, width, height) for instance in instances]
    return [None if region is None else region.rle for region in refiner.refine(shown.image, boxes)]
