"""`matir compact`: give unused space back."""

from __future__ import annotations

from pathlib import Path

import click

from matir_cli.cli.boundary import say
from matir_cli.cli.options.common import gallery_option
from matir_cli.cli.options.progress import progress_option
from matir_cli.cli.progress import show_progress
from matir_cli.cli.text import readable_size
from matir_cli.gallery.database import GalleryFile
from matir_cli.maintenance.compact import compact_gallery


@click.command(short_help="Give unused space back and rebuild the search index.")
@gallery_option
@progress_option
@click.option(
    "--drop-previews",
    is_flag=True,
    help="Delete the stored JPEGs, most of a gallery's size; judging then reads the original files.",
)
@click.option("--forget-verdicts", is_flag=True, help="Delete all verdicts of judges; people's answers stay.")
def compact(gallery_path: Path, drop_previews: bool, forget_verdicts: bool) -> None:
    """Rewrite the gallery without the space that deleted photos left, and rebuild its search index.

    Searches give the same results as before. While it runs, it needs free disk space of up to twice
    the gallery's size, and other commands wait. An interruption leaves the gallery intact.

    \b
    Exit code: 0 done, 2 an error, 130 interrupted.

    \b
    Examples:
      matir compact
      matir compact --drop-previews --db ~/archive.db
    """
    with GalleryFile.open(gallery_path) as gallery:
        sizes = compact_gallery(
            gallery, drop_previews=drop_previews, forget_verdicts=forget_verdicts, progress=show_progress
        )
    say(f"{readable_size(sizes.before)} before, {readable_size(sizes.after)} after")
