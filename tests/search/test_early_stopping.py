"""Early stopping: whom to ask next, when to end, and what it costs and keeps on a simulated judge."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from matir_cli.search.early_stopping import (
    BATCH,
    CERTAINTY,
    FIRST_PLACES,
    Floats,
    estimate_chances,
    next_photos,
    rank_estimated,
    replay,
)


@st.composite
def cases(draw: st.DrawFn) -> tuple[Floats, Floats, int, float]:
    """Stage-1 scores, the margins of all candidates (NaN: no answer), a limit and a certainty."""
    count = draw(st.integers(0, 40))
    number = st.floats(-1, 1)
    scores = sorted(draw(st.lists(number, min_size=count, max_size=count)), reverse=True)
    margin = st.one_of(st.floats(-50, 50), st.just(float("nan")), st.sampled_from([0.0, 1e300, -1e300]))
    margins = draw(st.lists(margin, min_size=count, max_size=count))
    return np.array(scores), np.array(margins), draw(st.integers(1, 60)), draw(st.floats(0, 1))


def simulated(rng: np.random.Generator, relevant: float, count: int = 100) -> tuple[Floats, Floats]:
    """Scores and margins of a judge that is sure, where stage 1 knows something of the answer."""
    is_relevant = rng.random(count) < relevant
    scores = rng.normal(0, 1, count) + 2.5 * is_relevant
    order = np.argsort(-scores)
    margins = np.where(is_relevant, 1, -1) * rng.normal(6, 1.5, count)
    return scores[order], margins[order]


@settings(derandomize=True, deadline=None, max_examples=150)
@given(cases())
def test_each_is_asked_once_and_none_beyond_the_candidates(case: tuple[Floats, Floats, int, float]) -> None:
    scores, margins, limit, certainty = case
    done = replay(scores, margins, limit, certainty)
    assert len({*done.asked.tolist()}) == done.asked.size <= scores.size
    assert {*done.ranking.tolist()} == {*range(scores.size)}
    again = replay(scores.copy(), margins.copy(), limit, certainty)
    assert again.asked.tolist() == done.asked.tolist()
    assert again.ranking.tolist() == done.ranking.tolist()
    known = np.full(scores.size, np.nan)
    known[done.asked] = margins[done.asked]
    refused = np.isnan(known) & np.isin(np.arange(scores.size), done.asked)
    # The first places have verdicts, as far as the judge has an answer.
    for place in done.ranking[: min(limit, FIRST_PLACES)]:
        assert place in done.asked
    # Nothing more is asked if the search is run again with what is known, however it came about.
    assert next_photos(scores, known, limit, certainty, refused=refused).size == 0
    if not refused.all():
        assert refused[done.ranking[-1]] == refused.any()


@settings(derandomize=True, deadline=None, max_examples=60)
@given(cases())
def test_certainty_1_asks_about_all_in_stage_1_order(case: tuple[Floats, Floats, int, float]) -> None:
    scores, margins, limit, _ = case
    done = replay(scores, margins, limit, 1.0)
    assert done.asked.tolist() == [*range(scores.size)]
    keys = np.where(np.isnan(margins), -np.inf, margins)
    assert done.ranking.tolist() == np.argsort(-keys, kind="stable").tolist()


@settings(derandomize=True, deadline=None, max_examples=60)
@given(cases(), st.floats(0, 20))
def test_a_bonus_counts_beside_the_margins(case: tuple[Floats, Floats, int, float], weight: float) -> None:
    scores, margins, limit, certainty = case
    done = replay(scores, margins, limit, 1.0, bonus=weight * scores)
    keys = np.where(np.isnan(margins), -np.inf, margins + weight * scores)
    assert done.ranking.tolist() == np.argsort(-keys, kind="stable").tolist()
    nothing = replay(scores, margins, limit, certainty, bonus=np.zeros(scores.size))
    assert nothing.asked.tolist() == replay(scores, margins, limit, certainty).asked.tolist()
    # What is the same for all candidates changes nothing, where adding it is exact.
    kept = np.round(np.clip(margins, -50, 50) * 1024) / 1024
    shifted = replay(scores, kept, limit, certainty, bonus=np.full(scores.size, 8.0))
    assert shifted.asked.tolist() == replay(scores, kept, limit, certainty).asked.tolist()


@settings(derandomize=True, deadline=None, max_examples=60)
@given(cases(), st.floats(0.01, 100), st.floats(-10, 10))
def test_the_scale_of_the_scores_does_not_matter(
    case: tuple[Floats, Floats, int, float], scale: float, shift: float
) -> None:
    # Whole numbers, so that scaling changes no order.
    scores, margins, limit, certainty = case
    scores = np.round(scores * 64)
    chances = estimate_chances(scores, margins)
    assert ((chances > 0) & (chances < 1)).all()
    assert estimate_chances(scale * scores + shift, margins) == pytest.approx(chances, abs=1e-6)
    assert next_photos(scores, margins, limit, certainty).size <= BATCH


def test_verdicts_change_the_estimate_of_the_others() -> None:
    scores = np.linspace(1, 0, 20)
    none = np.full(20, np.nan)
    before = estimate_chances(scores, none)
    assert (np.diff(before) <= 0).all()
    yes, no = none.copy(), none.copy()
    yes[:6], no[:6] = 5.0, -5.0
    assert (estimate_chances(scores, yes)[6:] > before[6:]).all()
    assert (estimate_chances(scores, no)[6:] < before[6:]).all()
    # A photo that was not found is behind those of which it is not known.
    mixed = none.copy()
    mixed[0] = -9.0
    assert rank_estimated(scores, mixed).tolist() == [*range(1, 20), 0]


def test_what_is_cached_is_not_asked_about_again() -> None:
    scores, margins = simulated(np.random.default_rng(1), 0.3)
    done = replay(scores, margins, 10)
    known = np.full(scores.size, np.nan)
    known[done.asked[::2]] = margins[done.asked[::2]]
    while (batch := next_photos(scores, known, 10, CERTAINTY)).size:
        assert np.isnan(known[batch]).all()
        known[batch] = margins[batch]
    assert np.isfinite(known).sum() <= done.asked.size + BATCH


def test_more_certainty_asks_more_and_a_known_answer_little() -> None:
    rng = np.random.default_rng(7)
    cases = [simulated(rng, relevant) for relevant in (0.02, 0.1, 0.3, 0.6, 0.95) for _ in range(8)]
    asked = [
        np.mean([replay(*case, 50, certainty).asked.size for case in cases])
        for certainty in (0.0, 0.5, CERTAINTY, 0.8, 0.95, 1.0)
    ]
    assert asked == sorted(asked)
    assert asked[0] < 35
    assert asked[2] < 55
    assert asked[-1] == 100
    # Of the photos that the judge would find, hardly any is missed, and no first place is wrong.
    for scores, margins in cases:
        for limit in (10, 50):
            ranking = replay(scores, margins, limit).ranking
            found = int((margins[ranking[:limit]] > 0).sum())
            possible = min(limit, int((margins > 0).sum()))
            assert found >= possible - max(2, 0.15 * possible)


def test_judging_ends_soon_where_all_show_it_and_goes_on_where_nothing_is_found() -> None:
    scores = np.sort(np.random.default_rng(3).normal(0, 1, 100))[::-1].copy()
    assert replay(scores, np.full(100, 7.0), 10).asked.size <= 20
    assert replay(scores, np.full(100, -7.0), 10).asked.size > 50
    assert replay(np.zeros(100), np.full(100, np.nan), 10).asked.size == 100  # it answers nothing
