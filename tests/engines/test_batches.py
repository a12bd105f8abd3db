"""Batches that halve when a device runs out of memory."""

import threading
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from matir_cli.engines.batches import BatchRunner, split_batch
from matir_cli.errors import EngineFailed


@settings(derandomize=True)
@given(count=st.integers(0, 60), size=st.integers(1, 80), room=st.integers(1, 40), cost=st.integers(1, 7))
def test_every_item_comes_once_and_in_order(count: int, size: int, room: int, cost: int) -> None:
    runner, tried = BatchRunner(size), []

    def work(batch: slice) -> list[int]:
        tried.append(batch.stop - batch.start)
        if batch.stop - batch.start > room:
            raise torch.OutOfMemoryError("no memory")
        return list(range(count))[batch]

    first = [item for items in runner.run(count, work, cost=cost) for item in items]
    assert first == list(range(count))
    failed = [length for length in tried if length > room]
    assert all(later <= earlier / 2 for earlier, later in pairwise(failed))
    # What was learnt is kept: the second run fails nowhere.
    tried.clear()
    assert [item for items in runner.run(count, work, cost=cost) for item in items] == first
    assert max(tried, default=0) <= room


@settings(derandomize=True)
@given(counts=st.lists(st.integers(0, 9), max_size=8), size=st.integers(1, 12))
def test_the_parts_of_batches_are_the_groups(counts: list[int], size: int) -> None:
    items = [(group, item) for group, count in enumerate(counts) for item in range(count)]
    for start in range(0, len(items), size):
        batch = items[start : start + size]
        parts = list(split_batch(counts, slice(start, start + len(batch))))
        covered = [(part.group, item) for part in parts for item in range(counts[part.group])[part.items]]
        assert covered == batch
        assert [row for part in parts for row in range(len(batch))[part.rows]] == list(range(len(batch)))


def test_two_threads_keep_the_smaller_size() -> None:
    """The thread that found less room is the first to say so."""
    runner = BatchRunner(16)
    both_began, first_is_done = threading.Barrier(2), threading.Event()

    def work(batch: slice, room: int) -> int:
        count = int(batch.stop - batch.start)
        if count == 16:
            both_began.wait(10)
            if room == 8:
                assert first_is_done.wait(10)
        if count > room:
            raise torch.OutOfMemoryError("no memory")
        return count

    def run_small() -> None:
        assert list(runner.run(16, lambda batch: work(batch, 2))) == [2] * 8
        first_is_done.set()

    thread = threading.Thread(target=run_small)
    thread.start()
    assert sum(runner.run(16, lambda batch: work(batch, 8))) == 16
    thread.join(10)
    assert runner.size == 2


def test_too_little_memory_for_one_item() -> None:
    def work(batch: slice) -> None:
        raise torch.OutOfMemoryError(f"no memory for {batch}")

    with pytest.raises(EngineFailed, match="not enough memory for one item at a time"):
        list(BatchRunner(8).run(20, work))


def test_the_error_of_mps_is_known_by_its_text() -> None:
    def work(batch: slice) -> int:
        if batch.stop - batch.start > 1:
            raise RuntimeError("MPS backend out of memory (MPS allocated: 8 GB)")
        return int(batch.start)

    assert list(BatchRunner(4).run(3, work)) == [0, 1, 2]


def test_a_run_within_a_run_lets_the_outer_one_halve() -> None:
    outer, inner = BatchRunner(8), BatchRunner(4)

    def work(batch: slice) -> int:
        held = batch.stop - batch.start

        def hold(part: slice) -> int:
            if held > 2:
                raise torch.OutOfMemoryError("no memory")
            return int(part.stop - part.start)

        return sum(inner.run(held, hold))

    assert list(outer.run(5, work)) == [2, 2, 1]


def test_other_errors_come_through() -> None:
    def work(batch: slice) -> None:
        raise RuntimeError(f"shapes do not fit in {batch}")

    with pytest.raises(RuntimeError, match="shapes do not fit"):
        list(BatchRunner(4).run(3, work))
