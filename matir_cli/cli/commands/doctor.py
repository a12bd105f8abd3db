"""`matir doctor`: check the installation and the gallery."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import click

from matir_cli.cli.boundary import explain, say
from matir_cli.cli.exit_codes import DONE, PROBLEMS
from matir_cli.cli.options.common import gallery_option
from matir_cli.cli.options.progress import progress_option
from matir_cli.cli.progress import show_progress
from matir_cli.cli.text import count_of
from matir_cli.model_sets.catalogue import DEFAULT_MODEL_SET
from matir_cli.output.json_encoding import to_json
from matir_cli.output.printable import printable


@dataclass(frozen=True, slots=True)
class FindingRow:
    """One finding as it is printed."""

    state: str
    """ok, warning or problem."""
    name: str
    text: str
    remedy: str


@click.command(short_help="Check the installation and the gallery, with a remedy for each problem.")
@gallery_option
@progress_option
@click.option(
    "--deep",
    is_flag=True,
    help="Read all files of all model sets, and every mask and preview of the gallery.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON array.")
@click.pass_context
def doctor(context: click.Context, gallery_path: Path, deep: bool, as_json: bool) -> None:
    """Check Python and its packages, the devices, the model sets and their files, and the gallery.

    Each check prints a line: ok, warning or problem, what was checked, what was found, and what
    to do about it. The problems are summed up on standard error at the end. Nothing is changed.
    By default, a sample of the gallery's masks and previews is read, and the models' files are
    only checked for presence; --deep reads all of them.

    \b
    Exit code: 0 no problem, 1 there are problems, 2 an error, 130 interrupted.

    \b
    Examples:
      matir doctor
      matir doctor --deep --db /media/backup/gallery.db
      matir doctor --json | jq -r '.[] | select(.state != "ok") | .remedy'
    """
    rows = []
    for row in _rows(gallery_path, deep):
        rows.append(row)
        if not as_json:
            remedy = f" -> {row.remedy}" if row.remedy else ""
            click.echo(printable(f"{row.state:<7}  {row.name}: {row.text}{remedy}"))
    if as_json:
        click.echo(f"[{', '.join(map(to_json, rows))}]")
    problems = [row for row in rows if row.state == "problem"]
    summary = "; ".join(f"{row.name} -> {row.remedy}" if row.remedy else row.name for row in problems)
    say(f"{count_of(len(problems), 'problem')}: {summary}" if problems else "no problem")
    context.exit(PROBLEMS if problems else DONE)


def _rows(gallery_path: Path, deep: bool) -> Iterator[FindingRow]:
    # Imported here: it reads the versions of packages, which no other command needs.
    from matir_cli.maintenance.doctor.installation import examine_installation

    for finding in examine_installation(gallery_path, DEFAULT_MODEL_SET, deep=deep, progress=show_progress):
        text, remedy = (finding.text, finding.remedy) if finding.fault is None else explain(finding.fault)
        yield FindingRow(finding.state.value, finding.name, text, remedy)
