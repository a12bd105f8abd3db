"""How a long step tells whoever looks on how far it is."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import TypeAlias

ProgressObserver: TypeAlias = Callable[[int, str, str], AbstractContextManager[Callable[[], object]]]
"""Told how many items a step has, its name and the items' unit; gives what to call after each item."""


def no_progress(_total: int, _name: str, _unit: str) -> AbstractContextManager[Callable[[], object]]:
    """A `Watch` for when nobody looks on."""
    return nullcontext(lambda: None)
