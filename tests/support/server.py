"""`matir serve` run as a real process."""

import http.client
import json
import os
import signal
import subprocess
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from queue import Queue
from typing import Any
from urllib.parse import urlsplit

import msgspec
from filelock import FileLock, Timeout

from matir_cli.server.client import ServerUnusable, ask_server
from matir_cli.server.options import ServerOptions
from matir_cli.server.process import run_server as run_server_here
from matir_cli.server.runtime import RuntimeFiles, ServerRecord, ServerStatus, find_server
from tests.support.process import MATIR

CHANGING = {"X-MaTIR": "1"}
"""Headers of a request that changes something."""


LAST_SECONDS = 30
"""Time that a server gets to end."""


@dataclass(frozen=True)
class Server:
    """A running server."""

    process: subprocess.Popen[bytes]
    gallery: Path
    models: str
    url: str

    @property
    def options(self) -> list[str]:
        """The options of a command that uses the gallery with the server's models."""
        return ["--db", str(self.gallery), "--models", self.models]

    @property
    def record(self) -> ServerRecord:
        """What other processes know of it."""
        record = find_server(self.gallery)
        assert record is not None
        return record

    @property
    def status(self) -> ServerStatus:
        """What it says of itself."""
        return msgspec.json.decode(ask_server(self.record, "GET", "/status"), type=ServerStatus)

    def next_line(self) -> str:
        """Wait for the next line that it prints for its user."""
        assert self.process.stderr is not None
        return self.process.stderr.readline().decode().strip()

    def connect(self) -> http.client.HTTPConnection:
        """Connect to the HTTP API."""
        return http.client.HTTPConnection(urlsplit(self.url).netloc, timeout=60)

    def request(
        self, method: str, path: str, body: object = None, headers: Mapping[str, str] | None = None
    ) -> tuple[int, http.client.HTTPMessage, bytes]:
        """Send a request to the HTTP API; return status, headers and content."""
        connection = self.connect()
        content = None if body is None else json.dumps(body).encode()
        connection.request(method, path, content, dict(CHANGING if headers is None else headers))
        response = connection.getresponse()
        answer = response.status, response.headers, response.read()
        connection.close()
        return answer

    def get(self, path: str) -> Any:
        """The JSON at `path`."""
        status, _, content = self.request("GET", path)
        assert status == 200, content
        return json.loads(content)

    def post(self, path: str, body: object) -> Any:
        """The JSON that a request with `body` is answered with."""
        status, _, content = self.request("POST", path, body)
        assert status < 300, content
        return json.loads(content)


@contextmanager
def run_server(gallery: Path, models: object, *words: object) -> Iterator[Server]:
    """Run a server for the gallery until the block ends."""
    command = [*MATIR, "serve", "--db", gallery, "--models", models, *words]
    with subprocess.Popen(
        [*map(str, command)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=os.environ
    ) as process:
        try:
            assert process.stdout is not None
            url = process.stdout.readline().decode().strip()
            assert url, process.stderr and process.stderr.read().decode()
            server = Server(process, gallery, str(models), url)
            while "serving" not in server.next_line():
                pass  # a note about the model set
            yield server
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(LAST_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                raise


@contextmanager
def server_thread(options: ServerOptions) -> Iterator[str]:
    """Run a server in a thread of this process until the block ends; yield its address."""
    ready: Queue[str] = Queue()
    failures: list[BaseException] = []

    def run() -> None:
        try:
            run_server_here(options, lambda record: ready.put(record.url), lambda _: None)
        except BaseException as error:
            failures.append(error)
            ready.put("")

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    url = ready.get(timeout=LAST_SECONDS)
    assert url, failures
    try:
        yield url
    finally:
        record = find_server(options.gallery)
        assert record is not None
        ask_server(record, "POST", "/shutdown")
        thread.join(LAST_SECONDS)
    assert not thread.is_alive()
    assert not failures


def end_servers() -> None:
    """End all servers of this process's runtime folder, such as detached ones of tests that failed."""
    for path in RuntimeFiles.of(Path()).record.parent.glob("*.json"):
        record = msgspec.json.decode(path.read_bytes(), type=ServerRecord)
        with suppress(ServerUnusable):  # a killed one left its record
            ask_server(record, "POST", "/shutdown")
        try:
            FileLock(path.with_suffix(".lock")).acquire(timeout=LAST_SECONDS).lock.release()
        except Timeout:
            os.kill(record.pid, signal.SIGKILL)
            raise
