"""Lists of paths on standard input and standard output."""

from __future__ import annotations

import codecs
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import chain
from pathlib import Path

from matir_cli.atomic_write import STREAM
from matir_cli.cli.boundary import say
from matir_cli.errors import ListNotUtf8
from matir_cli.output.printable import printable

CHUNK_BYTES = 1 << 16
"""Size of one read from standard input."""

LONGEST_NAME = 1 << 17
"""Bytes. The rest of a longer name is left out: no system has paths of half that length."""

_BYTE_ORDER_MARKS = (
    (codecs.BOM_UTF32_LE, "UTF-32"),
    (codecs.BOM_UTF32_BE, "UTF-32"),
    (codecs.BOM_UTF16_LE, "UTF-16"),
    (codecs.BOM_UTF16_BE, "UTF-16"),
)
"""Marks at the start of a text, the longer ones first, since UTF-32's begins like UTF-16's."""


def expand_paths(paths: Iterable[Path], *, allow_root: bool) -> Iterator[Path]:
    """Yield `paths`, with - replaced by the list on standard input, which is read as it arrives.

    Args:
        allow_root: let the list name the root of the file system, which is reported and left out
            otherwise: whoever wants to index everything says so.
    """
    for path in paths:
        if path != STREAM:
            yield path
            continue
        for name in names_on_stdin(os.path.lexists):
            if not allow_root and _is_root(name):
                say(f"left out {name}: the root of the file system, see --allow-root")
            else:
                yield Path(name)


def expand_names(names: Iterable[str], exists: Callable[[str], bool]) -> Iterator[str]:
    """Yield `names`, with - replaced by the list on standard input; `exists` as in `names_on_stdin`."""
    for name in names:
        if name == "-":
            yield from names_on_stdin(exists)
        else:
            yield name


def names_on_stdin(exists: Callable[[str], bool]) -> Iterator[str]:
    """Yield the names on standard input, separated by NUL if the first read holds one, else by newlines.

    A byte order mark of UTF-8 is left out, and so is a carriage return at the end of a line if the name
    exists only without it.

    Args:
        exists: returns True if a name denotes something.

    Raises:
        ListNotUtf8: the list is encoded as UTF-16 or UTF-32.
    """
    chunks = iter(partial(os.read, sys.stdin.fileno(), CHUNK_BYTES), b"")
    rest = b""
    for chunk in chunks:
        rest += chunk
        if b"\0" in rest or b"\n" in rest or len(rest) > LONGEST_NAME:
            break
    rest = without_mark(rest)
    separator = b"\0" if b"\0" in rest else b"\n"
    for raw in _split(chain([rest], chunks), separator):
        name = os.fsdecode(raw)
        if separator == b"\n" and name.endswith("\r") and not exists(name):
            shorter = name[:-1]
            name = shorter if not shorter or exists(shorter) else name
        if name:
            yield name


def arriving_lines(descriptor: int) -> Iterator[list[bytes]]:
    """Yield the lines of an open file with their ends: each time as many as have come, one at least.

    So whoever writes one line and waits is answered, and the lines of a file come many at a time.
    """
    pending: list[bytes] = []
    for chunk in iter(partial(os.read, descriptor, CHUNK_BYTES), b""):
        complete, end, rest = chunk.rpartition(b"\n")
        if end:
            lines = b"".join([*pending, complete]).split(b"\n")
            yield [line + end for line in lines]
            pending = []
        pending.append(rest)
    if last := b"".join(pending):
        yield [last]


def without_mark(start: bytes) -> bytes:
    """Return the start of a text without UTF-8's byte order mark.

    Raises:
        ListNotUtf8: the text is encoded as UTF-16 or UTF-32.
    """
    for mark, encoding in _BYTE_ORDER_MARKS:
        if start.startswith(mark):
            raise ListNotUtf8(encoding)
    # Without a mark: every second byte of most characters is NUL, and so is that of a slash or line's end.
    for first, order in ((0, "LE"), (1, "BE")):
        characters, highs = start[first:256:2], start[1 - first : 256 : 2]
        if 2 * highs.count(0) > len(highs) > 1 and 0 not in characters and set(characters) & set(b"/\\\n"):
            raise ListNotUtf8(f"UTF-16{order}")
    return start.removeprefix(codecs.BOM_UTF8)


def _split(chunks: Iterable[bytes], separator: bytes) -> Iterator[bytes]:
    """Yield the parts between separators, each cut to `LONGEST_NAME` bytes."""
    rest = b""
    for chunk in chunks:
        *complete, rest = (rest + chunk).split(separator)
        rest = rest[:LONGEST_NAME]
        yield from (part[:LONGEST_NAME] for part in complete)
    yield rest


def _is_root(name: str) -> bool:
    """Return True if `name` is the root of the file system, in whatever spelling or by whatever link."""
    try:
        return os.path.samefile(name, os.sep)  # noqa: PTH121 - the name may hold NUL
    except (OSError, ValueError):
        return False


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
