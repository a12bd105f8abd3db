"""Stages that run ahead of their consumer in threads, behind bounded queues."""

import queue
import threading
from collections.abc import Generator, Iterable
from typing import TypeVar

Item = TypeVar("Item")


class _End:
    """The last value of a stage, with the error that ended it, if any."""

    def __init__(self, error: BaseException | None) -> None:
        self.error = error


def prefetch(items: Iterable[Item], depth: int) -> Generator[Item, None, None]:
    """Yield `items`, computing up to `depth` of them in advance in a separate thread.

    An error that the computation raises is raised here, at its place in the order. Closing the
    generator ends the thread after its current item, and closes `items`.
    """
    # Only SimpleQueue is safe: Ctrl-C at the moment when a Queue, Event or Semaphore has taken its lock
    # leaves the lock taken, and the end of the process then waits for it for ever.
    ready: queue.SimpleQueue[Item | _End] = queue.SimpleQueue()
    room: queue.SimpleQueue[None] = queue.SimpleQueue()
    for _ in range(depth):
        room.put(None)
    stopped = False
    source = iter(items)

    def work() -> None:
        end = _End(None)
        try:
            while True:
                room.get()
                if stopped:
                    return
                ready.put(next(source))
        except StopIteration:
            pass
        except BaseException as error:  # passed on to the consumer's thread
            end = _End(error)
        finally:
            if isinstance(items, Generator):
                items.close()
            ready.put(end)

    threading.Thread(target=work, daemon=True).start()
    try:
        while not isinstance(item := ready.get(), _End):
            room.put(None)
            yield item
        if item.error is not None:
            raise item.error
    finally:
        stopped = True
        room.put(None)  # wakes a worker that waits for room, so that it sees `stopped`
