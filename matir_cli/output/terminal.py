"""Result tables for terminals.

Lines are styled; `click.echo`, which prints them, removes the styles if the output is no terminal.
"""

from __future__ import annotations

import os
from pathlib import Path

import click

from matir_cli.output.printable import printable
from matir_cli.output.result_pixels import file_url
from matir_cli.records import Box
from matir_cli.search.results import GroundedObject, SearchResult

HEADER = click.style(f"{'rank':>4}  {'score':>6}  {'box x0,y0,x1,y1':<23}  path", dim=True)


def table_rows(result: SearchResult, *, all_instances: bool, link_host: str | None) -> list[str]:
    """Format a result as a line with rank, score, box and path, and one with the box of each further object.

    Args:
        all_instances: add the lines of further objects.
        link_host: name of this machine, to make paths links to files on it (OSC 8); None: no links.
    """
    first, *others = result.objects or (None,)
    name = _name(result.path)
    if link_host is not None:
        name = _link(file_url(result.path, link_host), name)
    score = click.style(f"{result.score:6.3f}", bold=True)
    hidden = result.candidate.near_copies
    more = click.style(f"  (+{hidden} alike)", dim=True) if hidden else ""
    lines = [f"{result.rank:>4}  {score}  {_box(first)}  {name}{more}"]
    return lines + [f"{'':>4}  {'':>6}  {_box(other)}" for other in others if all_instances]


def _box(grounded: GroundedObject | None) -> str:
    return f"{'-' if grounded is None else format_corners(grounded.box):<23}"


def format_corners(box: Box) -> str:
    """Format a box as x0,y0,x1,y1, rounded to integers."""
    return ",".join(str(round(v)) for v in (box.x0, box.y0, box.x1, box.y1))


def _name(path: Path) -> str:
    """Format a path with its folder dimmed."""
    folder = printable(os.path.join(path.parent, ""))  # noqa: PTH118 - pathlib drops the last slash
    return click.style(folder, dim=True) + printable(path.name)


def _link(url: str, text: str) -> str:
    """Make `text` a hyperlink by OSC 8, which terminals that do not support it ignore."""
    return f"\x1b]8;;{url}\x1b\\{text}\x1b]8;;\x1b\\"
