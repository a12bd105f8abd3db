"""Results for people at a terminal."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence

from matir_cli.answers import Found
from matir_cli.records import Box


def table(results: Sequence[Found]) -> list[str]:
    """Lines for people: rank, score, box and path in columns."""
    if not results:
        return []
    lines = [f"{'rank':>4}  {'score':>6}  {'box x0,y0,x1,y1':<23}  path"]
    for found in results:
        box = _corners(found.answers[0].box) if found.answers else "-"
        lines.append(f"{found.rank:>4}  {found.score:6.3f}  {box:<23}  {printable(str(found.path))}")
    return lines


def _corners(box: Box) -> str:
    return ",".join(str(round(v)) for v in (box.x0, box.y0, box.x1, box.y1))


def printable(text: str) -> str:
    """`text` with everything that could steer a terminal or hide in it shown as an escape."""
    return "".join(
        c if _is_harmless(c) else c.encode("unicode_escape", "surrogatepass").decode() for c in text
    )


def _is_harmless(character: str) -> bool:
    # Controls, formatting (bidirectional overrides, zero width), surrogates, line separators.
    return unicodedata.category(character) not in ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp")
