"""`matir ls`: list the photo files in the gallery."""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TypeAlias

import click

from matir_cli.cli.boundary import say
from matir_cli.cli.options.common import (
    PathName,
    galleries_option,
    open_for_reading,
    output_form_option,
    skip_missing_option,
    where_it_applies,
    without_damaged,
)
from matir_cli.cli.path_lists import write_path
from matir_cli.cli.text import describe_absent, describe_notes, describe_position, describe_rating
from matir_cli.gallery.absence import AbsentFolder, without_absent
from matir_cli.gallery.files import KnownFile
from matir_cli.gallery.union import GalleryUnion
from matir_cli.maintenance.listing import (
    ListedFile,
    SkippedFile,
    list_paths,
    list_photo_files,
    list_skipped_files,
)
from matir_cli.output.json_encoding import to_json
from matir_cli.output.printable import printable
from matir_cli.photos.discover import absolute_path

CAMERA_WIDTH = 20
"""Columns; a longer name is cut off in the table."""

KEYWORDS_WIDTH = 24
"""Columns; more keywords are cut off in the table."""


@click.command(short_help="List the photo files in the gallery.")
@galleries_option
@skip_missing_option
@click.option(
    "--in",
    "folder",
    type=PathName(),
    metavar="PATH",
    help="Only files at or below PATH, which need not exist any longer.",
)
@click.option("--missing", is_flag=True, help="Only files that no longer exist on disk.")
@click.option(
    "--absent", is_flag=True, help="With --missing: also those in folders of which no known file is left."
)
@click.option("--skipped", is_flag=True, help="List the files that could not be indexed: path, TAB, reason.")
@click.option(
    "--incomplete",
    is_flag=True,
    help="Only files of which a part could not be read: path, TAB, what is missing.",
)
@output_form_option(
    "form",
    "long",
    "--long",
    text="Print a table: id, size, regions, taken, camera, position, rating, keywords, path.",
)
@output_form_option("form", "json", "--json", text="Print one JSON array.")
@output_form_option("form", "jsonl", "--jsonl", text="Print one JSON object per line.")
@output_form_option("form", "null", "-0", "--null", text="Print paths only, each ended by NUL.")
def ls(
    gallery_paths: tuple[Path, ...],
    skip_missing: bool,
    folder: Path | None,
    missing: bool,
    absent: bool,
    skipped: bool,
    incomplete: bool,
    form: str | None,
) -> None:
    """List the files that hold photos, one path per line, sorted by path.

    A photo stored in several files is listed with each of them. Other commands can change the
    gallery while the list is read. With --skip-missing, several galleries are read to the end before
    anything is printed.

    --missing lists deleted files. A folder that has lost all of its known files, two or more, may
    be on a volume that is not mounted: it is named on standard error instead. --absent lists its
    files as well.

    --incomplete lists photos that were added without a part of their file: the end of a JPEG that
    is cut, or metadata. Photos that were added before version 0.2 are not among them.

    \b
    Exit code: 0 done, also when there is nothing to list, 2 an error.

    \b
    Examples:
      matir ls --in ~/Photos/2024 --long
      matir ls --missing --in ~/Photos
      matir ls --skipped
      matir ls --incomplete --json | jq -r '.[] | select(.notes[].kind == "picture") | .path'
      matir ls --jsonl | jq -r 'select(.regions > 50) | .path'
    """
    if skipped and form == "long":
        raise click.UsageError("--long is a table of photos: use --json with --skipped, or neither.")
    if skipped and incomplete:
        raise click.UsageError("--skipped and --incomplete list different files: choose one.")
    absent = where_it_applies("absent", absent, False, applies=missing)
    if absent and not missing:
        raise click.UsageError("--absent goes with --missing.")
    root = None if folder is None else absolute_path(folder)
    with open_for_reading(gallery_paths, skip_missing=skip_missing) as gallery:

        def list_rows() -> Iterator[_Row | AbsentFolder]:
            rows: Iterator[_Row]
            if skipped:
                rows = list_skipped_files(gallery, root, missing=missing)
            elif form in (None, "null") and not incomplete:
                rows = list_paths(gallery, root, missing=missing)
            else:
                rows = list_photo_files(gallery, root, missing=missing, incomplete=incomplete)
            if not missing or absent:
                return rows
            return without_absent(gallery, rows, lambda row: row.path, root)

        if skip_missing and isinstance(gallery, GalleryUnion):
            # What is printed cannot be taken back, and a gallery that is left out changes what others show.
            without_damaged(gallery, lambda: deque(list_rows(), maxlen=0), skip_missing=True)
        _print(_leave_out_absent(list_rows()), form, incomplete)


_Row: TypeAlias = ListedFile | SkippedFile | KnownFile


def _leave_out_absent(
    rows: Iterable[_Row | AbsentFolder],
) -> Iterator[_Row]:
    """Yield the files, and say which folders are absent."""
    for item in rows:
        if isinstance(item, AbsentFolder):
            say(f"left out {describe_absent(item)}; mount its volume, or list them with --absent")
        else:
            yield item


def _print(rows: Iterable[_Row], form: str | None, incomplete: bool) -> None:
    """Write the rows one by one.

    Args:
        form: "long", "json", "jsonl", "null", or None for paths.
        incomplete: say behind a photo's path what is missing of it.
    """
    write = sys.stdout.write
    match form:
        case "json":
            before = "["
            for row in rows:
                write(f"{before}{to_json(row)}")
                before = ",\n"
            write("[]\n" if before == "[" else "]\n")
        case "jsonl":
            for row in rows:
                write(f"{to_json(row)}\n")
        case "long":
            _print_table(rows)
        case _:
            for row in rows:
                reason = row.reason if isinstance(row, SkippedFile) else ""
                if incomplete and isinstance(row, ListedFile):
                    reason = describe_notes(row.notes)
                after = f"\t{printable(reason)}" if reason and not form else ""
                write_path(row.path, null=form == "null", after=after.encode())


def _print_table(rows: Iterable[_Row]) -> None:
    write = sys.stdout.write
    write(
        f"{'id':>7}  {'size':>11}  {'regions':>7}  {'taken':<19}  {'camera':<{CAMERA_WIDTH}}  "
        f"{'position':<18}  {'rating':<8}  {'keywords':<{KEYWORDS_WIDTH}}  path\n"
    )
    for row in rows:
        assert isinstance(row, ListedFile)
        size = f"{row.width}x{row.height}"
        camera = printable(row.camera or "-")[:CAMERA_WIDTH]
        keywords = printable(", ".join(row.keywords) or "-")[:KEYWORDS_WIDTH]
        position = describe_position(row.latitude, row.longitude)
        write(
            f"{row.id:>7}  {size:>11}  {row.regions:>7}  {printable(row.taken_at or '-'):<19}  "
            f"{camera:<{CAMERA_WIDTH}}  {position:<18}  {describe_rating(row.rating):<8}  "
            f"{keywords:<{KEYWORDS_WIDTH}}  {printable(str(row.path))}\n"
        )
