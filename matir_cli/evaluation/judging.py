"""Stage 2 of a whole evaluation, photo by photo: each is encoded once and then asked all of its questions.

What comes of it is nothing but what the judge remembers (`verdicts`). `rerank` and `answers` then
run over that memory as in any search, and find nothing left to ask. A photo's verdicts are stored
before the next one is looked at, so a stopped run goes on at the photo it was at.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias

from matir_cli.engines.protocols import GroundingQuestion
from matir_cli.progress import ProgressObserver, no_progress
from matir_cli.search.grounding import ground_batch
from matir_cli.search.rerank import JudgeSession

Questions: TypeAlias = Mapping[int, Sequence[str]]
"""Photo id to the queries to ask about it."""


def judge_photos(
    rooms: Mapping[str, JudgeSession], wanted: Questions, progress: ProgressObserver = no_progress
) -> None:
    """See to it that the judge has judged all that is `wanted`, in order of photo id.

    Args:
        rooms: for each query where it is asked, all of one judge and one gallery.
    """
    missing = _missing(wanted, lambda text, photo_id: rooms[text].cache.verdict(photo_id) is None)
    with progress("judging", len(missing), "photo") as advance:
        for photo_id, texts in missing.items():
            room = rooms[texts[0]]
            photo = room.photo(photo_id)
            if photo is not None:
                verdicts = room.judge().rerank(photo, texts)
                with room.gallery.atomic():  # to wait for the disk once a photo, not once a question
                    for text, verdict in zip(texts, verdicts, strict=True):
                        rooms[text].cache.remember(photo_id, verdict)
            advance()


def ground_photos_by_photo(
    rooms: Mapping[str, JudgeSession], wanted: Questions, progress: ProgressObserver = no_progress
) -> None:
    """See to it that the judge has said where all that is `wanted` lies, in order of photo id."""
    missing = _missing(wanted, lambda text, photo_id: rooms[text].cache.grounding(photo_id) is None)
    waiting: list[GroundingQuestion] = []
    with progress("grounding", len(missing), "photo") as advance:
        for photo_id, texts in missing.items():
            room = rooms[texts[0]]
            photo = room.photo(photo_id)
            if photo is not None:
                waiting += [GroundingQuestion(photo, text) for text in texts]
                at_once = room.judge().grounds_at_once
                while len(waiting) >= at_once:
                    ground_batch(rooms, waiting[:at_once])
                    del waiting[:at_once]
            advance()
        if waiting:
            ground_batch(rooms, waiting)


def _missing(wanted: Questions, is_open: Callable[[str, int], bool]) -> dict[int, list[str]]:
    """What is still open, each question once."""
    found = {
        photo_id: [text for text in dict.fromkeys(wanted[photo_id]) if is_open(text, photo_id)]
        for photo_id in sorted(wanted)
    }
    return {photo_id: texts for photo_id, texts in found.items() if texts}
