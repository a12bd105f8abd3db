"""Search photos by describing an object in them, and get the object's mask.

The names below are the Python API, see `matir_cli.api`. Each is loaded when it is first used:
`import matir_cli` by itself loads nothing.
"""

from importlib import import_module

TYPE_CHECKING = False  # as in `typing`, which takes time to import
if TYPE_CHECKING:
    from matir_cli import errors
    from matir_cli.api import Gallery
    from matir_cli.api_results import Hit, Instance, PhotoRegion
    from matir_cli.cluster.options import RayOptions
    from matir_cli.errors import MatirError
    from matir_cli.gallery.rows import StoredPhoto
    from matir_cli.indexing.outcomes import Added, Linked, Refreshed, Skipped, Unchanged
    from matir_cli.records import Box, PhotoRecord, Point
    from matir_cli.search.query import Example

__all__ = [
    "Added",
    "Box",
    "Example",
    "Gallery",
    "Hit",
    "Instance",
    "Linked",
    "MatirError",
    "PhotoRecord",
    "PhotoRegion",
    "Point",
    "RayOptions",
    "Refreshed",
    "Skipped",
    "StoredPhoto",
    "Unchanged",
    "errors",
]

_MODULES = {
    "matir_cli.indexing.pipeline": ("Added", "Linked", "Refreshed", "Skipped", "Unchanged"),
    "matir_cli.api": ("Gallery",),
    "matir_cli.errors": ("MatirError",),
    "matir_cli.gallery.rows": ("StoredPhoto",),
    "matir_cli.api_results": ("Hit", "Instance", "PhotoRegion"),
    "matir_cli.cluster.options": ("RayOptions",),
    "matir_cli.records": ("Box", "PhotoRecord", "Point"),
    "matir_cli.search.query": ("Example",),
}
"""Module to the public names that it defines."""


def __getattr__(name: str) -> object:
    """Import the module that defines a public name, and return it."""
    if name == "errors":
        return import_module("matir_cli.errors")
    for module, names in _MODULES.items():
        if name in names:
            return getattr(import_module(module), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
