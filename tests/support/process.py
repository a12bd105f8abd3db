"""The real process, run by tests."""

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

# pycocotools warns of numpy 2, see pyproject.toml.
WARNINGS = ["-W", "error", "-W", "ignore:__array__ implementation doesn't accept a copy:DeprecationWarning"]
MATIR = [sys.executable, *WARNINGS, "-m", "matir_cli"]
PHOTOS = 12


def matir(*words: object, given: bytes = b"", **variables: str) -> subprocess.CompletedProcess[bytes]:
    """Run the command; `given` is its standard input."""
    return subprocess.run(
        [*MATIR, *(w if isinstance(w, bytes) else str(w) for w in words)],
        input=given,
        capture_output=True,
        check=False,
        env={**os.environ, **variables},
    )


@dataclass(frozen=True)
class Indexed:
    """What one `matir add` made of a folder of drawn pictures and junk."""

    photos: Path
    gallery: Path
    added: subprocess.CompletedProcess[bytes]


BEGUN = re.compile(rb"\b[1-9][0-9]*/[1-9]")
"""A progress bar that has gone beyond zero."""


def open_terminal() -> tuple[int, int]:
    """A terminal of 100 columns: the descriptor to read what it shows, and the one to write to it."""
    shown, terminal = pty.openpty()
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 100, 0, 0))
    return shown, terminal


def on_a_terminal(*words: object) -> bytes:
    """What a command shows where stdout is a terminal."""
    shown, terminal = pty.openpty()
    with subprocess.Popen(
        [*MATIR, *map(str, words)], stdout=terminal, stderr=subprocess.DEVNULL, stdin=subprocess.DEVNULL
    ) as process:
        os.close(terminal)
        said = b""
        while True:
            try:
                chunk = os.read(shown, 4096)
            except OSError:
                break
            said += chunk
    os.close(shown)
    assert process.returncode == 0
    return said
