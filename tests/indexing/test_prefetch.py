"""Stages in threads: order, depth, errors, ending."""

import threading
from collections.abc import Iterator
from contextlib import nullcontext

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from matir_cli.indexing.prefetch import prefetch, prefetch_groups


def test_keeps_the_order_and_ends() -> None:
    assert list(prefetch(prefetch(range(100), 3), 2)) == list(range(100))


def test_a_stage_is_ahead_by_its_depth_at_most() -> None:
    made: list[int] = []
    reached = threading.Event()

    def count() -> Iterator[int]:
        for number in range(100):
            made.append(number)
            if number == 3:
                reached.set()
            yield number

    before = set(threading.enumerate())
    items = prefetch(count(), 3)
    assert next(items) == 0
    assert reached.wait(10)
    assert next(items) == 1
    items.close()
    for thread in set(threading.enumerate()) - before:
        thread.join(10)
    assert 4 <= len(made) <= 5  # the consumed ones and three in advance


def test_an_error_arrives_in_its_place() -> None:
    def failing() -> Iterator[int]:
        yield 1
        raise ValueError("two")

    items = prefetch(failing(), 5)
    assert next(items) == 1
    with pytest.raises(ValueError, match="two"):
        next(items)


def test_closing_ends_the_threads_and_closes_the_sources() -> None:
    closed = threading.Event()

    def endless() -> Iterator[int]:
        try:
            while True:
                yield 1
        finally:
            closed.set()

    before = set(threading.enumerate())
    items = prefetch(prefetch(endless(), 2), 2)
    next(items)
    items.close()
    assert closed.wait(10)
    for thread in set(threading.enumerate()) - before:
        thread.join(10)
    assert not set(threading.enumerate()) - before


class TestGroups:
    """`prefetch_groups`."""

    @settings(derandomize=True, max_examples=60, deadline=None)
    @given(
        count=st.integers(0, 30),
        workers=st.integers(1, 3),
        depth=st.integers(1, 6),
        most=st.integers(1, 5),
        failing=st.none() | st.integers(0, 30),
        in_work=st.booleans(),
    )
    def test_results_come_in_order_up_to_an_error(
        self, count: int, workers: int, depth: int, most: int, failing: int | None, in_work: bool
    ) -> None:
        def items() -> Iterator[int]:
            for number in range(count):
                if number == failing and not in_work:
                    raise ValueError(number)
                yield number

        def work(number: int) -> int:
            if number == failing:
                raise ValueError(number)
            return number * number

        groups: list[list[int]] = []
        fails = failing is not None and failing < count
        with pytest.raises(ValueError, match=f"^{failing}$") if fails else nullcontext():
            stage = prefetch_groups(
                items(), work, depth=depth, workers=workers, full=lambda group: len(group) >= most
            )
            groups.extend(stage)
        ends = failing if fails else count
        assert [each for group in groups for each in group] == [number**2 for number in range(ends or 0)]
        assert all(1 <= len(group) <= most for group in groups)

    def test_a_group_is_what_is_ready(self) -> None:
        """The consumer asks for the second group when four results are there, and the fifth is not."""
        ready, may_end = threading.Event(), threading.Event()

        def work(number: int) -> int:
            if number == 4:
                ready.set()
                assert may_end.wait(10)
            return number

        groups = prefetch_groups(range(6), work, depth=6, full=lambda group: len(group) == 1 + group[0] * 9)
        assert next(groups) == [0]
        assert ready.wait(10)
        assert next(groups) == [1, 2, 3]
        may_end.set()
        assert [each for group in groups for each in group] == [4, 5]

    def test_threads_work_at_a_time_within_the_depth(self) -> None:
        begun: list[int] = []
        meeting = threading.Barrier(3)

        def work(number: int) -> int:
            begun.append(number)
            if number < 3:
                meeting.wait(10)
            return number

        before = set(threading.enumerate())
        groups = prefetch_groups(range(100), work, depth=4, workers=3, full=lambda _: True)
        assert next(groups) == [0]
        groups.close()
        for thread in set(threading.enumerate()) - before:
            thread.join(10)
        assert set(begun) >= {0, 1, 2}
        assert len(begun) <= 5

    def test_closing_waits_for_no_thread_and_closes_the_items_once(self) -> None:
        """Also while one thread is taking an item, and another one waits for its turn."""
        taking, may_go, closed = threading.Event(), threading.Event(), []

        def items() -> Iterator[int]:
            try:
                yield 0
                taking.set()
                assert may_go.wait(10)
                yield 1
            finally:
                closed.append(True)

        before = set(threading.enumerate())
        groups = prefetch_groups(items(), lambda item: item, depth=5, workers=2, full=lambda _: True)
        assert next(groups) == [0]
        assert taking.wait(10)
        groups.close()
        assert not closed
        may_go.set()
        for thread in set(threading.enumerate()) - before:
            thread.join(10)
        assert closed == [True]
        assert not set(threading.enumerate()) - before
