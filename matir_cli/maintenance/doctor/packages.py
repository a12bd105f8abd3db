"""Packages that this program requires, with the versions that it accepts."""

from __future__ import annotations

from importlib import metadata

from packaging.requirements import Requirement

DISTRIBUTION = "matir-cli"


def required_packages() -> list[Requirement]:
    """Return the packages that are required on this system; none if the program is not installed."""
    try:
        declared = [Requirement(line) for line in metadata.requires(DISTRIBUTION) or ()]
    except metadata.PackageNotFoundError:
        return []
    return [each for each in declared if each.marker is None or each.marker.evaluate({"extra": ""})]


def requirement(name: str) -> str:
    """Return what to tell pip to install the package `name` in an accepted version, quoted for a shell."""
    for required in required_packages():
        if required.name == name:
            return f"'{name}{required.specifier}'"
    return name


def reinstall_sqlite() -> str:
    """Return the command that installs SQLite's bindings and its extension again."""
    return f"pip install --force-reinstall {requirement('apsw')} {requirement('sqlite-vec')}"
