"""The query on the command line: words, examples, exclusions and filters."""

from __future__ import annotations

import textwrap
from dataclasses import dataclass
from functools import wraps
from pathlib import Path

import click

from matir_cli.cli.options.common import CommandFunction, PathName, where_it_applies
from matir_cli.cli.options.examples import SECTION as EXAMPLE_SECTION
from matir_cli.cli.options.examples import ExampleArguments, example_options
from matir_cli.cli.text import count_of
from matir_cli.output.printable import printable
from matir_cli.photos.discover import absolute_path
from matir_cli.search.filters import Filters, parse_date
from matir_cli.search.query import Query

SHORTENED_LENGTH = 60
"""Characters of a description shown in a message; a shell may have expanded a * into many file names."""

STREAM = "-"
"""The QUERY that stands for queries on standard input."""

NO_QUERY = "Describe an object, or show one with --image."

QUERY_SECTION = (*EXAMPLE_SECTION, "weight", "without")
"""Names of the options that describe what to find, for the help."""

FILTER_SECTION = ("places", "since", "until", "camera", "min_size", "max_size")
"""Names of the options that choose the photos to search, for the help."""

_SHARE = click.FloatRange(0, 1)


@dataclass(frozen=True, slots=True)
class QueryArguments:
    """What to find, and in which photos."""

    query: Query
    """Its examples have not been resolved yet."""
    filters: Filters | None
    """None: all photos."""

    @property
    def is_empty(self) -> bool:
        """True if there is neither QUERY nor an example to find."""
        return self.query.text is None and not self.query.examples

    @property
    def title(self) -> str:
        """The query in a few words."""
        if self.query.text is None and self.query.examples:
            first, *others = self.query.examples
            more = f" and {count_of(len(others), 'other')}" if others else ""
            return f"like {first.path.name}{more}"
        return self.query.text or ""


def _parse_date(_context: click.Context, _parameter: click.Parameter, value: str | None) -> str | None:
    if value is None:
        return None
    try:
        return parse_date(value)
    except ValueError as error:
        raise click.BadParameter(str(error)) from error


def _join_words(context: click.Context, _parameter: click.Parameter, words: tuple[str, ...]) -> str | None:
    """Return the one QUERY; refuse several words, which were meant as one text."""
    if len(words) > 1:
        text = printable(textwrap.shorten(" ".join(words), SHORTENED_LENGTH, placeholder=" ..."))
        raise click.UsageError(
            f'Put a description of several words in quotes: {context.command_path} "{text}"'
        )
    return words[0] if words else None


def query_options(command: CommandFunction) -> CommandFunction:
    """Add QUERY and the options that refine it; a `SectionedCommand` gets them as `arguments`."""

    @click.argument("query", nargs=-1, required=False, metavar="[QUERY]", callback=_join_words)
    @example_options
    @click.option(
        "--weight",
        type=_SHARE,
        help="Share of --image next to QUERY.  [default: 0.5]",
        metavar="FRACTION",
    )
    @click.option(
        "--not", "without", multiple=True, metavar="TEXT", help="What not to find; may be given repeatedly."
    )
    @click.option(
        "--in",
        "places",
        type=PathName(),
        multiple=True,
        metavar="PATH",
        help="Only photos in this folder, at any depth, or this file; may be given repeatedly.",
    )
    @click.option(
        "--since",
        callback=_parse_date,
        metavar="DATE",
        help="Only photos taken on this date or later (2024, 2024-05-17).",
    )
    @click.option(
        "--until",
        callback=_parse_date,
        metavar="DATE",
        help="Only photos taken up to and including this date.",
    )
    @click.option("--camera", metavar="TEXT", help="Only photos by a camera whose name contains this.")
    @click.option(
        "--min-size",
        type=_SHARE,
        metavar="FRACTION",
        help="Only objects that cover at least this fraction of the photo.",
    )
    @click.option(
        "--max-size",
        type=_SHARE,
        metavar="FRACTION",
        help="Only objects that cover at most this fraction of the photo.",
    )
    @wraps(command)
    def with_arguments(
        *,
        query: str | None,
        shown: ExampleArguments,
        weight: float | None,
        without: tuple[str, ...],
        places: tuple[Path, ...],
        since: str | None,
        until: str | None,
        camera: str | None,
        min_size: float | None,
        max_size: float | None,
        **others: object,
    ) -> object:
        weight = where_it_applies("weight", weight, None, applies=query is not None and bool(shown.good))
        if weight is not None and (query is None or not shown.good):
            raise click.UsageError("--weight is the share of --image next to QUERY: give both.")
        arguments = QueryArguments(
            Query(query, shown.good, 0.5 if weight is None else weight, without, shown.bad, shown.rule),
            _filters(places, since, until, camera, min_size, max_size),
        )
        return command(arguments=arguments, **others)

    return with_arguments


def _filters(
    places: tuple[Path, ...],
    since: str | None,
    until: str | None,
    camera: str | None,
    min_size: float | None,
    max_size: float | None,
) -> Filters | None:
    """Combine the filters; None if none is given."""
    absolute = tuple(absolute_path(place) for place in places)
    filters = Filters(absolute, since, until, camera, min_size, max_size)
    return None if filters == Filters() else filters
