"""The manual: one page per topic of `matir help`, in Markdown.

A page starts with a title, a blank line and one sentence that describes it. `commands.md` and the
source tree in `architecture.md` are written by `make docs`, and so are the JSON Schemas in `schemas/` and
their tables in `json.md`; everything else by hand. The pages are part of the installed package; the
pictures are not. Imports nothing of the package; `matir help` uses it.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib.resources import files

SUFFIX = ".md"

SCHEMAS, SCHEMA_SUFFIX = "schemas", ".json"
"""Folder of the JSON Schemas of printed records, and the suffix of their files."""


@dataclass(frozen=True, slots=True)
class Page:
    """One page of the manual."""

    topic: str
    """Name of its file without the suffix."""
    text: str
    """Markdown."""

    @property
    def title(self) -> str:
        """The text of the first heading."""
        return self.text.partition("\n")[0].removeprefix("# ")

    @property
    def description(self) -> str:
        """The paragraph below the title, on one line."""
        return " ".join(self.text.split("\n\n")[1].split())


def topics() -> list[str]:
    """Return the topics of all pages, in alphabetical order."""
    names = (entry.name for entry in files(__name__).iterdir())
    return sorted(name.removesuffix(SUFFIX) for name in names if name.endswith(SUFFIX))


def read_page(topic: str) -> Page:
    """Read the page of a topic, one of `topics()`."""
    return Page(topic, files(__name__).joinpath(f"{topic}{SUFFIX}").read_text(encoding="utf-8"))


def schema_names() -> list[str]:
    """Return the names of all JSON Schemas of printed records, in alphabetical order."""
    names = (entry.name for entry in files(__name__).joinpath(SCHEMAS).iterdir())
    return sorted(name.removesuffix(SCHEMA_SUFFIX) for name in names if name.endswith(SCHEMA_SUFFIX))


def read_schema(name: str) -> str:
    """Read the JSON Schema called `name`, one of `schema_names()`, as text."""
    return files(__name__).joinpath(SCHEMAS, f"{name}{SCHEMA_SUFFIX}").read_text(encoding="utf-8")
