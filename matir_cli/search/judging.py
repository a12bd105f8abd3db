"""Judging of a search: the judge is asked about candidate after candidate until enough is known.

`early_stopping` decides whom to ask next and when to end; `rerank` asks.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from matir_cli.progress import ProgressObserver
from matir_cli.records import Candidate
from matir_cli.search.early_stopping import FIRST_PLACES, Indices, next_photos, rank_estimated
from matir_cli.search.events import SearchEvent, VerdictEvent
from matir_cli.search.rerank import JudgedCandidate, JudgeSession, order_by_verdict, rerank_candidates


@dataclass(frozen=True, slots=True)
class JudgingOptions:
    """How many verdicts are wanted."""

    limit: int
    """Number of photos wanted, 1 or more."""
    certainty: float
    """See `early_stopping`, 0..1; 1 asks about all candidates."""
    budget: float | None = None
    """Seconds after which the judge is asked about no further photo; None: no limit."""
    judge_all_places: bool = False
    """Every one of the first `limit` photos must have a verdict, not only the first few."""
    fusion: float = 0.0
    """Weight of the stage-1 score beside zTrue - zFalse; see `fusion_weight`."""


@dataclass(frozen=True, slots=True)
class JudgedRanking:
    """What is known of the candidates at the end."""

    items: list[JudgedCandidate]
    """Best first: by verdict and, with fusion, stage-1 score. Where judging ended since enough was known,
    unjudged ones are in between by the estimate of theirs; otherwise these come last. After Ctrl-C, only
    candidates with a verdict or about which the judge could not answer."""
    complete: bool
    """False after Ctrl-C."""
    unlikely: int
    """Number of candidates that were not judged because they are unlikely to be among the first."""


@dataclass
class _State:
    """Verdicts so far on the candidates, by index."""

    candidates: Sequence[Candidate]
    items: dict[int, JudgedCandidate] = field(default_factory=dict)

    def __post_init__(self) -> None:
        count = len(self.candidates)
        self.scores = np.array([candidate.score for candidate in self.candidates])
        self.margins = np.full(count, np.nan)
        self.refused = np.zeros(count, np.bool_)

    def note(self, index: int, item: JudgedCandidate) -> bool:
        """Keep what was answered; return whether it is a verdict or a failure to give one."""
        self.refused[index] = item.verdict is None
        if item.verdict is not None:
            self.margins[index] = item.verdict.margin
        if item.verdict is None and not item.failed:
            return False
        self.items[index] = item
        return True

    def ask(
        self, session: JudgeSession, batch: Sequence[int], has_time: Callable[[], bool]
    ) -> Iterator[VerdictEvent]:
        """Ask the judge about some candidates."""
        answers = rerank_candidates(session, [self.candidates[index] for index in batch], has_time)
        for index, item in zip(batch, answers, strict=True):
            if self.note(index, item):
                yield VerdictEvent(item, len(self.items))

    def recall(self, session: JudgeSession) -> Iterator[VerdictEvent]:
        """Take the verdicts that are cached, which cost nothing."""
        known = rerank_candidates(session, self.candidates, lambda: False)
        for index, item in enumerate(known):
            if item.verdict is not None and self.note(index, item):
                yield VerdictEvent(item, len(self.items))

    def next(self, options: JudgingOptions) -> Indices:
        """Return the next candidates to ask about; none if enough is known."""
        return next_photos(
            self.scores,
            self.margins,
            options.limit,
            options.certainty,
            refused=self.refused,
            first_places=options.limit if options.judge_all_places else FIRST_PLACES,
            bonus=options.fusion * self.scores,
        )

    def ranking(self, fusion: float, *, ended: bool) -> JudgedRanking:
        """Return the ranking of all candidates.

        Args:
            fusion: as in `JudgingOptions`.
            ended: enough was known.
        """
        every = [
            self.items.get(index) or JudgedCandidate(candidate, None)
            for index, candidate in enumerate(self.candidates)
        ]
        if not ended:
            return JudgedRanking(order_by_verdict(every, fusion), complete=True, unlikely=0)
        order = rank_estimated(self.scores, self.margins, refused=self.refused, bonus=fusion * self.scores)
        foreseen = np.isnan(self.margins) & ~self.refused
        items = [replace(every[index], foreseen=bool(foreseen[index])) for index in order]
        return JudgedRanking(items, complete=True, unlikely=int(foreseen.sum()))


def judge_candidates(
    session: JudgeSession,
    candidates: Sequence[Candidate],
    options: JudgingOptions,
    progress: ProgressObserver,
) -> Generator[SearchEvent, None, JudgedRanking]:
    """Judge candidates until enough is known, time is up or Ctrl-C; yield each verdict as it comes.

    Cached verdicts come first, in stage-1 order. Whom to ask next depends on all verdicts so far.

    Args:
        candidates: of stage 1, best first.

    Raises:
        MatirError: as loading and asking the judge raise it.
    """
    end = None if options.budget is None else time.monotonic() + options.budget

    def has_time() -> bool:
        return end is None or time.monotonic() < end

    state = _State(candidates)
    try:
        with progress("judging", len(candidates), "photo") as advance:
            for event in state.recall(session):
                yield event
                advance()
            while (batch := state.next(options)).size and has_time():
                for event in state.ask(session, batch.tolist(), has_time):
                    yield event
                    advance()
    except KeyboardInterrupt:
        items = order_by_verdict([*state.items.values()], options.fusion)
        return JudgedRanking(items, complete=False, unlikely=0)
    return state.ranking(options.fusion, ended=not batch.size)
