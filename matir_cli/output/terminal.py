"""Results for people at a terminal.

Lines are styled; whoever prints them (`click.echo`) leaves the styles out where nobody can see them.
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


def table_rows(found: SearchResult, *, all_instances: bool, link_host: str | None) -> list[str]:
    """The line of a result: rank, score, box and path; and one for each further object's box.

    Args:
        link_host: this machine's name, to make paths links to files there (OSC 8); None: no links.
    """
    first, *others = found.answers or (None,)
    name = _name(found.path)
    if link_host is not None:
        name = _link(file_url(found.path, link_host), name)
    score = click.style(f"{found.score:6.3f}", bold=True)
    lines = [f"{found.rank:>4}  {score}  {_box(first)}  {name}"]
    return lines + [f"{'':>4}  {'':>6}  {_box(other)}" for other in others if all_instances]


def _box(answer: GroundedObject | None) -> str:
    return f"{'-' if answer is None else format_corners(answer.box):<23}"


def format_corners(box: Box) -> str:
    """x0,y0,x1,y1 in whole pixels."""
    return ",".join(str(round(v)) for v in (box.x0, box.y0, box.x1, box.y1))


def _name(path: Path) -> str:
    """The path with its folder less bright than the file's name."""
    folder = printable(os.path.join(path.parent, ""))  # noqa: PTH118 - pathlib drops the last slash
    return click.style(folder, dim=True) + printable(path.name)


def _link(url: str, shown: str) -> str:
    """`shown` as a hyperlink: OSC 8, which terminals that do not know it ignore."""
    return f"\x1b]8;;{url}\x1b\\{shown}\x1b]8;;\x1b\\"
