"""A web server on loopback that misbehaves on demand, for tests of downloads."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Served:
    """The server's behaviour at one path."""

    body: bytes = b""
    status: int = 200
    """Any status but 200 is sent without a body."""
    headers: dict[str, str] = field(default_factory=dict)
    """Additional headers; "Content-Length" replaces the true one."""
    ranges: bool = True
    """True if Range and If-Range are honoured."""
    redirect: str | None = None
    """Address of a redirection, which is sent with `headers` instead of the body."""
    cut_after: int | None = None
    """Number of bytes of a body after which the connection is closed."""
    hold: threading.Event | None = None
    """Event to wait for after the first half of the body."""
    halfway: threading.Event = field(default_factory=threading.Event)
    """Set when half of the body has been sent."""


@dataclass(frozen=True)
class Request:
    """A request that the server received."""

    method: str
    path: str
    headers: dict[str, str]
    """Headers; their names are in lower case."""


@dataclass
class FileServer:
    """A running server."""

    url: str
    """Its address without a path."""
    paths: dict[str, Served] = field(default_factory=dict)
    """The behaviour at each path; 404 at any other."""
    requests: list[Request] = field(default_factory=list)
    """All requests so far."""

    def gets(self) -> list[Request]:
        """The GET requests so far."""
        return [request for request in self.requests if request.method == "GET"]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        self._answer(with_body=False)

    def do_GET(self) -> None:
        self._answer(with_body=True)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  the library's name
        """Log nothing."""

    def _answer(self, *, with_body: bool) -> None:
        headers = {name.lower(): value for name, value in self.headers.items()}
        assert isinstance(self.server, _Server)
        site = self.server.site
        site.requests.append(Request(self.command, self.path, headers))
        # One response per connection: a body that was cut short stays so.
        self.close_connection = True
        served = site.paths.get(self.path, Served(status=404))
        if served.redirect is not None:
            self._head(302, {"Location": served.redirect, "Content-Length": "0", **served.headers})
        elif served.status != 200:
            self._head(served.status, {"Content-Length": "0", **served.headers})
        else:
            self._send(served, headers, with_body=with_body)

    def _send(self, served: Served, received: dict[str, str], *, with_body: bool) -> None:
        start = 0
        whole = len(served.body)
        same = received.get("if-range") in (None, served.headers.get("ETag"))
        if served.ranges and same and "range" in received:
            start = int(received["range"].removeprefix("bytes=").removesuffix("-"))
            if start >= whole:
                self._head(416, {"Content-Range": f"bytes */{whole}", "Content-Length": "0"})
                return
        extra = {"Content-Range": f"bytes {start}-{whole - 1}/{whole}"} if start else {}
        self._head(206 if start else 200, {"Content-Length": str(whole - start), **extra, **served.headers})
        if with_body:
            self._body(served, served.body[start:])

    def _body(self, served: Served, body: bytes) -> None:
        if served.cut_after is not None:
            body = body[: served.cut_after]
        half = len(body) // 2
        self.wfile.write(body[:half])
        self.wfile.flush()
        served.halfway.set()
        if served.hold is not None:
            served.hold.wait(20)
        self.wfile.write(body[half:])

    def _head(self, status: int, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Connection", "close")
        self.end_headers()


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self) -> None:
        """Listen on a free port of the loopback interface."""
        super().__init__(("127.0.0.1", 0), _Handler)
        self.site = FileServer(f"http://127.0.0.1:{self.server_port}")

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Ignore the error: clients that go away are part of the tests."""


@contextmanager
def serving() -> Iterator[FileServer]:
    """Run a server for the duration of the block."""
    with _Server() as server:
        thread = threading.Thread(target=lambda: server.serve_forever(poll_interval=0.01))
        thread.start()
        try:
            yield server.site
        finally:
            server.shutdown()
            thread.join()
