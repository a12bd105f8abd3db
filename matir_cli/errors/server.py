"""Errors about the server of a gallery."""

from dataclasses import dataclass
from pathlib import Path

from matir_cli.errors.base import MatirError


@dataclass(eq=False)
class ServerRunning(MatirError):
    """A server for the gallery at `gallery` runs already.

    `place` is the address of its page and its process, or says that it is just starting.
    """

    gallery: Path
    place: str

    def __str__(self) -> str:
        return f"a server for {self.gallery} runs already: {self.place}."


@dataclass(eq=False)
class ServerFailed(MatirError):
    """A server cannot be started; `reason` is short, in lower case."""

    reason: str

    def __str__(self) -> str:
        return f"the server cannot start: {self.reason}."
