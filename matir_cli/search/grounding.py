"""Grounding: the judge's boxes become masks.

    ranked photo -> judge's boxes -> best-fitting stored region of each box -> that region's mask

`results_by_box` is the whole path. For each photo that the judge has judged:

1. `ground_photos` asks the judge where the object is. The boxes, mapped to photo pixels by
   `_to_photo_pixels`, are cached in the gallery.
2. `box_matching.match_boxes` finds the stored region that fits each box best: by IoU alone or, if there is a
   `MatchOptions.directions`, by the region's vector and predicted IoU as well.
3. `_ground_objects` chooses the mask. If the IoU is at least `MatchOptions.min_iou`, it is the region's
   mask ("matched"). Otherwise it is the mask that the proposer finds in the box, if there is a
   `MatchOptions.refiner` ("refined"). Otherwise there is none ("unmatched").

A photo that the judge has not judged keeps the mask of its best region from stage 1 (`results_by_region`).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from matir_cli.engines.protocols import GroundingQuestion, JudgePhoto, RegionProposer
from matir_cli.errors import GalleryDamaged, PhotoUnknown
from matir_cli.gallery.rows import StoredPhoto
from matir_cli.gallery.union import GalleryReader, in_one_transaction, path_of
from matir_cli.records import Box, FloatArray, Grounding, Rle
from matir_cli.search.box_matching import HUMAN_IOU, BoxMatch, match_boxes
from matir_cli.search.offering import box_question
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
from matir_cli.search.vectors import score_regions


@dataclass(frozen=True, slots=True)
class MatchOptions:
    """Settings for turning the judge's boxes into masks."""

    min_iou: float = 0.5
    """Least IoU of a stored region's box and the judge's box for the region's mask to be used, 0..1."""
    refiner: Callable[[], RegionProposer] | None = None
    """Returns the proposer that finds masks in boxes that no stored region fits; None leaves them without."""
    directions: FloatArray | None = None
    """(k, d) float32 whose best inner product with a region's unit vector is, up to a constant, the region's
    similarity to the described object in standard deviations: regions are matched jointly. None: by IoU."""


@dataclass(frozen=True, slots=True)
class MatchedBox:
    """One box of the judge's answer, and the stored region that fits it best."""

    box: Box
    """The judge's box, photo pixels."""
    match: BoxMatch | None
    """None if the photo has no region besides the whole photo."""


@dataclass(frozen=True, slots=True)
class MatchedGrounding:
    """The judge's answer for one photo, each of its boxes matched to a stored region."""

    boxes: tuple[MatchedBox, ...]
    """In the order of the judge's answer; the first is *the* object."""
    readable: bool
    """True if the answer could be read; without boxes it then means that the judge saw no object."""


# Results


def results_by_region(gallery: GalleryReader, ranking: Sequence[JudgedCandidate]) -> Iterator[SearchResult]:
    """Yield a result per candidate, whose mask is that of its best region in stage 1.

    Here as in `results_by_box`, photos that another process has removed meanwhile are left out.
    """
    yield from _number(_result_by_region(gallery, item) for item in ranking)


def results_by_box(
    session: JudgeSession, ranking: Sequence[JudgedCandidate], options: MatchOptions
) -> Iterator[SearchResult]:
    """Yield a result per candidate, whose masks are those of the stored regions that fit the judge's boxes.

    Candidates without a verdict, unless it was foreseen, are not grounded; they keep the mask from stage 1.

    Raises:
        MatirError: as loading and asking the judge or the refiner raise it.
    """
    asked = [item.candidate.photo_id for item in ranking if _is_grounded(item)]
    human_iou = max(HUMAN_IOU, options.min_iou)  # a mask that would not be used must not win
    groundings = ground_photos(session, asked, options.directions, human_iou)
    outcomes = ((item, next(groundings)[1] if _is_grounded(item) else None) for item in ranking)
    yield from _number(_result_by_box(session, item, outcome, options) for item, outcome in outcomes)


