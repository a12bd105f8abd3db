"""`matir info`."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import click

from matir_cli.cli.options.common import gallery_option
from matir_cli.cli.text import count_of, readable_size
from matir_cli.gallery.database import GalleryFile
from matir_cli.maintenance.info import GalleryInfo, gallery_info
from matir_cli.output.json_encoding import to_json
from matir_cli.output.terminal import printable

PACKAGE = "matir-cli"

HASH_DIGITS = 12


@dataclass(frozen=True, slots=True)
class _Report:
    """What --json prints."""

    version: str
    """Of this program."""
    gallery: GalleryInfo


@click.command(short_help="Say what the gallery holds and what its size is spent on.")
@gallery_option
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def info(gallery_path: Path, as_json: bool) -> None:
    """Count photos, files, regions and judges' answers; say what the file's size is spent on,
    which models made it (with the SHA-256 of their weights), and the versions.

    Pages marked free are used again; `matir compact` gives them back.

    \b
    Exit code: 0 done, 2 an error.

    \b
    Examples:
      matir info
      matir info --json | jq .gallery.photos
    """
    with GalleryFile.open(gallery_path) as gallery:
        found = gallery_info(gallery)
    if as_json:
        click.echo(to_json(_Report(version(PACKAGE), found)))
        return
    for line in _lines(found):
        click.echo(printable(line))


def _lines(found: GalleryInfo) -> list[str]:
    lines = [
        f"{found.path}: {readable_size(found.bytes)}, schema {found.schema}, {PACKAGE} {version(PACKAGE)}",
        "",
        f"{found.photos:>12,}  photos, {found.previews:,} of them with a preview",
        f"{found.files:>12,}  files hold them, {found.skipped:,} others could not be indexed",
        f"{found.regions:>12,}  regions",
        "",
    ]
    for name, size in found.space.items():
        if size:
            lines.append(f"{readable_size(size):>12}  {size / found.bytes:>4.0%}  {name}")
    if found.models:
        lines.append("")
    for model in found.models:
        digits = model.weight_hash[:HASH_DIGITS]
        lines.append(
            f"{model.role:>12}  {model.name}, weights {digits}, from the model set {model.model_set}"
        )
    for judge in found.judges:
        lines.append(
            f"{'judge':>12}  {judge.judge[:HASH_DIGITS]}: "
            f"{count_of(judge.queries, 'query', 'queries')}, {count_of(judge.verdicts, 'verdict')}, "
            f"{count_of(judge.groundings, 'grounding')}"
        )
    return lines
