"""Lists of paths on standard input and standard output."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator
from functools import partial
from itertools import chain
from pathlib import Path

from matir_cli.output.printable import printable

CHUNK_BYTES = 1 << 16
"""Size of one read from standard input."""


def expand_paths(paths: Iterable[Path]) -> Iterator[Path]:
    """Yield `paths`, with - replaced by the list on standard input, which is read as it arrives."""
    return map(Path, expand_names(map(str, paths)))


def expand_names(names: Iterable[str]) -> Iterator[str]:
    """Yield `names`, with - replaced by the list on standard input, which is read as it arrives."""
    for name in names:
        if name == "-":
            yield from names_on_stdin()
        else:
            yield name


def names_on_stdin() -> Iterator[str]:
    """Yield the names on standard input, separated by NUL if the first read holds one, else by newlines."""
    chunks = iter(partial(os.read, sys.stdin.fileno(), CHUNK_BYTES), b"")
    rest = b""
    for chunk in chunks:
        rest += chunk
        if b"\0" in rest or b"\n" in rest:
            break
    separator = b"\0" if b"\0" in rest else b"\n"
    for chunk in chain([b""], chunks):
        *complete, rest = (rest + chunk).split(separator)
        yield from (os.fsdecode(name) for name in complete if name)
    if rest:
        yield os.fsdecode(rest)


def write_path(path: Path, *, null: bool, before: bytes = b"", after: bytes = b"") -> None:
    """Write one path to standard output: its exact bytes, or made safe if a terminal shows them.

    Args:
        null: end the path by NUL, not by a newline. NUL is for programs, so the bytes are always exact.
        before: what precedes the path.
        after: what follows it, before the end of the line.
    """
    exact = null or not sys.stdout.isatty()
    name = os.fsencode(path) if exact else printable(str(path)).encode()
    sys.stdout.buffer.write(before + name + after + (b"\0" if null else b"\n"))