def _is_grounded(item: JudgedCandidate) -> bool:
    return item.verdict is not None or item.foreseen


def _number(results: Iterable[SearchResult | None]) -> Iterator[SearchResult]:
    """Leave out the missing results and number the others from 1."""
    present = (result for result in results if result is not None)
    return (replace(result, rank=rank) for rank, result in enumerate(present, start=1))


def _result_by_region(gallery: GalleryReader, item: JudgedCandidate) -> SearchResult | None:
    try:
        photo, region = gallery.photo(item.candidate.photo_id), gallery.region(item.candidate.region_id)
    except PhotoUnknown:
        return None
    if region.photo_id != photo.id:
        raise GalleryDamaged(
            path_of(gallery, photo.id), f"the vector of region {region.id} belongs to another photo"
        )
    best = GroundedObject(region.box, region, None, region.region.rle)
    return SearchResult(0, photo, item.candidate, (best,), item.verdict, judge_failed=item.failed)


def _result_by_box(
    session: JudgeSession, item: JudgedCandidate, grounding: MatchedGrounding | None, options: MatchOptions
) -> SearchResult | None:
    if grounding is None:
        return _result_by_region(session.gallery, item)
    try:
        photo = session.gallery.photo(item.candidate.photo_id)
    except PhotoUnknown:
        return None
    objects, outcome = _ground_objects(session, photo, grounding, options)
    return SearchResult(0, photo, item.candidate, objects, item.verdict, outcome)


# From boxes to masks


def _ground_objects(
    session: JudgeSession, photo: StoredPhoto, grounding: MatchedGrounding, options: MatchOptions
) -> tuple[tuple[GroundedObject, ...], str]:
    """Choose the mask of each box; return the objects and the outcome for the first ("matched", ...)."""
    if not grounding.readable:
        return (), UNREADABLE
    if not grounding.boxes:
        return (), NO_BOX
    fits = [_fits(box, options.min_iou) for box in grounding.boxes]
    refined: list[Rle | None] = [None] * len(fits)
    if options.refiner is not None and not all(fits):
        refined = _refine(session, options.refiner(), photo, grounding.boxes)
    objects = []
    for matched, fit, refined_mask in zip(grounding.boxes, fits, refined, strict=True):
        region, iou = (matched.match.region, matched.match.iou) if matched.match else (None, None)
        stored_mask = region.region.rle if region is not None and fit else None
        objects.append(GroundedObject(matched.box, region, iou, stored_mask or refined_mask))
    if fits[0]:
        return tuple(objects), MATCHED
    return tuple(objects), UNMATCHED if objects[0].mask is None else REFINED


def _fits(matched: MatchedBox, min_iou: float) -> bool:
    return matched.match is not None and matched.match.iou >= min_iou


def _refine(
    session: JudgeSession, refiner: RegionProposer, photo: StoredPhoto, boxes: Sequence[MatchedBox]
) -> list[Rle | None]:
    """Ask the proposer for the mask in each of the judge's boxes; None where it finds none."""
    judge_photo = session.photo(photo.id)
    if judge_photo is None:
        return [None] * len(boxes)
    height, width = judge_photo.image.shape[:2]
    prompts = [photo.record.scaled_to(matched.box, width, height) for matched in boxes]
    return [None if region is None else region.rle for region in refiner.refine(judge_photo.image, prompts)]


# Asking the judge


