"""Settings of the tools, and a call that is refused."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from matir_cli.errors import MatirError


class ToolRefused(Exception):
    """A call cannot be answered; its text says why and what to do, in one line."""


@dataclass(frozen=True, slots=True)
class McpOptions:
    """Settings of the tools."""

    gallery: Path
    models: str
    """Model set: its name, or the path of its TOML file."""
    device: str
    """Device that runs the models."""
    use_server: bool
    """Let the gallery's server search, if one runs."""
    write_to: Path | None
    """The one folder that files may be written to; None: none."""
    idle_seconds: float
    """Time without a search after which the models are freed."""
    log: Callable[[str], object]
    """Called with a line for the user who reads the program's messages."""
    explain: Callable[[MatirError], str]
    """Returns what is wrong and what to do about it, as one line."""
