"""`matir models`: list, fetch, locate, verify and try model sets."""

from __future__ import annotations

import math
import shutil
import sys
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import click

from matir_cli.cli.boundary import explain, say
from matir_cli.cli.exit_codes import DONE, PROBLEMS
from matir_cli.cli.options.common import device_option
from matir_cli.cli.options.progress import progress_option
from matir_cli.cli.progress import show_progress
from matir_cli.cli.text import readable_size
from matir_cli.errors import WeightsMissing
from matir_cli.model_sets.catalogue import PARTS, ModelSet, load_model_set, model_set_names
from matir_cli.model_sets.presets import Presets
from matir_cli.model_sets.weights import FileState, expected_path, local_path, verify_model_set
from matir_cli.output.json_encoding import to_json
from matir_cli.output.printable import printable

if TYPE_CHECKING:
    from matir_cli.model_sets.trial.findings import TrialFinding

MOST_COLUMNS = 100
"""Longest line of the table; longer ones are hard to read."""

LEAST_COLUMNS = 30
"""Least width of the wrapped column; a narrower terminal breaks the lines itself."""


@click.group()
def models() -> None:
    """List model sets, fetch them, locate or verify their files, and try them.

    \b
    Examples:
      matir models list
      matir models pull lite
    """


@models.command("list")
@click.option("--long", is_flag=True, help="Show all that is known about each set.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON array.")
def list_sets(long: bool, as_json: bool) -> None:
    """List the model sets: name, size, present or missing, description, licences.

    On a terminal, a table with a header; elsewhere one set per line, with columns separated by TAB.
    With --long, also languages, commercial use, memory, and what was measured: a line for each of
    them, elsewhere with set, name and value separated by TAB.

    \b
    Exit code: 0 done, 2 an error.

    \b
    Examples:
      matir models list
      matir models list --long
      matir models list --json | jq -r '.[] | select(.present) | .name'
    """
    rows = [_row(load_model_set(name)) for name in model_set_names()]
    if as_json:
        click.echo(f"[{', '.join(map(to_json, rows))}]")
        return
    if long:
        for line in _long_table(rows) if sys.stdout.isatty() else _long_lines(rows):
            click.echo(line)
        return
    cells = [_cells(row) for row in rows]
    for line in _table(cells) if sys.stdout.isatty() else map("\t".join, cells):
        click.echo(line)


@models.command()
@click.argument("model_set", metavar="SET")
@click.option(
    "--accept-changed",
    is_flag=True,
    help="Accept a file that differs from the one seen first, if no hash of it is published.",
)
@progress_option
def pull(model_set: str, accept_changed: bool) -> None:
    """Fetch the missing files of SET; run it again to resume.

    SET is a name from `matir models list`, or a TOML file. Every file is verified before it gets
    its final name. MATIR_MODELS sets the folder of all files, HF_HOME that of the Hugging Face hub.

    \b
    Exit code: 0 done, 2 an error, 130 interrupted.

    \b
    Examples:
      matir models pull full
      MATIR_MODELS=/media/stick/models matir models pull ./mine.toml
    """
    # Imported here: it loads the hub's library, which no other command needs.
    from matir_cli.model_sets.pull import pull_model_set

    chosen = load_model_set(model_set)
    if chosen.note:
        say(f"model set {chosen.name}: {chosen.note}")
    for part in chosen.parts:
        say(f"{part.kind} {part.name}, licence: {part.licence}")
    for pulled in pull_model_set(chosen, show_progress, accept_changed):
        done = "fetched" if pulled.fetched else "already present"
        say(f"{pulled.file.label} {done}: {pulled.path}")


@models.command()
@click.argument("model_set", metavar="SET")
def path(model_set: str) -> None:
    """Print the path of each file of SET, present or not: role TAB path, one per line.

    SET is a name from `matir models list`, or a TOML file. A file fetched by other means can be
    put at its path by hand.

    \b
    Exit code: 0 all files are present, 2 some are missing.

    \b
    Examples:
      matir models path full
      matir models path full | cut -f2 | xargs -d '\\n' ls -l
    """
    chosen = load_model_set(model_set)
    missing = []
    for file in chosen.files:
        place = expected_path(file)
        click.echo(f"{file.label}\t{place}")
        if local_path(file) is None:
            missing.append(place)
    if missing:
        raise WeightsMissing(chosen.handle, missing)


