"""MaTIR CLI: find photos by describing an object in them, and get the object's mask.

The names below are the Python API, see `matir_cli.api`. They are loaded when they are first asked
for: `import matir_cli` by itself loads nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matir_cli import errors
    from matir_cli.api import Gallery
    from matir_cli.api_results import Hit, Instance, PhotoRegion
    from matir_cli.errors import MatirError
    from matir_cli.gallery.rows import StoredPhoto
    from matir_cli.indexing.pipeline import Added, Linked, Skipped, Unchanged
    from matir_cli.records import Box, PhotoRecord, Point

__all__ = [
    "Added",
    "Box",
    "Gallery",
    "Hit",
    "Instance",
    "Linked",
    "MatirError",
    "PhotoRecord",
    "PhotoRegion",
    "Point",
    "Skipped",
    "StoredPhoto",
    "Unchanged",
    "errors",
]

_HOMES = {
    "matir_cli.indexing.pipeline": ("Added", "Linked", "Skipped", "Unchanged"),
    "matir_cli.api": ("Gallery",),
    "matir_cli.errors": ("MatirError",),
    "matir_cli.gallery.rows": ("StoredPhoto",),
    "matir_cli.api_results": ("Hit", "Instance", "PhotoRegion"),
    "matir_cli.records": ("Box", "PhotoRecord", "Point"),
}


def __getattr__(name: str) -> object:
    """A public name, loaded now."""
    if name == "errors":
        return import_module("matir_cli.errors")
    for home, names in _HOMES.items():
        if name in names:
            return getattr(import_module(home), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
