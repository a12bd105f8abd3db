"""Many clients of a server at once, for a time."""

import json
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from tests.support.server import CHANGING, Server

CLIENTS = 50


@dataclass
class Load:
    """What the clients saw."""

    statuses: Counter[int] = field(default_factory=Counter)
    """Number of answers by HTTP status."""
    seconds: list[float] = field(default_factory=list)
    """Time of each answer to its end."""
    wrong: list[str] = field(default_factory=list)
    """Answers that are not what they should be."""
    memory: list[int] = field(default_factory=list)
    """Resident memory of the server after each part of the time, bytes."""


def memory_of(server: Server) -> int:
    """Resident memory of the server's process, bytes."""
    status = Path(f"/proc/{server.process.pid}/status").read_text()
    (line,) = [line for line in status.splitlines() if line.startswith("VmRSS:")]
    return int(line.split()[1]) * 1024


def run_clients(server: Server, photos: int, seconds: float, parts: int = 2) -> Load:
    """Let `CLIENTS` clients search, judge and look at photos, over and over, for `parts` parts of the time.

    Every fifth of them asks the judge, about a query of its own the first time; the others use stage 1.
    """
    load, lock = Load(), threading.Lock()
    for _ in range(parts):
        end = time.monotonic() + seconds / parts

        def client(number: int, end: float = end) -> None:
            connection = server.connect()

            def answer(method: str, path: str, body: bytes | None = None) -> tuple[int, bytes]:
                started = time.monotonic()
                connection.request(method, path, body, CHANGING)
                response = connection.getresponse()
                content = response.read()
                with lock:
                    load.statuses[response.status] += 1
                    load.seconds.append(time.monotonic() - started)
                return response.status, content

            judge = number % 5 == 0
            search = {"text": f"{number} red house", "limit": 5, "rerank": judge, "candidates": 2}
            step = 0
            while not step or time.monotonic() < end:
                status, content = answer("POST", "/api/searches", json.dumps(search).encode())
                if status == 202:
                    _, events = answer("GET", json.loads(content)["events"])
                    if b"event: final" not in events:
                        load.wrong.append(events.decode())
                _, picture = answer("GET", f"/api/photos/{1 + (number + step) % photos}/image?size=320")
                if not picture.startswith(b"\xff\xd8"):
                    load.wrong.append(repr(picture[:200]))
                step += 1
            connection.close()

        threads = [threading.Thread(target=client, args=(number,)) for number in range(CLIENTS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        load.memory.append(memory_of(server))
    return load
