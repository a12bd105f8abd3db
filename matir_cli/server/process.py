"""The process of the server: its sockets, its signals and its runtime file."""

from __future__ import annotations

import ctypes
import logging
import os
import signal
import socket
import sys
from collections.abc import Callable, Generator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from types import FrameType

import uvicorn
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.server import HANDLED_SIGNALS

from matir_cli.errors import ServerFailed
from matir_cli.server.api import api_app
from matir_cli.server.connections import timed_connection
from matir_cli.server.guard import Access, Guard, loopback_hosts
from matir_cli.server.jobs import Jobs
from matir_cli.server.options import ServerOptions
from matir_cli.server.runtime import (
    RuntimeFiles,
    ServerRecord,
    claim_gallery,
    program_version,
    write_record,
)
from matir_cli.server.socket_app import socket_app

MOST_CONNECTIONS = 256
"""Connections at a time; further ones are answered with 503."""

_M_ARENA_MAX = -8
"""From glibc's malloc.h."""

LAST_SECONDS = 2
"""Time that answers get to end when the server ends."""


def run_server(
    options: ServerOptions, announce: Callable[[ServerRecord], object], log: Callable[[str], object]
) -> None:
    """Serve a gallery until Ctrl-C, SIGTERM or a request to end.

    Args:
        announce: called once connections are accepted.
        log: called with a line for the user of the server.

    Raises:
        ServerRunning: the gallery has a server.
        ServerFailed: a socket cannot be opened.
        KeyboardInterrupt: or what else the handler of the signal that ended the server raises.
    """
    if not hasattr(socket, "AF_UNIX"):
        raise ServerFailed("this system has no Unix sockets")
    _share_arenas()
    # What strangers send that is no HTTP, and tracebacks, are shown with -v only.
    logging.getLogger("uvicorn").propagate = logging.getLogger().isEnabledFor(logging.DEBUG)
    logging.getLogger("uvicorn").addHandler(logging.NullHandler())
    with ExitStack() as stack:
        files = stack.enter_context(claim_gallery(options.gallery))
        unix = stack.enter_context(_listen_unix(files))
        tcp = stack.enter_context(_listen_tcp(options))
        record = _record(options, files, tcp)

        def ready() -> None:
            write_record(files, record)
            announce(record)

        _Server(options, tcp.getsockname()[1], ready, log).run([unix, tcp])


def _share_arenas() -> None:
    """Let glibc's threads share two arenas of memory, where there is glibc.

    Each search has a thread of its own. By default there are eight arenas per core, each of which keeps what
    its largest search has needed: memory would grow for as long as searches of other sizes meet in one.
    """
    if sys.platform == "linux" and hasattr(libc := ctypes.CDLL(None), "mallopt"):
        libc.mallopt(_M_ARENA_MAX, 2)


def _record(options: ServerOptions, files: RuntimeFiles, tcp: socket.socket) -> ServerRecord:
    host, port = tcp.getsockname()[:2]
    return ServerRecord(
        pid=os.getpid(),
        version=program_version(),
        gallery=os.path.realpath(options.gallery),
        socket=str(files.socket),
        url=f"http://{f'[{host}]' if ':' in host else host}:{port}/",
        models=options.models,
        device=options.device,
        started=datetime.now(UTC).isoformat(timespec="seconds"),
    )


def _listen_unix(files: RuntimeFiles) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        listener.bind(str(files.socket))
        files.socket.chmod(0o600)
        listener.listen(MOST_CONNECTIONS)
    except OSError as error:
        listener.close()
        raise ServerFailed(f"its socket {files.socket} cannot be opened: {error.strerror}") from error
    return listener


def _listen_tcp(options: ServerOptions) -> socket.socket:
    family = socket.AF_INET6 if ":" in options.host else socket.AF_INET
    try:
        return socket.create_server((options.host, options.port), family=family, backlog=MOST_CONNECTIONS)
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise ServerFailed(f"{options.host}, port {options.port} cannot be used: {reason}") from error


class _Server(uvicorn.Server):
    """uvicorn on two sockets; ends the searches when it ends."""

    def __init__(
        self, options: ServerOptions, port: int, ready: Callable[[], object], log: Callable[[str], object]
    ) -> None:
        super().__init__(
            uvicorn.Config(
                self._app,
                interface="asgi3",
                loop="asyncio",
                http=timed_connection(options.limits.request_seconds),
                ws="none",
                lifespan="off",
                log_config=None,
                access_log=False,
                proxy_headers=False,
                server_header=False,
                limit_concurrency=MOST_CONNECTIONS,
                timeout_graceful_shutdown=LAST_SECONDS,
            )
        )
        self._options, self._port, self._ready, self._log = options, port, ready, log
        self._jobs: Jobs | None = None
        self._by_socket: ASGIApp | None = None
        self._by_tcp: ASGIApp | None = None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Make the applications, which belong to the event loop, and accept connections."""
        options = self._options
        jobs = Jobs(
            options.gallery, options.models, options.device, options.idle_seconds, self._log, options.limits
        )
        hosts = frozenset[str]()
        if options.is_loopback:
            hosts = loopback_hosts(self._port)
        self._jobs = jobs
        self._by_socket = socket_app(jobs, self._end)
        self._by_tcp = Guard(api_app(jobs), Access(hosts, options.token))
        await super().startup(sockets)
        self._ready()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """End the searches, then the connections."""
        if self._jobs is not None:
            self._jobs.end_all("the server was stopped")
        await super().shutdown(sockets)

    @contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        """Handle signals, but leave those ignored that the caller has set to be."""
        ignored = [number for number in HANDLED_SIGNALS if signal.getsignal(number) is signal.SIG_IGN]
        with super().capture_signals():
            for number in ignored:
                signal.signal(number, signal.SIG_IGN)
            yield

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Note a signal; a second SIGTERM ends without waiting for answers, as a second Ctrl-C does."""
        if self.should_exit and sig == signal.SIGTERM:
            self.force_exit = True
        super().handle_exit(sig, frame)

    def _end(self) -> None:
        self.should_exit = True

    async def _app(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, by the socket through which it came."""
        assert self._by_socket is not None
        assert self._by_tcp is not None
        address = scope.get("server")
        by_socket = address is not None and address[1] is None
        await (self._by_socket if by_socket else self._by_tcp)(scope, receive, send)
