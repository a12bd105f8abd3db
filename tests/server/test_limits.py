"""Bounds of the server in time and memory, with limits short enough to be reached."""

import gc
import http.client
import json
import select
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import msgspec
import pytest

from matir_cli.server.client import ask_server
from matir_cli.server.jobs import KEPT_SEARCHES, SearchJob
from matir_cli.server.options import Limits, ServerOptions
from matir_cli.server.runtime import RuntimeFiles, ServerStatus, find_server
from tests.support.process import PHOTOS
from tests.support.server import CHANGING, server_thread

QUERY = "red house"

LONG = 3600.0
"""A limit that no test reaches, seconds."""

SHORT = 0.3
"""One that is reached soon, though not before a request that is not held up, seconds."""


@dataclass(frozen=True)
class Client:
    """A client of a server in this process."""

    address: str
    gallery: Path

    def connect(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection(self.address, timeout=60)

    def ask(self, method: str, path: str, body: object = None) -> Any:
        """The JSON of an answer."""
        connection = self.connect()
        connection.request(method, path, None if body is None else json.dumps(body), CHANGING)
        response = connection.getresponse()
        content = response.read()
        connection.close()
        assert response.status < 300, content
        return json.loads(content)

    def start(self, **body: object) -> dict[str, str]:
        """Start a search."""
        started: dict[str, str] = self.ask("POST", "/api/searches", {"text": QUERY, **body})
        return started

    def last_event(self, search: dict[str, str]) -> str:
        """The last event of a search, which is awaited."""
        connection = self.connect()
        connection.request("GET", search["events"])
        content = connection.getresponse().read().decode()
        connection.close()
        return content.strip().rpartition("\n\n")[2]

    @property
    def at_work(self) -> int:
        """Number of searches at work or waiting."""
        record = find_server(self.gallery)
        assert record is not None
        return msgspec.json.decode(ask_server(record, "GET", "/status"), type=ServerStatus).searches


@contextmanager
def served(
    gallery: Path, models: object, *, request: float = LONG, unheard: float = LONG
) -> Iterator[Client]:
    """Run a server with these limits, seconds."""
    with server_thread(ServerOptions(gallery, str(models), "cpu", limits=Limits(request, unheard))) as url:
        yield Client(urlsplit(url).netloc, gallery)


# Searches that nobody listens to


def test_a_search_that_nobody_listens_to_ends(gallery: Path, slow_set: Path) -> None:
    with served(gallery, slow_set, unheard=SHORT) as client:
        search = client.start(certainty=1)
        while not client.ask("GET", f"/api/searches/{search['id']}")["over"]:
            pass
        assert "nobody listens" in client.last_event(search)
        while client.at_work:
            pass  # its thread ends after the photo that is being judged


def test_a_search_whose_client_goes_away_ends(gallery: Path, slow_set: Path) -> None:
    with served(gallery, slow_set, unheard=LONG) as client:
        kept = client.start(certainty=1, candidates=2)
        connection = client.connect()
        connection.request("GET", kept["events"])
        assert connection.getresponse().readline() == b"id: 0\n"
        connection.close()
        # Whoever comes back in time finds it at work, and gets all of it.
        assert client.last_event(kept).split("\n")[1] == "event: final"
    with served(gallery, slow_set, unheard=SHORT) as client:
        left = client.start(certainty=1, fresh=True)
        connection = client.connect()
        connection.request("GET", left["events"])
        assert connection.getresponse().readline() == b"id: 0\n"
        connection.close()
        while not client.ask("GET", f"/api/searches/{left['id']}")["over"]:
            pass
        assert "nobody listens" in client.last_event(left)


def test_finished_searches_are_kept_up_to_a_number(gallery: Path, model_set: Path) -> None:
    with served(gallery, model_set) as client:
        searches = [client.start(rerank=False, outlines=0) for _ in range(3)]
        for _ in range(2 * KEPT_SEARCHES):
            search = client.start(rerank=False, outlines=0)
            assert "event: final" in client.last_event(search)
            searches.append(search)
        connection = client.connect()
        for kept, search in enumerate(reversed(searches)):
            connection.request("GET", f"/api/searches/{search['id']}")
            response = connection.getresponse()
            response.read()
            assert response.status == (200 if kept < KEPT_SEARCHES else 404)
        connection.close()
        gc.collect()
        # No isinstance(), which asks objects of others that warn of themselves.
        alive = [each for each in gc.get_objects() if type(each) is SearchJob]
        # One more may be held by the thread that is just ending.
        assert KEPT_SEARCHES <= len(alive) <= KEPT_SEARCHES + 1
        assert all(each.is_over and len(each.history) == 2 for each in alive)
        del alive


# Requests that come slowly


def trickle(connection: socket.socket, beginning: bytes) -> bytes:
    """Send the beginning of a request, and then byte for byte until there is an answer; return that."""
    connection.sendall(beginning)
    answer = b""
    while not select.select([connection], [], [], SHORT / 50)[0]:
        connection.sendall(b" ")
    try:
        while chunk := connection.recv(4096):
            answer += chunk
    except ConnectionResetError:
        pass
    return answer


def head(path: str, host: str) -> bytes:
    """The head of a request with long content."""
    lines = [f"POST {path} HTTP/1.1", f"Host: {host}", "X-MaTIR: 1", "Content-Length: 1000000"]
    return "\r\n".join([*lines, "", ""]).encode()


@pytest.mark.parametrize("path", ["/api/searches", "/api/commands", "/api/exports", "/find"])
def test_content_that_trickles_is_refused(gallery: Path, model_set: Path, path: str) -> None:
    with served(gallery, model_set, request=SHORT) as client:
        if path == "/find":
            connection = socket.socket(socket.AF_UNIX)
            connection.connect(str(RuntimeFiles.of(gallery).socket))
        else:
            name, _, port = client.address.partition(":")
            connection = socket.create_connection((name, int(port)))
        with connection:
            answer = trickle(connection, head(path, client.address))
        assert answer.startswith(b"HTTP/1.1 408 ")
        assert b"it came too slowly" in answer
        assert client.at_work == 0


@pytest.mark.parametrize("beginning", [b"", b"GET", b"GET / HTTP/1.1\r\nX: ", b"PUT"], ids=repr)
def test_connections_are_closed_on_which_no_request_arrives(
    gallery: Path, model_set: Path, beginning: bytes
) -> None:
    with served(gallery, model_set, request=SHORT) as client:
        name, _, port = client.address.partition(":")
        if beginning == b"PUT":  # refused as soon as its head is there
            beginning = head("/api/searches", "evil.example")
        with socket.create_connection((name, int(port))) as connection:
            if not beginning:
                assert connection.recv(1) == b""
                return
            answer = trickle(connection, beginning)
        if b"evil" in beginning:
            assert answer.startswith(b"HTTP/1.1 403 ")
        else:
            assert answer == b""
        assert client.ask("GET", "/api/gallery")["photos"] == PHOTOS
