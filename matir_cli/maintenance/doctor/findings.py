"""What `matir doctor` finds: one line each, with its remedy."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from matir_cli.errors import MatirError


class FindingState(Enum):
    """How bad it is."""

    OK = "ok"
    WARNING = "warning"
    """Something that works less well than it could, or that a user should know."""
    PROBLEM = "problem"
    """Something that makes commands fail or answer wrongly."""


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of one check."""

    name: str
    """What was looked at, such as "gallery masks"."""
    state: FindingState
    text: str = ""
    """What was found."""
    remedy: str = ""
    """What to do about it; empty where there is nothing to do."""
    fault: MatirError | None = None
    """The error that the check ended with, which says both in place of `text` and `remedy`."""


def ok(name: str, text: str, remedy: str = "") -> Finding:
    """Nothing is wrong."""
    return Finding(name, FindingState.OK, text, remedy)


def warning(name: str, text: str, remedy: str = "") -> Finding:
    """See `State.WARNING`."""
    return Finding(name, FindingState.WARNING, text, remedy)


def problem(name: str, text: str, remedy: str = "") -> Finding:
    """See `State.PROBLEM`."""
    return Finding(name, FindingState.PROBLEM, text, remedy)
