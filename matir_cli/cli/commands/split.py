"""`matir split`: divide a gallery among several new ones."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import click

from matir_cli.cli.boundary import say
from matir_cli.cli.options.common import PathName, gallery_option, null_option
from matir_cli.cli.options.progress import progress_option
from matir_cli.cli.path_lists import write_path
from matir_cli.cli.progress import show_progress
from matir_cli.cli.text import count_of
from matir_cli.gallery.read_only import open_read_only
from matir_cli.maintenance.split import SplitKey, split_gallery


@click.command(short_help="Divide the gallery among several new ones.")
@click.argument("folder", type=PathName(file_okay=False))
@gallery_option
@progress_option
@click.option(
    "--into", "count", type=click.IntRange(1, 1000), required=True, metavar="N", help="Number of galleries."
)
@click.option(
    "--by",
    "key",
    type=click.Choice(get_args(SplitKey)),
    default="order",
    show_default=True,
    help="Which photos stay together: those added one after the other, taken one after the other, or in "
    "the same folder.",
)
@click.option("--force", is_flag=True, help="Replace galleries in FOLDER that have the same names.")
@null_option("End each path with NUL instead of a newline.")
def split(folder: Path, gallery_path: Path, count: int, key: SplitKey, force: bool, null: bool) -> None:
    """Divide the photos of the gallery among N new galleries of about the same size in FOLDER, and
    print their paths.

    The photos keep their regions, vectors, previews, metadata, corrections and verdicts; every
    gallery gets the saved searches. `matir find --db FOLDER` searches them as one, and `matir merge`
    makes one of them again, with the same answers. The gallery is not changed. The new ones get
    their names when all are complete: after an interruption there is none, and the command can be run
    again (if it was killed just when they got their names, with --force). FOLDER must hold no other
    galleries.

    --by folder keeps the photos of a folder together, so the galleries may differ in size. A gallery
    that would be empty is not written.

    \b
    Exit code: 0 done, 2 an error, 130 interrupted.

    \b
    Examples:
      matir split --into 4 shards/
      matir split --into 10 --by date years/ && matir find "a dog" --db years/
    """
    with open_read_only(gallery_path) as source:
        parts = split_gallery(source, folder, count, key, force=force, progress=show_progress)
    for part in parts:
        write_path(part.path, null=null)
    photos = count_of(sum(part.photos for part in parts), "photo")
    say(f"{photos} in {count_of(len(parts), 'gallery', 'galleries')}")
