"""Stages that run ahead of their consumer, each in a thread, behind a bounded queue."""

import queue
import threading
from collections.abc import Generator, Iterable
from typing import TypeVar

Item = TypeVar("Item")


class _End:
    """What a stage sends last: why it ended."""

    def __init__(self, error: BaseException | None) -> None:
        self.error = error


def prefetch(items: Iterable[Item], depth: int) -> Generator[Item, None, None]:
    """Yield `items`, computing up to `depth` of them in advance in a thread of their own.

    What the computation raises is raised here, in its place in the order. Closing the
    generator ends the thread after the item that it is working on, and closes `items`.
    """
    # SimpleQueue alone is safe here: Ctrl-C in the moment when a Queue, Event or Semaphore has taken its
    # lock leaves the lock taken, and the end of the process then waits for it for ever.
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
        except BaseException as error:  # it crosses to the consumer's thread
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
        room.put(None)  # a worker that waits for room sees that it is over
