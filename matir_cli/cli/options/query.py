"""What is asked for on a command line: words, an example, what not to find, and where to look."""

from __future__ import annotations

import textwrap
from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import Any

import click

from matir_cli.output.terminal import printable
from matir_cli.photos.discover import absolute_path
from matir_cli.records import Box, Point
from matir_cli.search.filters import Filters, parse_date
from matir_cli.search.query import Example, Query

MOST = 1e9
"""Pixels; no photo is as large."""


def _date(_context: click.Context, _parameter: click.Parameter, value: str | None) -> str | None:
    if value is None:
        return None
    try:
        return parse_date(value)
    except ValueError as error:
        raise click.BadParameter(str(error)) from error


def _pixels(
    _context: click.Context, parameter: click.Parameter, value: str | None
) -> tuple[float, ...] | None:
    """Numbers separated by commas, as many as the option shows."""
    if value is None:
        return None
    wanted = str(parameter.metavar)
    try:
        numbers = tuple(float(part) for part in value.split(","))
    except ValueError:
        numbers = ()
    # Also false for what is not a number.
    if len(numbers) != len(wanted.split(",")) or not all(abs(number) < MOST for number in numbers):
        raise click.BadParameter(f"{value!r} is not {wanted}, in pixels.")
    return numbers


def _one_text(context: click.Context, _parameter: click.Parameter, words: tuple[str, ...]) -> str | None:
    """QUERY as it is; several words were meant as one text."""
    if len(words) > 1:
        text = printable(textwrap.shorten(" ".join(words), _LONGEST_SHOWN, placeholder=" ..."))
        raise click.UsageError(
            f'Put a description of several words in quotes: {context.command_path} "{text}"'
        )
    return words[0] if words else None


_LONGEST_SHOWN = 60
"""Characters of what was meant as a description: a shell may have made file names of a star."""

_SHARE = click.FloatRange(0, 1)

NOTHING_ASKED = "Describe an object, or show one with --image."

WHAT = ("image", "box", "point", "weight", "without")
"""Names of the options that say what to find, for the help."""

WHERE = ("places", "since", "until", "camera", "min_size", "max_size")
"""Likewise, of those that say where."""

_OPTIONS = (
    click.option(
        "--image",
        type=click.Path(path_type=Path),
        metavar="FILE",
        help="Find what this photo shows; it need not be in the gallery.",
    ),
    click.option(
        "--box",
        callback=_pixels,
        metavar="X0,Y0,X1,Y1",
        help="The object in that photo: a box around it, in pixels of the photo as it is shown.",
    ),
    click.option("--point", callback=_pixels, metavar="X,Y", help="The object in that photo: a point on it."),
    click.option(
        "--weight", type=_SHARE, help="Share of the example beside QUERY.  [default: 0.5]", metavar="FRACTION"
    ),
    click.option(
        "--not", "without", multiple=True, metavar="TEXT", help="What not to find; may be given repeatedly."
    ),
    click.option(
        "--in",
        "places",
        type=click.Path(path_type=Path),
        multiple=True,
        metavar="PATH",
        help="Only photos in this folder, at any depth, or this file; may be given repeatedly.",
    ),
    click.option(
        "--since", callback=_date, metavar="DATE", help="Only photos taken then or later (2024, 2024-05-17)."
    ),
    click.option("--until", callback=_date, metavar="DATE", help="Only photos taken by the end of then."),
    click.option("--camera", metavar="TEXT", help="Only photos by a camera whose name contains this."),
    click.option(
        "--min-size",
        type=_SHARE,
        metavar="FRACTION",
        help="Only objects that cover at least this fraction of the photo.",
    ),
    click.option(
        "--max-size",
        type=_SHARE,
        metavar="FRACTION",
        help="Only objects that cover at most this fraction of the photo.",
    ),
)


@dataclass(frozen=True, slots=True)
class QueryArguments:
    """What to find, and where."""

    query: Query
    """Its example has not been looked at yet."""
    within: Filters | None

    @property
    def is_empty(self) -> bool:
        """Whether there is neither QUERY nor an example."""
        return self.query.text is None and self.query.example is None

    @property
    def title(self) -> str:
        """The query in a few words."""
        if self.query.text is None and self.query.example is not None:
            return f"like {self.query.example.path.name}"
        return self.query.text or ""


def query_options(command: Callable[..., object]) -> Callable[..., object]:
    """QUERY and what refines it; the command gets them all as its one argument `asked`."""

    @wraps(command)
    def with_query(
        query: str | None,
        image: Path | None,
        box: tuple[float, float, float, float] | None,
        point: tuple[float, float] | None,
        weight: float | None,
        without: tuple[str, ...],
        **others: Any,
    ) -> object:
        example = _example(image, box, point)
        if weight is not None and (query is None or example is None):
            raise click.UsageError("--weight is the share of --image beside QUERY: give both.")
        # The same text twice would count twice.
        wanted = Query(query, example, 0.5 if weight is None else weight, tuple(dict.fromkeys(without)))
        within = _within(**{name: others.pop(name) for name in WHERE})
        return command(asked=QueryArguments(wanted, within), **others)

    for option in reversed(_OPTIONS):
        with_query = option(with_query)
    query = click.argument("query", nargs=-1, required=False, metavar="[QUERY]", callback=_one_text)
    return query(with_query)


def _example(
    image: Path | None, box: tuple[float, float, float, float] | None, point: tuple[float, float] | None
) -> Example | None:
    if image is None:
        if box is not None or point is not None:
            raise click.UsageError("--box and --point are about --image, which is missing.")
        return None
    if box is not None and point is not None:
        raise click.UsageError("Give --box or --point, not both.")
    if box is not None and not (box[0] < box[2] and box[1] < box[3]):
        raise click.UsageError("--box has the left and upper edge first: X0 < X1 and Y0 < Y1.")
    return Example(image, None if box is None else Box(*box), None if point is None else Point(*point))


def _within(places: tuple[Path, ...], **bounds: Any) -> Filters | None:
    if not places and all(value is None for value in bounds.values()):
        return None
    return Filters(tuple(absolute_path(place) for place in places), **bounds)
