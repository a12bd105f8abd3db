"""The process that decodes strangers' files, with limits of time and memory: started, asked, replaced.

Decoders are native libraries: a file can make them hang, crash or ask for any amount of memory. That ends
the worker process, not this one, and the next file gets a new worker.
"""

from __future__ import annotations

import atexit
import io
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

import numpy as np

from matir_cli.errors import DecoderUnavailable, PhotoUnreadable
from matir_cli.photos.worker_protocol import LONGEST_LINES, READY
from matir_cli.records import ImageArray

DECODE_SECONDS = 60.0
"""Default time limit of one photo, seconds."""

DECODE_MEMORY = 3 << 30
"""Limit of the worker's address space, bytes; on Linux only."""

START_SECONDS = 60.0
"""Time limit of the worker's start."""

PIPE_BYTES = 1 << 20
"""Size of the pipe that pixels come through: a larger one needs fewer changes between the processes."""

_START = (
    "import sys; root = sys.argv[1]; root in sys.path or sys.path.insert(0, root); "
    "from matir_cli.photos.worker import main; main()"
)
"""Program of the worker. Run with -P: the current folder may be one of photos, and hold a numpy.py."""


class _Worker:
    """A running worker process."""

    def __init__(self, process: subprocess.Popen[bytes], messages: IO[bytes], lifeline: int) -> None:
        """Wrap a process with pipes.

        Args:
            messages: the file that its standard error goes to.
            lifeline: descriptor of this process whose closing ends the worker.
        """
        assert process.stdin is not None
        assert isinstance(process.stdout, io.BufferedReader)
        self.process = process
        self.requests = process.stdin
        self.answers = process.stdout
        self.ready = False
        self.expired = False
        """It was ended because its time was over."""
        self._messages = messages
        self._lifeline = lifeline

    def watch(self, seconds: float) -> threading.Timer:
        """End the process in `seconds`, unless the timer that is returned is cancelled before."""
        timer = threading.Timer(seconds, self._expire)
        timer.daemon = True
        timer.start()
        return timer

    def _expire(self) -> None:
        self.expired = True
        self.process.kill()

    def last_message(self) -> str:
        """Return the last line that it wrote to standard error before it ended."""
        self._messages.seek(0)
        text = self._messages.read(LONGEST_LINES).decode("utf-8", "replace")
        lines = [" ".join(line.split()) for line in text.splitlines() if line.strip()]
        return lines[-1][:120] if lines else ""

    def end(self) -> None:
        """End it and free what belongs to it."""
        self.process.kill()
        self.process.wait()
        self._close()

    def abandon(self) -> None:
        """Leave it to the process that this one was forked from."""
        self.process.returncode = 0  # not this process's child
        self._close()

    def _close(self) -> None:
        with suppress(OSError):  # unsent bytes of a request
            self.requests.close()
        self.answers.close()
        self._messages.close()
        os.close(self._lifeline)


class Answer:
    """A worker's answer: its header, and the bytes that follow it."""

    def __init__(self, header: Mapping[str, Any], source: io.BufferedReader) -> None:
        """Wrap the header and the stream that the bytes come from."""
        self.header = header
        self._source = source

    def read(self, count: int) -> bytes:
        """Return the next `count` bytes; EOFError if the worker has ended."""
        content = self._source.read(count)
        if len(content) < count:
            raise EOFError
        return content

    def read_image(self) -> ImageArray:
        """Return an image of the header's width and height; EOFError if the worker has ended."""
        image = np.empty((self.header["height"], self.header["width"], 3), np.uint8)
        if self._source.readinto(image.data.cast("B")) < image.nbytes:
            raise EOFError
        return image


