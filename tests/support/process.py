"""The `matir` command run as a real process."""

import fcntl
import json
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# pycocotools warns with numpy 2, see pyproject.toml.
WARNINGS = ["-W", "error", "-W", "ignore:__array__ implementation doesn't accept a copy:DeprecationWarning"]
MATIR = [sys.executable, *WARNINGS, "-m", "matir_cli"]
"""Command line of `matir` with warnings as errors."""

PHOTOS = 12
"""Drawn pictures in the gallery that the fixture `indexed` makes."""


def matir(*words: object, given: bytes = b"", **variables: str) -> subprocess.CompletedProcess[bytes]:
    """Run `matir` with `words`; `given` is its standard input, `variables` extend the environment."""
    return subprocess.run(
        [*MATIR, *(w if isinstance(w, bytes) else str(w) for w in words)],
        input=given,
        capture_output=True,
        check=False,
        env={**os.environ, **variables},
    )


def records(done: subprocess.CompletedProcess[bytes]) -> list[dict[str, Any]]:
    """The JSON objects that a process printed, one per line."""
    return [json.loads(line) for line in done.stdout.splitlines()]


@dataclass(frozen=True)
class Indexed:
    """A folder of drawn pictures and junk, indexed by one `matir add`."""

    photos: Path
    """The folder."""
    gallery: Path
    """The gallery file."""
    added: subprocess.CompletedProcess[bytes]
    """The process that indexed it."""


BEGUN = re.compile(rb"\b[1-9][0-9]*/[1-9]")
"""Output of a progress bar that has gone beyond zero."""


def open_terminal(rows: int = 24, columns: int = 100) -> tuple[int, int]:
    """Open a terminal.

    Returns:
        The file descriptor to read what it shows, and the one to write to it.
    """
    screen, terminal = pty.openpty()
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
    return screen, terminal


def on_a_terminal(*words: object) -> bytes:
    """Run `matir` with stdout as a terminal; return what it shows there."""
    screen, terminal = pty.openpty()
    with subprocess.Popen(
        [*MATIR, *map(str, words)], stdout=terminal, stderr=subprocess.DEVNULL, stdin=subprocess.DEVNULL
    ) as process:
        os.close(terminal)
        output = b""
        while True:
            try:
                chunk = os.read(screen, 4096)
            except OSError:
                break
            output += chunk
    os.close(screen)
    assert process.returncode == 0
    return output


# textual-image 0.12 with Pillow 13: it works until Pillow 14.
PREVIEW_WARNING = ["-W", "ignore:Image.Image.getdata is deprecated:DeprecationWarning"]


def on_full_terminal(
    words: list[object], code: int = 0, size: tuple[int, int] = (24, 100), **variables: str
) -> bytes:
    """What a command shows on a terminal with colours, as all three streams, that answers no question.

    `size` is its rows and columns.
    """
    shown, terminal = open_terminal(*size)
    process = subprocess.Popen(
        [*MATIR[:-2], *PREVIEW_WARNING, *MATIR[-2:], *map(str, words)],
        stdin=terminal,
        stdout=terminal,
        stderr=terminal,
        env={**os.environ, "TERM": "xterm-256color", "COLORTERM": "truecolor", **variables},
        start_new_session=True,
    )
    os.close(terminal)
    parts = []
    while True:
        try:
            part = os.read(shown, 1 << 16)
        except OSError:  # the process has ended
            break
        if not part:
            break
        parts.append(part)
    os.close(shown)
    assert process.wait() == code
    return b"".join(parts)
