"""Stages that run ahead of their consumer in threads, behind bounded queues."""

import queue
import threading
from collections.abc import Callable, Generator, Iterable
from contextlib import closing
from typing import Generic, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


class _End:
    """The last value of a stage, with the error that ended it, if any."""

    def __init__(self, error: BaseException | None) -> None:
        self.error = error


def put_back(first: Item, items: Generator[Item, None, None]) -> Generator[Item, None, None]:
    """Yield `first`, which was taken from `items`, then the others; closes `items`."""
    with closing(items):
        yield first
        yield from items


def prefetch(items: Iterable[Item], depth: int) -> Generator[Item, None, None]:
    """Yield `items`, computing up to `depth` of them in advance in a separate thread.

    An error that the computation raises is raised here, at its place in the order. Closing the
    generator ends the thread after its current item, and closes `items`.
    """
    with closing(prefetch_groups(items, lambda item: item, depth=depth, full=lambda _: True)) as groups:
        for group in groups:
            yield from group


def prefetch_groups(
    items: Iterable[Item],
    work: Callable[[Item], Result],
    *,
    depth: int,
    workers: int = 1,
    full: Callable[[list[Result]], bool],
) -> Generator[list[Result], None, None]:
    """Yield the results of `work` in the order of `items`, in groups of those that are ready.

    Nothing waits for a group to grow: it holds the next result, and those behind it that are computed
    already. Errors and closing as in `prefetch`; what was computed before an error is yielded first.

    Args:
        items: taken by one thread at a time.
        work: called in `workers` threads at a time, each with another item.
        depth: number of results that may be computed, or under way, in advance.
        workers: number of threads.
        full: returns True for a group to which no other result is to be added.
    """
    stage = _Stage(items, work, depth, workers)
    try:
        while True:
            group: list[Result] = []
            slot = stage.take()
            while not isinstance(result := slot.get(), _End):
                stage.room.put(None)
                group.append(result)
                if full(group) or not stage.is_next_ready():
                    break
                slot = stage.take()
            if group:
                yield group
            if isinstance(result, _End):
                if result.error is not None:
                    raise result.error
                return
    finally:
        stage.stop()


class _Stage(Generic[Item, Result]):
    """Threads that take items in turn, and put what they make of them in the places of these.

    Only SimpleQueue is safe between them and the consumer: Ctrl-C at the moment when a Queue, Event or
    Semaphore has taken its lock leaves the lock taken, and the end of the process then waits for it for ever.
    """

    def __init__(
        self, items: Iterable[Item], work: Callable[[Item], Result], depth: int, workers: int
    ) -> None:
        """Start the threads; arguments as in `prefetch_groups`."""
        self.room: queue.SimpleQueue[None] = queue.SimpleQueue()
        """Holds one value for each item that may be begun."""
        for _ in range(depth):
            self.room.put(None)
        self._items, self._work = items, work
        self._source = iter(items)
        self._slots: queue.SimpleQueue[queue.SimpleQueue[Result | _End]] = queue.SimpleQueue()
        self._next: queue.SimpleQueue[Result | _End] | None = None
        self._stopped = False
        self._taking = threading.Lock()  # between the threads alone: none of them gets Ctrl-C
        self._working = workers
        for _ in range(workers):
            threading.Thread(target=self._run, daemon=True).start()

    def take(self) -> queue.SimpleQueue[Result | _End]:
        """Return the place of the next result, which may not be there yet; waits for the place alone."""
        slot, self._next = self._next, None
        return self._slots.get() if slot is None else slot

    def is_next_ready(self) -> bool:
        """Return True if the next result, or the end, is there."""
        if self._next is None:
            try:
                self._next = self._slots.get_nowait()
            except queue.Empty:
                return False
        return not self._next.empty()

    def stop(self) -> None:
        """End the threads after their current items; the last one closes the items."""
        self._stopped = True
        self.room.put(None)  # wakes a thread that waits for room, so that it sees `_stopped`

    def _run(self) -> None:
        """Work until the items end, one fails, or the stage is stopped."""
        try:
            while self._run_next():
                pass
        finally:
            with self._taking:
                self._working -= 1
                is_last = not self._working
            self.room.put(None)  # wakes another thread that waits for room
            if is_last and isinstance(self._items, Generator):
                self._items.close()

    def _run_next(self) -> bool:
        """Take an item and compute its result; return False if there is none, or it failed."""
        self.room.get()
        slot: queue.SimpleQueue[Result | _End] = queue.SimpleQueue()
        with self._taking:
            if self._stopped:
                return False
            self._slots.put(slot)
            try:
                item = next(self._source)
            except BaseException as error:  # passed on to the consumer's thread
                self._stopped = True
                slot.put(_End(None if isinstance(error, StopIteration) else error))
                return False
        try:
            slot.put(self._work(item))
        except BaseException as error:
            self._stopped = True
            slot.put(_End(error))
            return False
        return True
