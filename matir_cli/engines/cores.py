"""Batches of a torch engine on a CPU: one per core, instead of all cores on one batch after the other.

Torch shares the work of each operation out to its threads, which have to wait for each other after each:
for small tensors that takes longer than the work. Batches that do not depend on each other need no waiting.
"""

import queue
import threading
from collections.abc import Callable, Sequence
from typing import TypeVar

import torch

_MOST_THREADS = 16
"""Threads at most: each needs memory for its batch, some 50 MB for two points of SAM 2 at 1024 pixels."""

_Batch = TypeVar("_Batch")
_Result = TypeVar("_Result")


def run_on_cores(batches: Sequence[_Batch], work: Callable[[_Batch], _Result]) -> list[_Result]:
    """Return the results of `work` for `batches`, in order; it runs in inference mode.

    As many threads as torch has for one operation, up to 16, compute one batch each at a time, each without
    threads of its own, so that the results do not depend on the number of cores. A single batch has all of
    torch's threads. An error of one batch ends the others.
    """
    before = torch.get_num_threads()
    threads = min(before, len(batches), _MOST_THREADS)
    if threads <= 1:
        return [work(batch) for batch in batches]
    # Only SimpleQueue is safe from Ctrl-C, see `indexing.prefetch`.
    waiting: queue.SimpleQueue[int | None] = queue.SimpleQueue()
    done: queue.SimpleQueue[tuple[int, _Result | BaseException]] = queue.SimpleQueue()
    for number in (*range(len(batches)), *[None] * threads):
        waiting.put(number)
    stopped = False

    def compute() -> None:
        nonlocal stopped
        with torch.inference_mode():
            while (number := waiting.get()) is not None and not stopped:
                try:
                    done.put((number, work(batches[number])))
                except BaseException as error:  # raised in the caller's thread
                    stopped = True
                    done.put((number, error))

    results: dict[int, _Result] = {}
    torch.set_num_threads(1)  # a new thread takes over this number at its first operation
    try:
        for _ in range(threads):
            threading.Thread(target=compute, daemon=True).start()
        for _ in batches:
            number, result = done.get()
            if isinstance(result, BaseException):
                raise result
            results[number] = result
    finally:
        stopped = True
        torch.set_num_threads(before)
    return [results[number] for number in range(len(batches))]
