"""`matir info`: show what the gallery holds."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import click

from matir_cli.cli.options.common import gallery_option
from matir_cli.cli.text import count_of, readable_size
from matir_cli.gallery.database import GalleryFile
from matir_cli.gallery.verdict_cache import HUMAN_JUDGE
from matir_cli.maintenance.info import GalleryInfo, gallery_info
from matir_cli.output.json_encoding import to_json
from matir_cli.output.printable import printable

PACKAGE = "matir-cli"

HASH_DIGITS = 12


@dataclass(frozen=True, slots=True)
class InfoReport:
    """Output of --json."""

    version: str
    """Of this program."""
    gallery: GalleryInfo


@click.command(short_help="Show what the gallery holds and what uses its disk space.")
@gallery_option
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def info(gallery_path: Path, as_json: bool) -> None:
    """Show the numbers of photos, files, regions and verdicts, what uses the disk space, the
    models (with the SHA-256 of their weights), and the versions.

    Free pages are reused; `matir compact` gives them back to the disk.

    \b
    Exit code: 0 done, 2 an error.

    \b
    Examples:
      matir info
      matir info --json | jq .gallery.photos
    """
    with GalleryFile.open(gallery_path) as gallery:
        contents = gallery_info(gallery)
    if as_json:
        click.echo(to_json(InfoReport(version(PACKAGE), contents)))
        return
    for line in _lines(contents):
        click.echo(printable(line))


def _lines(contents: GalleryInfo) -> list[str]:
    lines = [
        f"{contents.path}: {readable_size(contents.bytes)}, "
        f"schema {contents.schema}, {PACKAGE} {version(PACKAGE)}",
        "",
        f"{contents.photos:>12,}  photos, {contents.previews:,} of them with a preview"
        + (f", {contents.incomplete:,} incomplete" if contents.incomplete else ""),
        f"{contents.files:>12,}  files hold them, {contents.skipped:,} others could not be indexed",
        f"{contents.regions:>12,}  regions",
        "",
    ]
    for name, size in contents.space.items():
        if size:
            lines.append(f"{readable_size(size):>12}  {size / contents.bytes:>4.0%}  {name}")
    if contents.models:
        lines.append("")
    for model in contents.models:
        digits = model.weight_hash[:HASH_DIGITS]
        lines.append(
            f"{model.role:>12}  {model.name}, weights {digits}, from the model set {model.model_set}"
        )
    for judge in contents.judges:
        lines.append(
            f"{'judge':>12}  {'people' if judge.judge == HUMAN_JUDGE else judge.judge[:HASH_DIGITS]}: "
            f"{count_of(judge.queries, 'query', 'queries')}, {count_of(judge.verdicts, 'verdict')}, "
            f"{count_of(judge.groundings, 'grounding')}"
        )
    return lines
