"""Examples on the command line: photos, each followed by what says which object in it is meant."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import wraps
from pathlib import Path
from typing import get_args

import click

from matir_cli.cli.defaults import PlacedOption
from matir_cli.cli.options.common import OPTION_ORDER, CommandFunction, PathName
from matir_cli.records import Box, Point
from matir_cli.search.query import MOST_EXAMPLES, Example, ExampleRule

MAX_COORDINATE = 1e9
"""Pixels; no photo is that large."""

SECTION = ("image", "unlike", "box", "point", "examples")
"""Names of the parameters of `example_options`, for the help."""


@dataclass(frozen=True, slots=True)
class ExampleArguments:
    """The examples of a command line."""

    good: tuple[Example, ...]
    bad: tuple[Example, ...]
    rule: ExampleRule
    """What counts of several good ones."""


def _parse_numbers(
    _context: click.Context, parameter: click.Parameter, values: tuple[str, ...]
) -> tuple[tuple[float, ...], ...]:
    """Parse numbers separated by commas, as many as the option's metavar has names, for each time given."""
    form = str(parameter.metavar)
    return tuple(_numbers(value, form) for value in values)


def _numbers(value: str, form: str) -> tuple[float, ...]:
    try:
        numbers = tuple(float(part) for part in value.split(","))
    except ValueError:
        numbers = ()
    # The comparison is also false for NaN.
    if len(numbers) != len(form.split(",")) or not all(abs(number) < MAX_COORDINATE for number in numbers):
        raise click.BadParameter(f"{value!r} is not {form}, in pixels.")
    return numbers


def example_options(command: CommandFunction) -> CommandFunction:
    """Add the options of `ExampleArguments`; the command, a `SectionedCommand`, gets them as `shown`."""

    @click.option(
        "--image",
        cls=PlacedOption,
        type=PathName(),
        multiple=True,
        metavar="FILE",
        help="Find what this photo shows; it need not be in the gallery. May be given repeatedly.",
    )
    @click.option(
        "--unlike",
        cls=PlacedOption,
        type=PathName(),
        multiple=True,
        metavar="FILE",
        help="Do not find what this photo shows. May be given repeatedly.",
    )
    @click.option(
        "--box",
        cls=PlacedOption,
        multiple=True,
        callback=_parse_numbers,
        metavar="X0,Y0,X1,Y1",
        help="The object in the --image or --unlike before it: a box around it, in pixels of the photo as it "
        "is displayed.",
    )
    @click.option(
        "--point",
        cls=PlacedOption,
        multiple=True,
        callback=_parse_numbers,
        metavar="X,Y",
        help="The object in the --image or --unlike before it: a point on it.",
    )
    @click.option(
        "--examples",
        type=click.Choice(get_args(ExampleRule)),
        default="max",
        show_default=True,
        help="Of several --image, compare objects with the one that they are most like, or with their mean.",
    )
    @wraps(command)
    def with_examples(
        *,
        image: tuple[Path, ...],
        unlike: tuple[Path, ...],
        box: tuple[tuple[float, float, float, float], ...],
        point: tuple[tuple[float, float], ...],
        examples: ExampleRule,
        **others: object,
    ) -> object:
        for name, paths in (("image", image), ("unlike", unlike)):
            if len(paths) > MOST_EXAMPLES:
                raise click.UsageError(f"--{name} may be given {MOST_EXAMPLES} times at most.")
        order = click.get_current_context().meta[OPTION_ORDER]
        given = {"image": image, "unlike": unlike, "box": box, "point": point}
        shown = _bind(order, given)
        good, bad = (tuple(each for role, each in shown if role == wanted) for wanted in ("image", "unlike"))
        return command(shown=ExampleArguments(good, bad, examples), **others)

    return with_examples


def _bind(order: Sequence[str], given: Mapping[str, Sequence[object]]) -> list[tuple[str, Example]]:
    """Pair each photo with the box or point behind it; return them with the names of their options.

    Args:
        order: names of options as they were given.
        given: the values of those that say what an example is.
    """
    values = {name: iter(each) for name, each in given.items()}
    shown: list[tuple[str, Example]] = []
    for name in order:
        match name, next(values[name], None) if name in values else None:
            case "image" | "unlike", Path() as path:
                shown.append((name, Example(path)))
            case "box" | "point", tuple() as numbers:
                if not shown:
                    raise click.UsageError(
                        f"--{name} refers to the --image or --unlike before it, which is missing."
                    )
                role, example = shown[-1]
                shown[-1] = role, _mark(role, example, name, numbers)
    return shown


def _mark(role: str, example: Example, name: str, numbers: tuple[float, ...]) -> Example:
    """Add a box or a point to an example."""
    if example.box is not None or example.point is not None:
        raise click.UsageError(
            f"Give --box or --point, not both and each once, for --{role} {example.path.name}; "
            f"for another object in it, repeat --{role}."
        )
    if name == "point":
        return replace(example, point=Point(*numbers))
    if not (numbers[0] < numbers[2] and numbers[1] < numbers[3]):
        raise click.UsageError("--box starts with the left and upper edges: X0 < X1 and Y0 < Y1.")
    return replace(example, box=Box(*numbers))