@models.command()
@click.argument("model_set", metavar="SET")
@progress_option
def verify(model_set: str) -> None:
    """Read every file of SET and compare its hash: state TAB role TAB path, one per line.

    SET is a name from `matir models list`, or a TOML file. The state is ok, missing or changed.

    \b
    Exit code: 0 all files are ok, 2 some are not.

    \b
    Examples:
      matir models verify full
      matir models verify full | grep -v '^ok'
    """
    chosen = load_model_set(model_set)
    missing, changed = [], []
    for checked in verify_model_set(chosen, show_progress):
        click.echo(f"{checked.state.value}\t{checked.file.label}\t{checked.path}")
        if checked.state is FileState.MISSING:
            missing.append(checked.path)
        elif checked.fault is not None:
            changed.append(checked.fault)
    if changed:
        raise changed[0]
    if missing:
        raise WeightsMissing(chosen.handle, missing)


@models.command("try")
@click.argument("model_set", metavar="SET")
@click.option(
    "--part",
    "kinds",
    type=click.Choice(PARTS),
    multiple=True,
    help="Try only this part of the set; may be repeated.",
)
@device_option
@progress_option
@click.option("--json", "as_json", is_flag=True, help="Print one JSON array.")
@click.pass_context
def try_set(
    context: click.Context, model_set: str, kinds: tuple[str, ...], device: str, as_json: bool
) -> None:
    """Run the models of SET on drawn pictures whose objects are known.

    SET is a name from `matir models list`, or a TOML file. Its files must be present: nothing is
    fetched. Each check prints a line: ok, failed or unknown, the part, what was seen, and what a
    working one gives. The likely reason of a failure is printed below the part's lines.

    With a GPU this takes a minute or two. On a CPU, the large models take minutes per picture;
    --part tries one part alone.

    \b
    Exit code: 0 all checks passed, 1 some failed, 2 an error, 130 interrupted.

    \b
    Examples:
      matir models try full
      matir models try ./mine.toml --part encoder --device cpu
      matir models try full --json | jq -r '.[] | select(.state == "failed") | .reason'
    """
    # Imported here: it loads the drawn world, which no other command of this group needs.
    from matir_cli.model_sets.trial.run import locate_trial_parts, try_part

    chosen = load_model_set(model_set)
    parts = locate_trial_parts(chosen, kinds or [part.kind for part in chosen.parts])
    rows: list[TrialRow] = []
    for part, config in parts:
        size = readable_size(sum(path.stat().st_size for path in config.files.values()))
        say(f"{part.kind}: loading {part.name} ({size})")
        tried = [_trial_row(found) for found in try_part(chosen, part, config, device, show_progress)]
        if not as_json:
            _print_trial(tried)
        rows += tried
    if as_json:
        click.echo(f"[{', '.join(map(to_json, rows))}]")
    failed = list(dict.fromkeys(row.part for row in rows if row.state == "failed"))
    say(f"does not work: {', '.join(failed)}" if failed else "all checks passed")
    context.exit(PROBLEMS if failed else DONE)


@dataclass(frozen=True, slots=True)
class TrialRow:
    """One check of `try` as it is printed."""

    part: str
    check: str
    state: str
    """ok, failed or unknown."""
    seen: str
    expected: str
    figures: tuple[float | None, ...]
    """What was measured, null if not a number; of "reference figures", the numbers to record in the TOML."""
    reason: str
    """Likely reason of a failure, or ""."""


def _trial_row(found: TrialFinding) -> TrialRow:
    """Convert a finding; a part that could not be run shows its error and remedy."""
    seen, expected, reason = found.seen, found.expected, found.reason
    if found.fault is not None:
        seen, remedy = explain(found.fault)
        reason = reason or remedy
    figures = tuple(round(figure, 4) if math.isfinite(figure) else None for figure in found.figures)
    return TrialRow(found.part, found.name, found.state.value, seen, expected, figures, reason)


def _print_trial(rows: Sequence[TrialRow]) -> None:
    """Print the checks of one part, and below them the likely reason of its failures."""
    for row in rows:
        expected = f" ({row.expected})" if row.expected else ""
        click.echo(printable(f"{row.state:<7}  {row.part:<8}  {row.check:<17}  {row.seen}{expected}"))
    for reason in dict.fromkeys(row.reason for row in rows if row.reason):
        click.echo(printable(f"{'':<7}  likely reason: {reason}"))


