"""Text made safe to show on a terminal.

Imports the standard library alone: every command starts with it.
"""

from __future__ import annotations

import unicodedata


def printable(text: str) -> str:
    """Return `text` with every character that could control a terminal, or hide in it, as an escape."""
    return "".join(
        c if _is_harmless(c) else c.encode("unicode_escape", "surrogatepass").decode() for c in text
    )


def _is_harmless(character: str) -> bool:
    # Controls, formatting (bidirectional overrides, zero width), surrogates, line separators.
    return unicodedata.category(character) not in ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp")
