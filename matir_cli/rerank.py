"""Stage 2: a judge looks at the candidates, ranks them and says where the object is.

    candidates -> "True or False?" -> by zTrue - zFalse (eq. 2) -> box -> stored region -> mask

What the judge said is remembered in the gallery; only what is new is asked.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from matir_cli import photos
from matir_cli.errors import PhotoUnknown
from matir_cli.gallery import GalleryFile
from matir_cli.match import Match, match
from matir_cli.protocols import Grounding, GroundingQuestion, Judge, JudgePhoto, Verdict
from matir_cli.records import Box, Candidate
from matir_cli.verdicts import Verdicts


@dataclass(frozen=True, slots=True)
class Judged:
    """A candidate and what the judge said of it."""

    candidate: Candidate
    verdict: Verdict | None
    """None where the judge was not asked: out of time, or the photo is not to be had."""


@dataclass(frozen=True, slots=True)
class Instance:
    """One object that the judge pointed at."""

    box: Box
    """The judge's, photo pixels."""
    match: Match | None
    """The stored region that stands for the box; None where the photo has no regions."""


@dataclass(frozen=True, slots=True)
class Grounded:
    """Where the judge saw the object in a photo."""

    instances: tuple[Instance, ...]
    """In the order of the judge's answer; the first is *the* object."""
    readable: bool
    """The answer could be read; without instances it then means that the judge saw none."""


@dataclass(frozen=True, slots=True)
class Question:
    """Does a photo contain what `text` describes?"""

    text: str
    memory: Verdicts
    """What was said about it before."""


@dataclass(frozen=True, slots=True)
class JudgeRoom:
    """What stage 2 works with."""

    gallery: GalleryFile
    judge: Callable[[], Judge]
    """Gives the judge, loading it on the first call."""
    memory: Verdicts
    query: str
    without: tuple[Question, ...] = ()
    """What must not be in the photo."""

    def photo(self, photo_id: int) -> JudgePhoto | None:
        """The photo at working size: its preview, else its file if that is as it was; else None."""
        image = photos.working_image(self.gallery, photo_id)
        return None if image is None else JudgePhoto(photo_id, image)


def rerank(
    room: JudgeRoom, candidates: Sequence[Candidate], in_time: Callable[[], bool] = lambda: True
) -> Iterator[Judged]:
    """Ask the judge about each candidate, in their order; one outcome a candidate.

    All that is asked about one photo, what must not be in it too, is asked at once.

    Args:
        in_time: asked before each new photo; once it says no, the judge is asked no more.
    """
    wanted = Question(room.query, room.memory)
    questions = (wanted, *room.without)
    for candidate in candidates:
        said = {
            q: verdict for q in questions if (verdict := q.memory.verdict(candidate.photo_id)) is not None
        }
        unasked = [question for question in questions if question not in said]
        if unasked:
            photo = room.photo(candidate.photo_id) if in_time() else None
            if photo is None:
                yield Judged(candidate, None)
                continue
            answers = room.judge().rerank(photo, [question.text for question in unasked])
            for question, verdict in zip(unasked, answers, strict=True):
                question.memory.remember(candidate.photo_id, verdict)
                said[question] = verdict
        outcome = but_not(said[wanted], [said[question] for question in room.without])
        yield Judged(candidate, outcome)


def but_not(wanted: Verdict, unwanted: Sequence[Verdict]) -> Verdict:
    """That a photo has what is wanted and none of what is not: p = p_wanted (1 - max p_unwanted).

    The verdict's logits are log p and log (1 - p), made of the margins, so that it ranks where p saturates.
    """
    if not unwanted:
        return wanted
    worst = max(verdict.margin for verdict in unwanted)
    p, not_p = _log_sigmoid(wanted.margin), _log_sigmoid(-wanted.margin)
    both = p + _log_sigmoid(worst)
    return Verdict(p + _log_sigmoid(-worst), float(np.logaddexp(not_p, both)))


def _log_sigmoid(margin: float) -> float:
    return -float(np.logaddexp(0.0, -margin))


def in_order(judged: Sequence[Judged]) -> list[Judged]:
    """By zTrue - zFalse, then stage-1 score, then photo id; those not judged follow by stage 1."""

    def key(item: Judged) -> tuple[bool, float, float, int]:
        margin = item.verdict.margin if item.verdict is not None else 0.0
        return item.verdict is None, -margin, -item.candidate.score, item.candidate.photo_id

    return sorted(judged, key=key)


def ground(room: JudgeRoom, photo_ids: Sequence[int]) -> Iterator[tuple[int, Grounded | None]]:
    """Ask the judge where the object is in each photo, and match its boxes to stored regions.

    Yields photo id and outcome as they come, in the order given; None where the photo is
    not to be had. Photos are asked about in groups as large as the judge does at once.
    """
    waiting = deque(photo_ids)
    while waiting:
        remembered = room.memory.grounding(waiting[0])
        if remembered is not None:
            photo_id = waiting.popleft()
            yield photo_id, _matched(room.gallery, photo_id, remembered)
            continue
        together = min(len(waiting), room.judge().grounds_at_once)
        yield from _ground_together(room, [waiting.popleft() for _ in range(together)])


def _ground_together(room: JudgeRoom, photo_ids: Sequence[int]) -> Iterator[tuple[int, Grounded | None]]:
    known = {photo_id: room.memory.grounding(photo_id) for photo_id in photo_ids}
    looked_at = [room.photo(photo_id) for photo_id, grounding in known.items() if grounding is None]
    questions = [GroundingQuestion(photo, room.query) for photo in looked_at if photo is not None]
    for question, answer in zip(questions, room.judge().ground(questions), strict=True):
        try:
            grounding = in_photo_pixels(room.gallery, question.photo, answer)
        except PhotoUnknown:  # forgotten by another process while the judge was at work
            continue
        room.memory.remember_grounding(question.photo.key, grounding)
        known[question.photo.key] = grounding
    for photo_id, outcome in known.items():
        yield photo_id, None if outcome is None else _matched(room.gallery, photo_id, outcome)


def in_photo_pixels(gallery: GalleryFile, photo: JudgePhoto, grounding: Grounding) -> Grounding:
    """The grounding of a photo at working size, with boxes at its true size."""
    size = gallery.photo(photo.key).record
    height, width = photo.image.shape[:2]
    boxes = tuple(box.scaled(size.width / width, size.height / height) for box in grounding.boxes)
    return replace(grounding, boxes=boxes)


def _matched(gallery: GalleryFile, photo_id: int, grounding: Grounding) -> Grounded:
    regions = gallery.regions(photo_id)
    instances = tuple(Instance(box, match(box, regions)) for box in grounding.boxes)
    return Grounded(instances, grounding.readable)
