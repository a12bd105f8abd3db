"""The observer that ignores all progress, and the estimate of the time left."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from matir_cli.progress import ProgressObserver, TimeLeft, no_progress
from tests.support.clock import Clock


def test_ignoring_progress_fulfils_the_protocol() -> None:
    observer: ProgressObserver = no_progress
    results = []
    with observer("judging", 2, "photo", done=1) as advance:
        results.append(advance())
        results.append(advance(5))
    assert results == [None, None]


class TestTimeLeft:
    @settings(derandomize=True, deadline=None, max_examples=60)
    @given(
        seed=st.integers(0, 9999),
        count=st.integers(300, 3000),
        loading=st.floats(0, 90),
        spread=st.floats(0, 0.7),
        small=st.floats(0, 0.5),
    )
    def test_right_within_a_fifth_after_the_first_tenth(
        self, seed: int, count: int, loading: float, spread: float, small: float
    ) -> None:
        """Photos of mixed size: seconds for SAM 2, then for each of their regions; some have few of these."""
        random = np.random.default_rng(seed)
        regions = np.where(random.random(count) < small, 3.0, random.lognormal(3.5, spread, count))
        seconds = 6 + 0.15 * regions
        clock = Clock()
        left = TimeLeft(None, clock)
        clock.seconds += loading
        left.expect(count)
        for done, taken in enumerate(seconds, start=1):
            clock.seconds += taken
            left.advance()
            estimate = left.estimate()
            if count // 10 <= done <= count - count // 10:
                assert estimate == pytest.approx(seconds[done:].sum(), rel=0.2)
        assert left.estimate() == 0

    def test_counts_down_between_two_items(self) -> None:
        clock = Clock()
        left = TimeLeft(4, clock)
        assert left.estimate() is None
        clock.seconds += 60
        left.advance()
        assert left.estimate() is None, "the first item may have taken long to begin"
        clock.seconds += 10
        left.advance()
        assert left.estimate() == 20
        clock.seconds += 7
        assert left.estimate() == 13
        clock.seconds += 100
        assert left.estimate() == 10, "the one after the next is still to come"

    def test_more_items_than_expected(self) -> None:
        clock = Clock()
        left = TimeLeft(1, clock)
        for _ in range(3):
            clock.seconds += 1
            left.advance()
            left.advance(0)
            assert left.estimate() == 0

    def test_an_unknown_number(self) -> None:
        left = TimeLeft(None)
        left.advance(5)
        left.advance(5)
        assert left.estimate() is None
