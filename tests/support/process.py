"""The `matir` command run as a real process."""

import fcntl
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from dataclasses import dataclass
from pathlib import Path

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


def open_terminal() -> tuple[int, int]:
    """Open a terminal of 100 columns.

    Returns:
        The file descriptor to read what it shows, and the one to write to it.
    """
    screen, terminal = pty.openpty()
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 100, 0, 0))
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
