"""Reranking (stage 2): a judge answers True or False for each candidate (eq. 2).

    candidates -> "Does this image contain the described object?" -> ranked by zTrue - zFalse

Verdicts are cached in the gallery, so only new questions are asked. `grounding` then turns the judge's
boxes into masks for the photos that are kept.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from matir_cli.engines.protocols import Judge, JudgePhoto
from matir_cli.gallery.joint_verdicts import AnswerCache
from matir_cli.gallery.union import GalleryReader
from matir_cli.gallery.working_image import load_working_image
from matir_cli.records import Candidate, FloatArray, Verdict


@dataclass(frozen=True, slots=True)
class JudgedCandidate:
    """A candidate with the judge's verdict."""

    candidate: Candidate
    verdict: Verdict | None
    """None if the judge was not asked: the time was up, or the photo's pixels are unavailable; also if it
    could not answer."""
    failed: bool = False
    """True if the judge was asked, and its model computes no numbers for this photo."""
    foreseen: bool = False
    """True if the judge was not asked because enough was known (`early_stopping`)."""


@dataclass(frozen=True, slots=True)
class JudgeQuestion:
    """The question whether a photo contains the object that `text` describes."""

    text: str
    cache: AnswerCache
    """Earlier verdicts on this question."""


@dataclass(frozen=True, slots=True)
class JudgeSession:
    """A judge, the gallery it looks into and the query it judges: the context of all of stage 2."""

    gallery: GalleryReader
    judge: Callable[[], Judge]
    """Returns the judge; loads it on the first call."""
    cache: AnswerCache
    """Earlier verdicts and groundings for `query`."""
    query: str
    excluded: tuple[JudgeQuestion, ...] = ()
    """Questions about objects that must not be in the photo."""
    directions: Callable[[], FloatArray] | None = field(default=None, compare=False)
    """Returns the (k, d) directions in which regions are compared with the described object, see
    `grounding.MatchOptions`; None: the judge is not offered regions to choose among."""
    failed: set[int] = field(default_factory=set, compare=False)
    """Ids of the photos for which the judge's model computes no numbers; it is not asked about them again."""

    def photo(self, photo_id: int) -> JudgePhoto | None:
        """Load a photo at working size: its preview, or else its file if that has not changed.

        Returns:
            None if neither is available, or the gallery no longer holds the photo.
        """
        image = load_working_image(self.gallery, photo_id)
        return None if image is None else JudgePhoto(photo_id, image)


def rerank_candidates(
    session: JudgeSession, candidates: Sequence[Candidate], has_time: Callable[[], bool] = lambda: True
) -> Iterator[JudgedCandidate]:
    """Ask the judge about each candidate; yield one item per candidate, in the given order.

    All questions about one photo, including those about excluded objects, are asked in one call. Each
    verdict is cached as it comes, so an interrupted search resumes where it stopped.

    Args:
        has_time: called before each photo that needs the judge; once it returns False, the remaining
            candidates get the verdicts that are cached and no others.

    Raises:
        MatirError: as loading and asking the judge raise it.
    """
    wanted = JudgeQuestion(session.query, session.cache)
    questions = (wanted, *session.excluded)
    for candidate in candidates:
        verdicts = {
            q: verdict for q in questions if (verdict := q.cache.verdict(candidate.photo_id)) is not None
        }
        unasked = [question for question in questions if question not in verdicts]
        if unasked:
            if candidate.photo_id in session.failed:
                yield JudgedCandidate(candidate, None, failed=True)
                continue
            photo = session.photo(candidate.photo_id) if has_time() else None
            if photo is None:
                yield JudgedCandidate(candidate, None)
                continue
            answers = session.judge().rerank(photo, [question.text for question in unasked])
            for question, verdict in zip(unasked, answers, strict=True):
                if verdict is not None:
                    question.cache.remember(candidate.photo_id, verdict)
                    verdicts[question] = verdict
            if None in answers:
                session.failed.add(candidate.photo_id)
                yield JudgedCandidate(candidate, None, failed=True)
                continue
        combined = combine_verdicts(verdicts[wanted], [verdicts[question] for question in session.excluded])
        yield JudgedCandidate(candidate, combined)


def combine_verdicts(wanted: Verdict, unwanted: Sequence[Verdict]) -> Verdict:
    """Return the verdict that a photo has the wanted object and none of the unwanted ones.

    Its probability is p = p_wanted (1 - max p_unwanted). Its logits are log p and log (1 - p), computed
    from the margins, so that verdicts still rank where p saturates.
    """
    if not unwanted:
        return wanted
    worst = max(verdict.margin for verdict in unwanted)
    p, not_p = _log_sigmoid(wanted.margin), _log_sigmoid(-wanted.margin)
    both = p + _log_sigmoid(worst)
    return Verdict(p + _log_sigmoid(-worst), float(np.logaddexp(not_p, both)))


def _log_sigmoid(margin: float) -> float:
    return -float(np.logaddexp(0.0, -margin))


def order_by_verdict(judged: Sequence[JudgedCandidate], fusion: float = 0.0) -> list[JudgedCandidate]:
    """Sort by zTrue - zFalse, then stage-1 score, both descending, then photo id; unjudged ones come last.

    Args:
        fusion: weight with which the stage-1 score is added to zTrue - zFalse; 0 is the paper's method.
    """

    def key(item: JudgedCandidate) -> tuple[bool, float, float, int]:
        margin = item.verdict.margin + fusion * item.candidate.score if item.verdict is not None else 0.0
        return item.verdict is None, -margin, -item.candidate.score, item.candidate.photo_id

    return sorted(judged, key=key)
