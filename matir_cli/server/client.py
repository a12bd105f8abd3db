"""A search by the gallery's server, as the same events that a search in this process yields."""

from __future__ import annotations

import http.client
import socket
import threading
from collections.abc import Callable, Generator
from contextlib import AbstractContextManager, ExitStack, suppress
from queue import SimpleQueue

import msgspec

from matir_cli.progress import Advance, ProgressObserver
from matir_cli.search.events import FinalEvent, SearchEvent
from matir_cli.server.messages import (
    HEADER,
    JOB_HEADER,
    MEDIA_TYPE,
    Message,
    SearchRequest,
    Waiting,
    decode_message,
    encode_request,
)
from matir_cli.server.runtime import ServerRecord

ANSWER_SECONDS = 30.0
"""Time in which the server must begin to answer."""

LONGEST_ANSWER = 1 << 20
"""Bytes of an answer that is no stream."""


class ServerUnusable(Exception):
    """The search has to be done without the server."""

    def __init__(self, reason: str | None) -> None:
        """Keep the reason; None: there is no server, only what a killed one left behind."""
        super().__init__(reason)
        self.reason = reason


class UnixConnection(http.client.HTTPConnection):
    """An HTTP connection through a Unix socket."""

    def __init__(self, path: str, timeout: float = ANSWER_SECONDS) -> None:
        """Prepare a connection to the socket at `path`."""
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        """Connect; OSError if nobody listens."""
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


def ask_server(record: ServerRecord, method: str, path: str) -> bytes:
    """Send a request without content; return the answer's content.

    Raises:
        ServerUnusable: nobody listens, or the server refuses.
    """
    connection = UnixConnection(record.socket)
    try:
        connection.request(method, path)
        response = connection.getresponse()
        content = response.read(LONGEST_ANSWER)
    except (OSError, http.client.HTTPException) as error:
        raise ServerUnusable(None) from error
    finally:
        connection.close()
    if response.status != http.HTTPStatus.OK:
        raise ServerUnusable(content.decode("utf-8", "replace"))
    return content


def is_running(record: ServerRecord) -> bool:
    """Return True if the server answers; a killed one has left its record behind."""
    try:
        ask_server(record, "GET", "/status")
    except ServerUnusable:
        return False
    return True


def server_events(
    record: ServerRecord,
    request: SearchRequest,
    progress: ProgressObserver,
    wait: Callable[[Waiting], object],
    opened: Callable[[Callable[[], None]], object] = lambda _: None,
) -> Generator[SearchEvent, None, None]:
    """Let the server search, and yield the events of `matir_cli.search.pipeline.search_events`.

    Ctrl-C, here or thrown in, makes the server stop after the photo that is being judged, and the final event
    has what was judged; a second one ends this generator. Closing it ends the search as well.

    Args:
        wait: called each time that the number of searches before this one changes.
        opened: called with a function that ends the search, so that this raises ServerUnusable; any thread
            may call that.

    Raises:
        ServerUnusable: there is no server, it refuses, or it ends before the search does.
        MatirError: as the search raises it.
    """
    with ExitStack() as stack:
        stream = _Stream(record, request)
        stack.callback(stream.close)
        opened(stream.abort)
        steps = stack.enter_context(_Steps(progress))
        while True:
            try:
                message = stream.next()
                steps.follow(message)
                if message.waiting is not None:
                    wait(message.waiting)
                if message.event is not None:
                    yield message.event
            except KeyboardInterrupt:
                stream.stop()
                continue
            if isinstance(message.event, FinalEvent):
                return
            _raise_end(message, stopped=stream.is_stopped)


def _raise_end(message: Message, *, stopped: bool) -> None:
    """Raise the error that ended the search, if `message` says so."""
    if message.error is not None:
        raise message.error.error()
    if message.interrupted and stopped:
        raise KeyboardInterrupt
    if message.interrupted or message.fault is not None:
        raise ServerUnusable(f"did not finish ({message.fault or 'stopped'})")


class _Steps:
    """Shows the steps of the server's search as if they were this process's own."""

    def __init__(self, progress: ProgressObserver) -> None:
        self._progress = progress
        self._step: AbstractContextManager[Advance] | None = None
        self._advance: Advance | None = None

    def follow(self, message: Message) -> None:
        """Begin, advance or end a step, if `message` says so."""
        if message.begin is not None:
            step = message.begin
            self._step = self._progress(step.name, step.total, step.unit, step.done)
            self._advance = self._step.__enter__()
        if message.advance and self._advance is not None:
            self._advance(message.advance)
        if message.end:
            self._end()

    def _end(self) -> None:
        step, self._step, self._advance = self._step, None, None
        if step is not None:
            step.__exit__(None, None, None)

    def __enter__(self) -> _Steps:
        return self

    def __exit__(self, *_: object) -> None:
        self._end()


class _Stream:
    """The messages of one search. A thread reads them, so that Ctrl-C cannot tear one apart."""

    def __init__(self, record: ServerRecord, request: SearchRequest) -> None:
        """Send the request, and start to read; ServerUnusable if it is refused."""
        self.is_stopped = False
        self._record = record
        self._connection = UnixConnection(record.socket)
        self._messages: SimpleQueue[Message | None] = SimpleQueue()
        self._socket: socket.socket | None = None
        try:
            content = encode_request(request)
        except UnicodeEncodeError as error:
            raise ServerUnusable("takes no text that is not UTF-8") from error
        try:
            self._connection.request("POST", "/find", content, {"Content-Type": MEDIA_TYPE})
            self._response = self._connection.getresponse()
        except (OSError, http.client.HTTPException) as error:
            self.close()
            raise ServerUnusable(None) from error
        if self._response.status != http.HTTPStatus.OK:
            reason = self._response.read(LONGEST_ANSWER).decode("utf-8", "replace")
            self.close()
            raise ServerUnusable(reason)
        self._job = self._response.headers[JOB_HEADER]
        self._socket = self._connection.sock
        if self._socket is not None:  # a judge may take long for a photo
            self._socket.settimeout(None)
        threading.Thread(target=self._read, name="server", daemon=True).start()

    def next(self) -> Message:
        """Wait for the next message; ServerUnusable if the server has gone away."""
        message = self._messages.get()
        if message is None:
            raise ServerUnusable("went away")
        return message

    def stop(self) -> None:
        """Ask the server to stop after the photo that is being judged; KeyboardInterrupt the second time."""
        if self.is_stopped:
            raise KeyboardInterrupt
        self.is_stopped = True
        with suppress(ServerUnusable):  # over already, or gone: the stream says which
            ask_server(self._record, "POST", f"/stop/{self._job}")

    def abort(self) -> None:
        """End the search, which wakes the thread that reads; any thread may call this."""
        if self._socket is not None:
            with suppress(OSError):  # it is closed already
                self._socket.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Close the connection, which ends the search."""
        self.abort()
        self._connection.close()

    def _read(self) -> None:
        """Read messages until the last; in a thread."""
        try:
            while True:
                head = self._response.read(HEADER.size)
                if len(head) < HEADER.size:
                    break
                content = self._response.read(HEADER.unpack(head)[0])
                self._messages.put(decode_message(content))
        except (OSError, http.client.HTTPException, msgspec.MsgspecError, AttributeError, ValueError):
            pass  # the connection is closed, here or there
        self._messages.put(None)
