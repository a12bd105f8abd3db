"""`matir merge`: copy another gallery's photos into this one."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import click

from matir_cli.cli.boundary import say
from matir_cli.cli.options.common import PathName, gallery_option, null_option
from matir_cli.cli.options.progress import progress_option
from matir_cli.cli.path_lists import write_path
from matir_cli.cli.progress import progress_bar
from matir_cli.gallery.database import GalleryFile
from matir_cli.gallery.read_only import open_read_only
from matir_cli.maintenance.merge import Combined, Joined, LeftOut, Outcome, TakenOver, merge_gallery
from matir_cli.maintenance.merge_saved import merge_saved_searches
from matir_cli.maintenance.merge_source import check_mergeable


@click.command(short_help="Copy another gallery's photos into this one.")
@click.argument("other", type=PathName())
@gallery_option
@progress_option
@click.option("--dry-run", is_flag=True, help="Only print the photos that would be copied.")
@null_option("With --dry-run: end each path with NUL instead of a newline.")
def merge(other: Path, gallery_path: Path, dry_run: bool, null: bool) -> None:
    """Copy the photos of the gallery OTHER, with their regions, vectors, previews and verdicts.

    Nothing is indexed again, so both galleries must have been created with the same models.
    OTHER is not changed. Photos already present (the same bytes) are not duplicated; their files
    and verdicts are combined. If the galleries disagree about the content of a file, the file on
    disk decides, or else this gallery. Saved searches are copied with the photos that they have
    returned; of two different ones of one name, this gallery's stays. An interrupted merge
    continues when it is run again. If the gallery does not exist, it is created.

    \b
    Exit code: 0 done, 2 an error, 130 interrupted.

    \b
    Examples:
      matir merge /media/laptop/gallery.db
      matir merge other.db --dry-run -0 | xargs -0 ls -l
      matir merge a.db --db all.db && matir merge b.db --db all.db
    """
    counts: Counter[type[Outcome]] = Counter()
    with open_read_only(other) as source:
        check_mergeable(gallery_path, source)
        total = source.count_photos()
        with GalleryFile.open(gallery_path, create=not dry_run) as gallery, progress_bar(total) as bar:
            for outcome in merge_gallery(gallery, source, dry_run=dry_run):
                counts[type(outcome)] += 1
                bar.advance()
                if dry_run and isinstance(outcome, TakenOver):
                    write_path(outcome.path, null=null)
            clashes = merge_saved_searches(gallery, source, dry_run=dry_run)
    for name in clashes:
        say(f"the saved search {name} is another one here, and stays as it is")
    say(_summary(counts, "would be copied" if dry_run else "copied"))


def _summary(counts: Counter[type[Outcome]], done: str) -> str:
    text = f"{counts[TakenOver]} {done}, {counts[Combined] + counts[Joined]} already present"
    left_out = counts[LeftOut]
    return f"{text}, {left_out} left out: their files have changed since" if left_out else text
