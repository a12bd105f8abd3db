"""Files and folders to leave out: patterns as in .gitignore, of the user and of files in the folders.

A `.matirignore` may be a stranger's: it only leaves out what is below its folder, and is limited in size and
in the wildcards of a pattern, each of which multiplies the time that matching may take.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathspec import GitIgnoreSpec

IGNORE_FILE = ".matirignore"
"""Name of the files with patterns."""

MAX_BYTES = 1 << 16
"""Size of a file with patterns; one that is larger is not read."""

MAX_PATTERNS = 200
"""Patterns in one file that are used."""

MAX_WILDCARDS = 3
"""Wildcards (`*`, `**`) in one pattern of a file; a pattern with more is not used."""


class PatternInvalid(ValueError):
    """A pattern cannot be understood."""


@dataclass(frozen=True, slots=True)
class Excludes:
    """What is left out below some folders."""

    specs: tuple[tuple[Path, GitIgnoreSpec], ...] = ()
    """Each with the folder that its patterns are relative to."""

    def within(self, folder: Path, patterns: Iterable[str]) -> Excludes:
        """Return these excludes and the patterns of `folder`."""
        lines = [*patterns]
        return Excludes((*self.specs, (folder, _compile(lines)))) if lines else self

    def match(self, path: Path, *, is_folder: bool) -> bool:
        """Return True if an entry of these folders is left out."""
        return any(spec.match_file(_relative(path, folder, is_folder)) for folder, spec in self.specs)


def check_pattern(pattern: str) -> str:
    """Return a pattern of the user.

    Raises:
        PatternInvalid: it cannot be understood, or would leave out nothing.
    """
    try:
        spec = _compile([pattern])
    except ValueError as error:
        raise PatternInvalid(pattern) from error
    if not any(each.include is not None for each in spec.patterns):
        raise PatternInvalid(pattern)
    return pattern


def read_patterns(folder: Path) -> list[str] | None:
    """Return the usable patterns of the folder's `IGNORE_FILE`; empty without one.

    None if it cannot be read, is larger than `MAX_BYTES`, or is no text in UTF-8.
    """
    try:
        # A pipe of that name would be waited for.
        descriptor = os.open(folder / IGNORE_FILE, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
    except FileNotFoundError:
        return []
    except OSError:
        return None
    try:
        with open(descriptor, "rb") as stream:  # noqa: PTH123 - a descriptor
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                return None
            content = stream.read(MAX_BYTES + 1)
        text = content.decode("utf-8-sig")
    except (OSError, ValueError):
        return None
    if len(content) > MAX_BYTES:
        return None
    return [line for line in text.splitlines() if _is_usable(line)][:MAX_PATTERNS]


def _is_usable(line: str) -> bool:
    if line.startswith("#") or not line.strip() or line.replace("**", "*").count("*") > MAX_WILDCARDS:
        return False
    try:
        _compile([line])
    except ValueError:
        return False
    return True


def _compile(patterns: list[str]) -> GitIgnoreSpec:
    """Return the patterns, ready to match; ValueError if one cannot be understood."""
    from pathspec import GitIgnoreSpec  # few commands need it

    return GitIgnoreSpec.from_lines(patterns)


def _relative(path: Path, folder: Path, is_folder: bool) -> str:
    """Return the path below `folder`, with slashes; that of a folder ends with one."""
    relative = str(path)[len(str(folder)) :].lstrip(os.sep).replace(os.sep, "/")
    return f"{relative}/" if is_folder else relative
