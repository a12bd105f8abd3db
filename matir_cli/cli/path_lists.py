"""Lists of paths on standard input and standard output."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator
from functools import partial
from itertools import chain
from pathlib import Path

from matir_cli.output.terminal import printable

READ_AT_ONCE = 1 << 16
"""Bytes of a list of paths read from standard input at a time."""


def expand_paths(paths: Iterable[Path]) -> Iterator[Path]:
    """`paths`, with - replaced by the list on standard input, read as it comes."""
    for path in paths:
        if path == Path("-"):
            yield from map(Path, names_on_stdin())
        else:
            yield path


def names_on_stdin() -> Iterator[str]:
    """Names from standard input: separated by NUL if there is one in the first bytes, else by lines."""
    chunks = iter(partial(os.read, sys.stdin.fileno(), READ_AT_ONCE), b"")
    rest = b""
    for chunk in chunks:
        rest += chunk
        if b"\0" in rest or b"\n" in rest:
            break
    separator = b"\0" if b"\0" in rest else b"\n"
    for chunk in chain([b""], chunks):
        *whole, rest = (rest + chunk).split(separator)
        yield from (os.fsdecode(name) for name in whole if name)
    if rest:
        yield os.fsdecode(rest)


def write_path(path: Path, end: bytes, before: bytes = b"", after: bytes = b"") -> None:
    """A path on standard output: its bytes as they are, unless a terminal is to show them.

    Args:
        end: a newline, or NUL, which is for programs alone and leaves every name as it is.
    """
    raw = end == b"\0" or not sys.stdout.isatty()
    name = os.fsencode(path) if raw else printable(str(path)).encode()
    sys.stdout.buffer.write(before + name + after + end)
