"""Stages in threads: order, depth, errors, ending."""

import threading
from collections.abc import Iterator

import pytest

from matir_cli.indexing.prefetch import prefetch


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
