"""Exit codes of the commands."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    pass

ERROR = 2

SKIPPED = 3

INTERRUPTED = 130

PROBLEMS = 1

NOTHING_FOUND = 1
