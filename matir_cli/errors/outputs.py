"""Errors about results: files that cannot be written, and packages that a kind of output needs."""

from dataclasses import dataclass, field
from pathlib import Path

from matir_cli.errors.base import MatirError


@dataclass(eq=False)
class OutputError(MatirError):
    """A result could not be written to `path`; `reason` is the system's message, or names the cause."""

    path: Path
    reason: str

    def __str__(self) -> str:
        return f"{self.path} cannot be written: {self.reason}."


@dataclass(eq=False)
class OutputExists(OutputError):
    """There is already a file at `path`; it was kept."""

    reason: str = field(default="it exists", init=False)

    def __str__(self) -> str:
        return f"{self.path} already exists; it was kept."


class SidecarUnusable(OutputError):
    """The file at `path` is not an XMP sidecar that can be extended; it was left unchanged."""

    def __str__(self) -> str:
        return f"{self.path} was left unchanged: {self.reason}."


class SidecarRegionsUnusable(SidecarUnusable):
    """The regions in the sidecar at `path` cannot be extended; its keywords could."""

    def __str__(self) -> str:
        return f"{self.path} was left unchanged, because of its regions: {self.reason}."


class SidecarElsewhere(SidecarUnusable):
    """The sidecar at `path` is a link to a file in another folder, which was not followed."""

    def __str__(self) -> str:
        return f"{self.path} was not followed: {self.reason}, in another folder."


@dataclass(eq=False)
class PackageMissing(MatirError):
    """A feature needs the packages of the optional dependency group `extra`, which are not installed."""

    extra: str

    def __str__(self) -> str:
        return f"{self.extra} needs a package that is not installed."