class DecoderProcess:
    """Decodes files in a worker process, one at a time; may be used by several threads."""

    def __init__(self, seconds: float = DECODE_SECONDS, memory: int = DECODE_MEMORY) -> None:
        """Set the limits; the process is started when it is first needed.

        Args:
            seconds: time limit of one file.
            memory: limit of the worker's address space, bytes; on Linux only.
        """
        self.seconds = seconds
        self._memory = memory
        self._worker: _Worker | None = None
        # Ctrl-C between taking a plain lock and entering its block would leave it taken for ever.
        self._lock = threading.RLock()

    @property
    def pid(self) -> int | None:
        """Id of the worker process, None if there is none."""
        return None if self._worker is None else self._worker.process.pid

    def start(self) -> None:
        """Start the worker in the background, so that it is ready when a file is."""
        with self._lock:
            self._started()

    def close(self) -> None:
        """End the worker; the next file starts another one."""
        with self._lock:
            worker, self._worker = self._worker, None
            if worker is not None:
                worker.end()

    def close_if_idle(self) -> None:
        """End the worker, unless a thread is waiting for it: the end of this process will end it."""
        if self._lock.acquire(blocking=False):
            self.close()
            self._lock.release()

    def forget(self) -> None:
        """Leave the worker to the process that this one was forked from."""
        if self._worker is not None:
            self._worker.abandon()
        self._worker = None
        self._lock = threading.RLock()

    @contextmanager
    def ask(self, task: str, path: Path, payload: bytes = b"") -> Iterator[Answer]:
        """Send a request and give its answer, whose bytes the caller reads all within the context.

        Args:
            task: as in `matir_cli.photos.worker`.
            path: of the file, absolute; for a preview just its name in errors.
            payload: the preview.

        Raises:
            PhotoUnreadable: the file cannot be decoded within the limits.
            DecoderUnavailable: the worker process does not start.
        """
        with self._lock:
            worker = self._started()
            # An interruption before the whole answer is read leaves a worker that must not be asked again.
            self._worker = None
            complete = False
            watch = worker.watch(self.seconds if worker.ready else START_SECONDS)
            try:
                if not worker.ready:
                    _check_ready(worker)
                    watch.cancel()
                    watch = worker.watch(self.seconds)
                request = {"task": task, "path": str(path), "bytes": len(payload)}
                worker.requests.write(json.dumps(request).encode() + b"\n" + payload)
                worker.requests.flush()
                header = json.loads(worker.answers.readline() or "null")
                if header is None:
                    raise EOFError
                if "reason" not in header:
                    yield Answer(header, worker.answers)
                complete = True
            except (EOFError, OSError, json.JSONDecodeError) as error:
                raise PhotoUnreadable(path, self._fault(worker)) from error
            finally:
                watch.cancel()
                watch.join()  # it may be about to end the worker
                if complete and not worker.expired:
                    self._worker = worker
                else:
                    worker.end()
        if "reason" in header:
            raise PhotoUnreadable(path, header["reason"])

    def _started(self) -> _Worker:
        """Return the worker; start one if there is none, or if it has ended."""
        if self._worker is not None and self._worker.process.poll() is not None:
            self.close()
        if self._worker is None:
            self._worker = _start(self._memory)
        return self._worker

    def _fault(self, worker: _Worker) -> str:
        """Return the reason why a worker has ended while it decoded a file."""
        if worker.expired:
            return f"takes more than {self.seconds:g} s to decode"
        return f"its decoder {_end_of(worker)}"


def _check_ready(worker: _Worker) -> None:
    """Wait for a new worker's first line.

    Raises:
        DecoderUnavailable: it ends before, or takes more than `START_SECONDS`.
    """
    if worker.answers.readline() == READY:
        worker.ready = True
    elif worker.expired:
        raise DecoderUnavailable(f"it did not answer within {START_SECONDS:g} s")
    else:
        raise DecoderUnavailable(f"it {_end_of(worker)}")


def _end_of(worker: _Worker) -> str:
    """Return how a worker has ended, with the last line that it wrote."""
    with suppress(subprocess.TimeoutExpired):
        worker.process.wait(5)
    code = worker.process.returncode
    if code is None:
        how = "stopped answering"
    elif code < 0:
        how = f"crashed ({signal.Signals(-code).name})"
    else:
        how = f"ended (exit code {code})"
    message = worker.last_message()
    return f"{how}: {message}" if message else how


def _start(memory: int) -> _Worker:
    """Start a worker process.

    Raises:
        DecoderUnavailable: the system cannot start it.
    """
    root = str(Path(__file__).resolve().parents[2])
    messages = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the worker
    worker_end, lifeline = os.pipe()
    try:
        process = subprocess.Popen(  # noqa: S603 - our own program
            [sys.executable, "-P", "-c", _START, root, str(worker_end), str(memory)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=messages,
            # Its threads would each take address space, and it has one image at a time to work on.
            env={**os.environ, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"},
            process_group=0 if os.name == "posix" else None,  # Ctrl-C on a terminal is for this process
            pass_fds=(worker_end,) if os.name == "posix" else (),
        )
    except OSError as error:
        messages.close()
        os.close(lifeline)
        raise DecoderUnavailable((error.strerror or str(error)).lower()) from error
    finally:
        os.close(worker_end)
    worker = _Worker(process, messages, lifeline)
    if sys.platform == "linux":
        import fcntl

        with suppress(OSError):  # the user's pipes have reached their limit
            fcntl.fcntl(worker.answers, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
    return worker


shared_decoder = DecoderProcess()
"""The decoder of this process."""

atexit.register(shared_decoder.close_if_idle)

if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=shared_decoder.forget)
