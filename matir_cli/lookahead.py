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


def ahead(items: Iterable[Item], depth: int) -> Generator[Item, None, None]:
    """Yield `items`, computing up to `depth` of them in advance in a thread of their own.

    What the computation raises is raised here, in its place in the order. Closing the
    generator ends the thread after the item that it is working on, and closes `items`.
    """
    waiting: queue.Queue[Item | _End] = queue.Queue(depth)
    stopped = threading.Event()

    def work() -> None:
        end = _End(None)
        try:
            for item in items:
                waiting.put(item)
                if stopped.is_set():
                    return
        except BaseException as error:  # it crosses to the consumer's thread
            end = _End(error)
        finally:
            if isinstance(items, Generator):
                items.close()
            if not stopped.is_set():
                waiting.put(end)

    threading.Thread(target=work, daemon=True).start()
    try:
        while not isinstance(item := waiting.get(), _End):
            yield item
        if item.error is not None:
            raise item.error
    finally:
        stopped.set()
        while not waiting.empty():  # a worker that waits for room sees that it is over
            waiting.get_nowait()
