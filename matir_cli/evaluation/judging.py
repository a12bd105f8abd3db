"""Stage 2 of a whole evaluation, photo by photo.

Each photo is encoded once and then asked all of its questions. The answers go into the judge's
cache (`gallery.verdict_cache`) and nowhere else: reranking and grounding then run over that cache as
in any search and find nothing left to ask. A photo's verdicts are stored before the next photo is
encoded, so a stopped run resumes at the photo it had reached.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias

from matir_cli.engines.protocols import GroundingQuestion
from matir_cli.gallery.union import in_one_transaction
from matir_cli.progress import ProgressObserver, no_progress
from matir_cli.search.grounding import ground_batch
from matir_cli.search.offering import box_question
from matir_cli.search.rerank import JudgeSession

Questions: TypeAlias = Mapping[int, Sequence[str]]
"""Photo id to the queries to ask about that photo."""


def judge_by_photo(
    sessions: Mapping[str, JudgeSession], questions: Questions, progress: ProgressObserver = no_progress
) -> None:
    """Ask the judge for every verdict of `questions` that is not stored yet, in order of photo id.

    Photos whose pixels are not available are skipped. A photo about which the judge cannot answer is noted
    in `JudgeSession.failed`.

    Args:
        sessions: by query, all of the same judge and gallery.
    """
    missing = _unanswered(questions, lambda query, photo_id: sessions[query].cache.verdict(photo_id) is None)
    with progress("judging", len(missing), "photo") as advance:
        for photo_id, queries in missing.items():
            session = sessions[queries[0]]
            photo = session.photo(photo_id)
            if photo is not None:
                verdicts = session.judge().rerank(photo, queries)
                with in_one_transaction(session.gallery):  # one commit per photo, not one per question
                    for query, verdict in zip(queries, verdicts, strict=True):
                        if verdict is None:
                            sessions[query].failed.add(photo_id)
                        else:
                            sessions[query].cache.remember(photo_id, verdict)
            advance()


def ground_by_photo(
    sessions: Mapping[str, JudgeSession], questions: Questions, progress: ProgressObserver = no_progress
) -> None:
    """Ask the judge for every grounding of `questions` that is not stored yet, in order of photo id.

    Questions about several photos are asked in batches of the size that the judge answers at once.
    Photos whose pixels are not available are skipped.

    Args:
        sessions: by query, all of the same judge and gallery.
    """
    missing = _unanswered(
        questions, lambda query, photo_id: sessions[query].cache.grounding(photo_id) is None
    )
    waiting: list[GroundingQuestion] = []
    with progress("grounding", len(missing), "photo") as advance:
        for photo_id, queries in missing.items():
            session = sessions[queries[0]]
            photo = session.photo(photo_id)
            if photo is not None:
                waiting += [box_question(sessions[query], photo) for query in queries]
                batch = session.judge().grounds_at_once
                while len(waiting) >= batch:
                    ground_batch(sessions, waiting[:batch])
                    del waiting[:batch]
            advance()
        if waiting:
            ground_batch(sessions, waiting)


def _unanswered(questions: Questions, is_open: Callable[[str, int], bool]) -> dict[int, list[str]]:
    """Return the questions that are still open, each once, in order of photo id."""
    still_open = {
        photo_id: [query for query in dict.fromkeys(questions[photo_id]) if is_open(query, photo_id)]
        for photo_id in sorted(questions)
    }
    return {photo_id: queries for photo_id, queries in still_open.items() if queries}