def ground_photos(
    session: JudgeSession,
    photo_ids: Sequence[int],
    directions: FloatArray | None = None,
    human_iou: float = HUMAN_IOU,
) -> Iterator[tuple[int, MatchedGrounding | None]]:
    """Ask the judge where the object is in each photo, and match its boxes to stored regions.

    Yields photo id and grounding in the given order; None if the photo's pixels are unavailable, the judge
    could not answer, or another process has removed the photo. Cached answers are used; the other photos
    are asked about in batches of `Judge.grounds_at_once`.

    Args:
        directions: as in `MatchOptions`.
        human_iou: as in `match_box`.
    """
    waiting = deque(photo_ids)
    while waiting:
        cached = session.cache.grounding(waiting[0])
        if cached is not None:
            photo_id = waiting.popleft()
            yield photo_id, _match_boxes(session.gallery, photo_id, cached, directions, human_iou)
            continue
        batch = min(len(waiting), session.judge().grounds_at_once)
        yield from _ground_uncached(session, [waiting.popleft() for _ in range(batch)], directions, human_iou)


def _ground_uncached(
    session: JudgeSession, photo_ids: Sequence[int], directions: FloatArray | None, human_iou: float
) -> Iterator[tuple[int, MatchedGrounding | None]]:
    """Ground a batch of photos, of which some may be cached after all."""
    groundings = {photo_id: session.cache.grounding(photo_id) for photo_id in photo_ids}
    photos = [session.photo(photo_id) for photo_id, known in groundings.items() if known is None]
    questions = [box_question(session, photo) for photo in photos if photo is not None]
    answers = ground_batch({session.query: session}, questions)
    groundings |= {question.photo.key: answer for question, answer in zip(questions, answers, strict=True)}
    for photo_id, grounding in groundings.items():
        if grounding is None:
            yield photo_id, None
        else:
            yield photo_id, _match_boxes(session.gallery, photo_id, grounding, directions, human_iou)


def ground_batch(
    sessions: Mapping[str, JudgeSession], questions: Sequence[GroundingQuestion]
) -> list[Grounding | None]:
    """Ask the judge several grounding questions in one call, and cache the answers in one transaction.

    Args:
        sessions: the session of each question's query; all of one judge and one gallery.
        questions: about one photo or several, whose `key` is the photo's id.

    Returns:
        One grounding per question, boxes in photo pixels; None if the judge could not answer, or if
        another process has removed the photo while it was at work.
    """
    if not questions:
        return []
    first = sessions[questions[0].query]
    gallery = first.gallery
    answers = first.judge().ground(questions)
    groundings: list[Grounding | None] = []
    with in_one_transaction(gallery):
        for question, answer in zip(questions, answers, strict=True):
            if answer is None:
                groundings.append(None)
                continue
            try:
                grounding = _to_photo_pixels(gallery, question.photo, answer)
            except PhotoUnknown:
                groundings.append(None)
                continue
            sessions[question.query].cache.remember_grounding(question.photo.key, grounding)
            groundings.append(grounding)
    return groundings


def _to_photo_pixels(gallery: GalleryReader, photo: JudgePhoto, grounding: Grounding) -> Grounding:
    """Map a grounding's boxes from the pixels of `photo`, at working size, to photo pixels.

    Raises:
        PhotoUnknown: the gallery no longer holds the photo.
    """
    record = gallery.photo(photo.key).record
    height, width = photo.image.shape[:2]
    boxes = tuple(record.scaled_from(box, width, height) for box in grounding.boxes)
    return replace(grounding, boxes=boxes)


def _match_boxes(
    gallery: GalleryReader,
    photo_id: int,
    grounding: Grounding,
    directions: FloatArray | None,
    human_iou: float,
) -> MatchedGrounding:
    similarities = None
    with gallery.snapshot():  # regions and their vectors must belong together
        regions = gallery.regions(photo_id)
        if directions is not None:
            ids = [region.id for region in regions]
            scores = score_regions(gallery, np.array(ids, np.int64), directions).max(axis=0)
            similarities = dict(zip(ids, scores.tolist(), strict=True))
    matches = match_boxes(grounding.boxes, regions, similarities, human_iou)
    boxes = tuple(MatchedBox(box, match) for box, match in zip(grounding.boxes, matches, strict=True))
    return MatchedGrounding(boxes, grounding.readable)
