"""Options that choose photos by their metadata, and the order of results."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import wraps
from typing import TypeVar, get_args

import click

from matir_cli.cli.options.common import CommandFunction, where_it_applies
from matir_cli.cli.options.query import QueryArguments
from matir_cli.search.distances import parse_distance, parse_position
from matir_cli.search.filters import WITHIN, Filters, Orientation
from matir_cli.search.keywords import parse_rating
from matir_cli.search.sorting import SortKey

METADATA_SECTION = ("near", "within", "has_gps", "rating", "keywords", "no_keywords", "orientation")
"""Names of the options that choose photos by their metadata, for the help."""

Value = TypeVar("Value")


def _parsed(
    parse: Callable[[str], Value],
) -> Callable[[click.Context, click.Parameter, str | None], Value | None]:
    """Return a callback that parses an option's text, and reports the message of a `ValueError`."""

    def callback(_context: click.Context, _parameter: click.Parameter, text: str | None) -> Value | None:
        try:
            return None if text is None else parse(text)
        except ValueError as error:
            raise click.BadParameter(str(error)) from error

    return callback


def _parse_keywords(
    _context: click.Context, _parameter: click.Parameter, keywords: tuple[str, ...]
) -> tuple[str, ...]:
    if not all(keyword.strip() for keyword in keywords):
        raise click.BadParameter("it is empty.")
    return keywords


def metadata_options(command: CommandFunction) -> CommandFunction:
    """Add filters by metadata; the command gets them within the filters of its parameter `arguments`.

    It stands below `query_options`, which makes that parameter.
    """

    @click.option(
        "--near",
        callback=_parsed(parse_position),
        metavar="LAT,LON",
        help="Only photos taken near this place, in degrees; see --within.",
    )
    @click.option(
        "--within",
        callback=_parsed(parse_distance),
        metavar="DISTANCE",
        help=f"Greatest distance from --near: 500m, 5km, 3mi.  [default: {WITHIN / 1000:.0f}km]",
    )
    @click.option("--has-gps/--no-gps", default=None, help="Only photos with a position, or without one.")
    @click.option(
        "--rating",
        callback=_parsed(parse_rating),
        metavar="N[+]",
        help="Only photos with this rating: 3, 3+ (or more), 2-4, 0 (unrated), rejected.",
    )
    @click.option(
        "--keyword",
        "keywords",
        callback=_parse_keywords,
        multiple=True,
        metavar="TEXT",
        help="Only photos with this keyword, in any case; * stands for anything; may be given repeatedly.",
    )
    @click.option(
        "--no-keyword",
        "no_keywords",
        callback=_parse_keywords,
        multiple=True,
        metavar="TEXT",
        help="Only photos without this keyword; may be given repeatedly.",
    )
    @click.option(
        "--orientation",
        type=click.Choice(get_args(Orientation)),
        help="Only upright, wide or square photos, as they are displayed.",
    )
    @wraps(command)
    def with_filters(
        *,
        arguments: QueryArguments,
        near: tuple[float, float] | None,
        within: float | None,
        has_gps: bool | None,
        rating: tuple[int, int] | None,
        keywords: tuple[str, ...],
        no_keywords: tuple[str, ...],
        orientation: Orientation | None,
        **others: object,
    ) -> object:
        within = where_it_applies("within", within, None, applies=near is not None)
        if within is not None and near is None:
            raise click.UsageError("--within is the distance from --near, which is missing.")
        filters = replace(
            arguments.filters or Filters(),
            near=near,
            within=WITHIN if within is None else within,
            has_gps=has_gps,
            rating=rating,
            keywords=keywords,
            no_keywords=no_keywords,
            orientation=orientation,
        )
        return command(
            arguments=replace(arguments, filters=None if filters == Filters() else filters), **others
        )

    return with_filters


sort_option = click.option(
    "--sort",
    type=click.Choice(get_args(SortKey)),
    default="score",
    show_default=True,
    help="Order of the photos found: best first, oldest first, by path, or largest object first.",
)
