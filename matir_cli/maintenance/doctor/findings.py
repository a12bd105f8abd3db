"""Findings of `matir doctor`: the result of each check, with its remedy."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from matir_cli.errors import MatirError


class FindingState(Enum):
    """Severity of a finding."""

    OK = "ok"
    WARNING = "warning"
    """Something works less well than it could, or users should know of it."""
    PROBLEM = "problem"
    """Commands fail, or give wrong results."""


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of one check."""

    name: str
    """Subject of the check, such as "gallery masks"."""
    state: FindingState
    text: str = ""
    """Description of the state."""
    remedy: str = ""
    """Suggested action; empty if there is nothing to do."""
    fault: MatirError | None = None
    """Error that ended the check; its message and remedy replace `text` and `remedy`."""


def ok(name: str, text: str, remedy: str = "") -> Finding:
    """Make a finding in the state `OK`."""
    return Finding(name, FindingState.OK, text, remedy)


def warning(name: str, text: str, remedy: str = "") -> Finding:
    """Make a finding in the state `WARNING`."""
    return Finding(name, FindingState.WARNING, text, remedy)


def problem(name: str, text: str, remedy: str = "") -> Finding:
    """Make a finding in the state `PROBLEM`."""
    return Finding(name, FindingState.PROBLEM, text, remedy)


def on_gallery(path: Path, words: str) -> str:
    """Return the command line of `matir` with these words on the gallery at `path`, quoted for a shell."""
    return f"matir {words} --db {shlex.quote(str(path))}"
