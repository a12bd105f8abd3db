"""A web server on loopback that misbehaves on demand: real sockets for the tests of fetching."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Served:
    """What the server does at one path."""

    body: bytes = b""
    status: int = 200
    """Any other is sent without a body."""
    headers: dict[str, str] = field(default_factory=dict)
    """Sent as well; "Content-Length" replaces the true one."""
    ranges: bool = True
    """It honours Range and If-Range."""
    redirect: str | None = None
    """It sends there instead, and `headers` with it."""
    cut_after: int | None = None
    """It closes the connection after so many bytes of an answer's body."""
    hold: threading.Event | None = None
    """It waits for this after the first half of the body."""
    halfway: threading.Event = field(default_factory=threading.Event)
    """Set when half of the body has been sent."""


@dataclass(frozen=True)
class Request:
    """A request as it came."""

    method: str
    path: str
    headers: dict[str, str]
    """Names in lower case."""


@dataclass
class FileServer:
    """The server: `paths` says what it serves, `requests` what was asked."""

    url: str
    paths: dict[str, Served] = field(default_factory=dict)
    requests: list[Request] = field(default_factory=list)

    def gets(self) -> list[Request]:
        """The GET requests so far."""
        return [request for request in self.requests if request.method == "GET"]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    site: FileServer

    def do_HEAD(self) -> None:
        self._answer(with_body=False)

    def do_GET(self) -> None:
        self._answer(with_body=True)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  the library's name
        """Nothing."""

    def _answer(self, *, with_body: bool) -> None:
        headers = {name.lower(): value for name, value in self.headers.items()}
        self.site.requests.append(Request(self.command, self.path, headers))
        # One answer a connection: what the server cuts stays cut.
        self.close_connection = True
        served = self.site.paths.get(self.path, Served(status=404))
        if served.redirect is not None:
            self._head(302, {"Location": served.redirect, "Content-Length": "0", **served.headers})
        elif served.status != 200:
            self._head(served.status, {"Content-Length": "0", **served.headers})
        else:
            self._send(served, headers, with_body=with_body)

    def _send(self, served: Served, asked: dict[str, str], *, with_body: bool) -> None:
        start = 0
        whole = len(served.body)
        same = asked.get("if-range") in (None, served.headers.get("ETag"))
        if served.ranges and same and "range" in asked:
            start = int(asked["range"].removeprefix("bytes=").removesuffix("-"))
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

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Nothing: a client that goes away is part of the tests."""


@contextmanager
def serving() -> Iterator[FileServer]:
    """A server for as long as the block runs."""
    handler = type("Handler", (_Handler,), {})
    with _Server(("127.0.0.1", 0), handler) as server:
        site = FileServer(f"http://127.0.0.1:{server.server_port}")
        handler.site = site  # type: ignore[attr-defined]
        thread = threading.Thread(target=lambda: server.serve_forever(poll_interval=0.01))
        thread.start()
        try:
            yield site
        finally:
            server.shutdown()
            thread.join()
