"""`matir duplicates`: list near-copies, for cleaning up."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import click

from matir_cli.cli.boundary import say
from matir_cli.cli.options.common import PathName, gallery_option, output_form_option
from matir_cli.cli.options.progress import progress_option
from matir_cli.cli.path_lists import write_path
from matir_cli.cli.progress import show_progress
from matir_cli.cli.text import count_of, readable_size
from matir_cli.gallery.database import GalleryFile
from matir_cli.maintenance.duplicates import DuplicateGroup, estimate_duration, find_duplicates
from matir_cli.output.json_encoding import to_json
from matir_cli.output.printable import printable
from matir_cli.photos.discover import absolute_path

LONG_SECONDS = 5.0
"""Time from which it is said beforehand."""


@click.command(short_help="List near-copies of photos, for cleaning up.")
@gallery_option
@progress_option
@click.option(
    "--in", "folder", type=PathName(), metavar="PATH", help="Only files at or below PATH are compared."
)
@click.option("--bursts", is_flag=True, help="Photos of one burst are a group, too.")
@output_form_option("form", "json", "--json", text="Print one JSON array of groups.")
@output_form_option("form", "jsonl", "--jsonl", text="Print one JSON object per line, for each group.")
@output_form_option("form", "paths", "--paths", text="Print only the paths of files beside the originals.")
@output_form_option("form", "null", "-0", "--null", text="Print these paths, each ended by NUL.")
def duplicates(gallery_path: Path, folder: Path | None, bursts: bool, form: str | None) -> None:
    """List groups of files that hold the same picture: the original first, then its copies.

    A copy has the same bytes, or is the same picture saved, scaled, cropped a little or toned anew. The
    original is the one with most pixels, then the one with most bytes. Two exposures of one scene are no
    copies; with --bursts, those that one camera took within 3 seconds are listed as well.

    --paths and -0 list all files but the originals. Nothing is deleted, and files that are missing, or
    have changed since they were indexed, are not listed. Look at what is listed before you delete it.

    No model is needed. See: matir help duplicates --page

    \b
    Exit code: 0 done, also when there is nothing to list, 2 an error.

    \b
    Examples:
      matir duplicates
      matir duplicates --in ~/Photos/2024 --bursts
      matir duplicates --jsonl | jq '[.files[].bytes] | add'
      matir duplicates -0 --in ~/Downloads | xargs -0 -r mv -t ~/copies/
    """
    within = None if folder is None else absolute_path(folder)
    with GalleryFile.open(gallery_path) as gallery:
        seconds = estimate_duration(gallery)
        if seconds > LONG_SECONDS:
            photos = count_of(gallery.count_photos(), "photo")
            say(f"comparing {photos} with each other takes about {_duration(seconds)}")
        groups = find_duplicates(gallery, within, bursts=bursts, progress=show_progress)
    _print(groups, form)
    others = [file for group in groups for file in group.others]
    size = readable_size(sum(file.bytes for file in others))
    beside = f"{count_of(len(others), 'file')} beside the originals, {size}"
    say(f"{count_of(len(groups), 'group')}: {beside}")


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} seconds" if seconds < 120 else f"{seconds / 60:.0f} minutes"


def _print(groups: Sequence[DuplicateGroup], form: str | None) -> None:
    write = sys.stdout.write
    match form:
        case "json":
            write(f"[{', '.join(to_json(group) for group in groups)}]\n")
        case "jsonl":
            for group in groups:
                write(f"{to_json(group)}\n")
        case "paths" | "null":
            for group in groups:
                for file in group.others:
                    write_path(file.path, null=form == "null")
        case _:
            for number, group in enumerate(groups):
                write("\n" if number else "")
                for file in group.files:
                    size = f"{file.width}x{file.height}"
                    path = printable(str(file.path))
                    write(f"{file.relation:<10}  {size:>11}  {readable_size(file.bytes):>9}  {path}\n")
