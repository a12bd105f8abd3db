"""`matir info`: show what the gallery holds."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import click

from matir_cli.cli.options.common import (
    galleries_option,
    open_for_reading,
    skip_missing_option,
    without_damaged,
)
from matir_cli.cli.text import count_of, readable_size
from matir_cli.gallery.database import GalleryFile
from matir_cli.gallery.sqlite_errors import translated
from matir_cli.gallery.union import files_of
from matir_cli.gallery.verdict_cache import HUMAN_JUDGE
from matir_cli.maintenance.info import GalleryInfo, gallery_info
from matir_cli.output.json_encoding import to_json
from matir_cli.output.printable import printable

PACKAGE = "matir-cli"

HASH_DIGITS = 12


@dataclass(frozen=True, slots=True)
class InfoReport:
    """Output of --json for one gallery."""

    version: str
    """Of this program."""
    gallery: GalleryInfo


@dataclass(frozen=True, slots=True)
class JointInfoReport:
    """Output of --json for several galleries."""

    version: str
    """Of this program."""
    photos: int
    """Number of photos in all galleries together; one that several hold counts once."""
    galleries: tuple[GalleryInfo, ...]
    """In the order given."""


@click.command(short_help="Show what the gallery holds and what uses its disk space.")
@galleries_option
@skip_missing_option
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def info(gallery_paths: tuple[Path, ...], skip_missing: bool, as_json: bool) -> None:
    """Show the numbers of photos, files, regions and verdicts, what uses the disk space, the
    models (with the SHA-256 of their weights), and the versions.

    Free pages are reused; `matir compact` gives them back to the disk.

    Of several galleries, each is shown, and how many photos they hold together.

    \b
    Exit code: 0 done, 2 an error.

    \b
    Examples:
      matir info
      matir info --json | jq .gallery.photos
      matir info --db 'shards/*.db'
    """
    with open_for_reading(gallery_paths, skip_missing=skip_missing) as gallery:
        galleries = without_damaged(
            gallery, lambda: [_info(file) for file in files_of(gallery)], skip_missing=skip_missing
        )
        photos = gallery.count_photos()
    if as_json:
        number = version(PACKAGE)
        report = (
            InfoReport(number, galleries[0])
            if len(galleries) == 1
            else JointInfoReport(number, photos, tuple(galleries))
        )
        click.echo(to_json(report))
        return
    lines = [line for contents in galleries for line in (*_lines(contents), "")][:-1]
    if len(galleries) > 1:
        shared = sum(contents.photos for contents in galleries) - photos
        together = f"photos in {len(galleries)} galleries together"
        lines += ["", f"{photos:>12,}  {together}; {count_of(shared, 'copy', 'copies')} not counted"]
    for line in lines:
        click.echo(printable(line))


def _info(file: GalleryFile) -> GalleryInfo:
    with translated(file.path):
        return gallery_info(file)


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
    if (begun := contents.reencoding) is not None:
        done = f"new vectors of {begun.photos:,} of {contents.photos:,} photos"
        lines.append(f"{'reencode':>12}  {done} are made, for the model set {begun.model_set}")
    for judge in contents.judges:
        lines.append(
            f"{'judge':>12}  {'people' if judge.judge == HUMAN_JUDGE else judge.judge[:HASH_DIGITS]}: "
            f"{count_of(judge.queries, 'query', 'queries')}, {count_of(judge.verdicts, 'verdict')}, "
            f"{count_of(judge.groundings, 'grounding')}"
        )
    return lines