@dataclass(frozen=True, slots=True)
class ModelSetRow:
    """A model set, as `list --json` prints it."""

    name: str
    description: str
    note: str
    bytes: int
    """Size of all files together; approximate if a file's size is not published."""
    present: bool
    """True if every file is on this machine."""
    licences: dict[str, str]
    """Licence by the name of the model."""
    languages: str
    """Languages of queries; empty if unknown."""
    commercial_use: bool | None
    """True if the licences of all files permit commercial use; null if unknown."""
    memory_mb: int | None
    """Main memory that the largest part needs on a CPU, in 10^6 bytes; null if unknown."""
    measured: str
    """What was measured, and with what; empty if nothing."""
    presets: Presets
    """Name of each preset, such as "fast", to part to the options that it replaces."""


def _cells(row: ModelSetRow) -> list[str]:
    """Return the columns of `list`."""
    state = "present" if row.present else "missing"
    licences = "; ".join(dict.fromkeys(row.licences.values()))
    return [row.name, readable_size(row.bytes), state, row.description, licences]


def _details(row: ModelSetRow) -> Iterator[tuple[str, str]]:
    """Return names and values of what `list --long` shows about a set; unknown ones are left out."""
    yield "description", row.description
    yield "size", f"{readable_size(row.bytes)}, {'present' if row.present else 'missing'}"
    for model, licence in row.licences.items():
        yield "licence", f"{model}: {licence}"
    if row.commercial_use is not None:
        yield "commercial use", "permitted" if row.commercial_use else "not permitted"
    if row.languages:
        yield "languages", row.languages
    if row.memory_mb is not None:
        yield "memory", f"about {readable_size(row.memory_mb * 10**6)}"
    if row.measured:
        yield "measured", row.measured
    for preset, parts in row.presets.items():
        replaced = (f"{name} = {value}" for options in parts.values() for name, value in options.items())
        yield "preset", f"{preset}: {', '.join(replaced)}"


def _long_lines(rows: list[ModelSetRow]) -> Iterator[str]:
    """Format the details of sets for programs: set, name and value."""
    return ("\t".join((row.name, *detail)) for row in rows for detail in _details(row))


def _long_table(rows: list[ModelSetRow]) -> Iterator[str]:
    """Format the details of sets for people; long values are wrapped."""
    indent = 2 + max(len(name) for row in rows for name, _ in _details(row)) + 2
    width = max(min(shutil.get_terminal_size().columns, MOST_COLUMNS) - indent, LEAST_COLUMNS)
    for row in rows:
        yield row.name
        for name, value in _details(row):
            first, *others = textwrap.wrap(value, width)
            yield f"  {name}".ljust(indent) + first
            yield from (" " * indent + line for line in others)


def _table(rows: list[list[str]]) -> Iterator[str]:
    """Format a table with a header; long texts are wrapped in the last column."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)][:3]
    indent = sum(widths) + 2 * len(widths)
    width = max(min(shutil.get_terminal_size().columns, MOST_COLUMNS) - indent, LEAST_COLUMNS)
    for *short, description, licences in [["name", "size", "files", "description", "licences"], *rows]:
        first, *others = textwrap.wrap(description, width) + textwrap.wrap(licences, width)
        yield "".join(f"{cell:<{columns}}  " for cell, columns in zip(short, widths, strict=True)) + first
        yield from (" " * indent + line for line in others)


def _row(model_set: ModelSet) -> ModelSetRow:
    places = [(file, local_path(file)) for file in model_set.files]
    return ModelSetRow(
        name=model_set.name,
        description=model_set.description,
        note=model_set.note,
        # Files that are part of the package need not state their size.
        bytes=sum(file.bytes or (place.stat().st_size if place else 0) for file, place in places),
        present=all(place is not None for _, place in places),
        licences={part.name: part.licence for part in model_set.parts},
        languages=model_set.abilities.languages,
        commercial_use=model_set.abilities.commercial_use,
        memory_mb=model_set.abilities.memory_mb,
        measured=model_set.abilities.measured,
        presets=model_set.presets,
    )
