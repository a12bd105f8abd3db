"""Dataclass records of any kind as JSON lines."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from _typeshed import DataclassInstance


def to_json(record: DataclassInstance) -> str:
    """Encode a record as one line of ASCII, which is safe for terminals; fields that are None are left out.

    Bytes of a file name that are not UTF-8 become lone surrogates, as with `os.fsdecode`.
    """
    return json.dumps(asdict(record, dict_factory=_present), default=_plain)


def _present(pairs: list[tuple[str, object]]) -> dict[str, object]:
    return {name: value for name, value in pairs if value is not None}


def _plain(value: object) -> str:
    if isinstance(value, Path):
        return str(value)
    raise TypeError(type(value).__name__)
