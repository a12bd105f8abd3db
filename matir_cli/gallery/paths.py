"""Paths in SQL: kept byte for byte, selected by folder, checked for existence."""

from __future__ import annotations

import os
from pathlib import Path

import apsw

BELOW = "(path = :at or (path >= :text_from and path < :text_to) or (path >= :blob_from and path < :blob_to))"
"""SQL condition on a column `path`: the file bound by `below_bindings`, or any file below that folder.

Each of its parts is a range of the primary key of `files` and `skipped`, so no other row is read.
"""


def encode_path(path: Path) -> str | bytes:
    """Return the value to store: text if the name is UTF-8, else its raw bytes. Nothing is lost."""
    raw = os.fsencode(path)
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return raw


def check_path(value: apsw.SQLiteValue) -> str | bytes:
    """Return `value` if it is an absolute path as `encode_path` stores it.

    Raises:
        ValueError: it is not.
    """
    if not isinstance(value, str | bytes):
        raise ValueError("a file name is neither text nor a blob")
    # Not by Path, which takes a second for some hundred thousand names.
    if not os.path.isabs(value) or b"\0" in os.fsencode(value):  # noqa: PTH117
        raise ValueError("a file name is not an absolute path")
    return value


def decode_path(value: apsw.SQLiteValue) -> Path:
    """Return the path that was stored as `value`.

    Raises:
        ValueError: it is not an absolute path.
    """
    return Path(os.fsdecode(check_path(value)))


def path_order(value: apsw.SQLiteValue) -> tuple[bool, bytes]:
    """Return a key that sorts stored paths as SQLite does: text before blobs, and each by its bytes."""
    return isinstance(value, bytes), value if isinstance(value, bytes) else str(value).encode()


def below_bindings(path: Path) -> dict[str, str | bytes]:
    """Return the bindings of `BELOW` for the absolute `path`.

    For /a/b they select /a/b itself and /a/b/c, but not /a/bc.
    """
    # SQLite sorts text before blobs, and each by its bytes. A folder with a UTF-8 name may hold files
    # with either kind of name; below any other folder all names are blobs.
    folder = os.fsencode(path).rstrip(os.sep.encode())
    low, high = folder + os.sep.encode(), folder + chr(ord(os.sep) + 1).encode()
    is_text = isinstance(encode_path(path), str)
    text = (
        {"text_from": low.decode(), "text_to": high.decode()} if is_text else {"text_from": "", "text_to": ""}
    )
    return {"at": encode_path(path), "blob_from": low, "blob_to": high, **text}


def is_gone(path: Path) -> bool:
    """Return True if nothing exists at `path`; False if the system does not allow a look."""
    try:
        path.lstat()
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return True
    except OSError:
        return False
    return False
