"""Stage 2: a judge looks at the candidates, ranks them and says where the object is.

    candidates -> "True or False?" -> by zTrue - zFalse (eq. 2) -> box -> stored region -> mask

What the judge said is remembered in the gallery; only what is new is asked.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from matir_cli.engines.protocols import Judge, JudgePhoto
from matir_cli.gallery.database import GalleryFile
from matir_cli.gallery.verdict_cache import VerdictCache
from matir_cli.gallery.working_image import load_working_image
from matir_cli.records import Candidate, Verdict


@dataclass(frozen=True, slots=True)
class JudgedCandidate:
    """A candidate and what the judge said of it."""

    candidate: Candidate
    verdict: Verdict | None
    """None where the judge was not asked: out of time, or the photo is not to be had."""


@dataclass(frozen=True, slots=True)
class JudgeQuestion:
    """Does a photo contain what `text` describes?"""

    text: str
    memory: VerdictCache
    """What was said about it before."""


@dataclass(frozen=True, slots=True)
class JudgeSession:
    """What stage 2 works with."""

    gallery: GalleryFile
    judge: Callable[[], Judge]
    """Gives the judge, loading it on the first call."""
    memory: VerdictCache
    query: str
    without: tuple[JudgeQuestion, ...] = ()
    """What must not be in the photo."""

    def photo(self, photo_id: int) -> JudgePhoto | None:
        """The photo at working size: its preview, else its file if that is as it was; else None."""
        image = load_working_image(self.gallery, photo_id)
        return None if image is None else JudgePhoto(photo_id, image)


def rerank_candidates(
    room: JudgeSession, candidates: Sequence[Candidate], in_time: Callable[[], bool] = lambda: True
) -> Iterator[JudgedCandidate]:
    """Ask the judge about each candidate, in their order; one outcome a candidate.

    All that is asked about one photo, what must not be in it too, is asked at once.

    Args:
        in_time: asked before each new photo; once it says no, the judge is asked no more.
    """
    wanted = JudgeQuestion(room.query, room.memory)
    questions = (wanted, *room.without)
    for candidate in candidates:
        said = {
            q: verdict for q in questions if (verdict := q.memory.verdict(candidate.photo_id)) is not None
        }
        unasked = [question for question in questions if question not in said]
        if unasked:
            photo = room.photo(candidate.photo_id) if in_time() else None
            if photo is None:
                yield JudgedCandidate(candidate, None)
                continue
            answers = room.judge().rerank(photo, [question.text for question in unasked])
            for question, verdict in zip(unasked, answers, strict=True):
                question.memory.remember(candidate.photo_id, verdict)
                said[question] = verdict
        outcome = combine_verdicts(said[wanted], [said[question] for question in room.without])
        yield JudgedCandidate(candidate, outcome)


def combine_verdicts(wanted: Verdict, unwanted: Sequence[Verdict]) -> Verdict:
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


def order_by_verdict(judged: Sequence[JudgedCandidate]) -> list[JudgedCandidate]:
    """By zTrue - zFalse, then stage-1 score, then photo id; those not judged follow by stage 1."""

    def key(item: JudgedCandidate) -> tuple[bool, float, float, int]:
        margin = item.verdict.margin if item.verdict is not None else 0.0
        return item.verdict is None, -margin, -item.candidate.score, item.candidate.photo_id

    return sorted(judged, key=key)
