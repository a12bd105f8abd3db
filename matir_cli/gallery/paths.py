"""File names: kept byte for byte in SQL, found again by their folder, and still there or not."""

from __future__ import annotations

import os
from pathlib import Path

import apsw

BELOW = "(path = :at or (path >= :text_from and path < :text_to) or (path >= :blob_from and path < :blob_to))"
"""SQL condition on a column `path`: the file bound by `below`, or any file below that folder.

Each of its parts is a range of the primary key of `files` and `skipped`, so nothing else is read.
"""


def encode_path(path: Path) -> str | bytes:
    """Text where the name is UTF-8, its raw bytes where it is not: nothing is lost either way."""
    raw = os.fsencode(path)
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return raw


def decode_path(value: apsw.SQLiteValue) -> Path:
    """The path that was stored as `value`."""
    return Path(os.fsdecode(value)) if isinstance(value, str | bytes) else Path(str(value))


def below_bindings(path: Path) -> dict[str, str | bytes]:
    """What `BELOW` is bound to for all at or below the absolute `path`: /a/b/c and /a/b, but not /a/bc."""
    # SQLite sorts text before blobs, and each by its bytes. A folder with a UTF-8 name holds files of
    # both kinds; below one without, all are blobs.
    folder = os.fsencode(path).rstrip(os.sep.encode())
    low, high = folder + os.sep.encode(), folder + chr(ord(os.sep) + 1).encode()
    whole = isinstance(encode_path(path), str)
    text = (
        {"text_from": low.decode(), "text_to": high.decode()} if whole else {"text_from": "", "text_to": ""}
    )
    return {"at": encode_path(path), "blob_from": low, "blob_to": high, **text}


def is_gone(path: Path) -> bool:
    """Whether there is nothing at `path`; not so where the system does not let us see."""
    try:
        path.lstat()
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return True
    except OSError:
        return False
    return False
