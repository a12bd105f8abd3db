"""`matir merge`."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import click

from matir_cli.cli.boundary import say
from matir_cli.cli.options.common import gallery_option
from matir_cli.cli.path_lists import write_path
from matir_cli.cli.progress import progress_bar
from matir_cli.gallery.database import GalleryFile
from matir_cli.gallery.read_only import open_read_only
from matir_cli.maintenance.merge import Combined, LeftOut, Outcome, TakenOver, merge_gallery
from matir_cli.maintenance.merge_source import check_mergeable


@click.command(short_help="Take over another gallery's photos.")
@click.argument("other", type=click.Path(path_type=Path))
@gallery_option
@click.option("--dry-run", is_flag=True, help="Only print the photos that would be taken over.")
@click.option("-0", "--null", is_flag=True, help="With --dry-run: end each path by NUL, not a newline.")
def merge(other: Path, gallery_path: Path, dry_run: bool, null: bool) -> None:
    """Take over the photos of the gallery OTHER, with their regions, vectors, previews and verdicts.

    Nothing is indexed again, so both must have been made with the same models. OTHER is only
    read. A photo that is here already (the same bytes) is not doubled: its files and verdicts
    are united. Where both know one file with different contents, the one that is on disk now
    counts, else this gallery's. Interrupted, it goes on when it is run again. A gallery that
    does not exist is made.

    \b
    Exit code: 0 done, 2 an error, 130 interrupted.

    \b
    Examples:
      matir merge /media/laptop/gallery.db
      matir merge other.db --dry-run -0 | xargs -0 ls -l
      matir merge a.db --db all.db && matir merge b.db --db all.db
    """
    counts: Counter[type[Outcome]] = Counter()
    with open_read_only(other) as theirs:
        check_mergeable(gallery_path, theirs)
        total = theirs.count_photos()
        with GalleryFile.open(gallery_path, create=not dry_run) as gallery, progress_bar(total) as bar:
            for outcome in merge_gallery(gallery, theirs, dry_run=dry_run):
                counts[type(outcome)] += 1
                bar.advance()
                if dry_run and isinstance(outcome, TakenOver):
                    write_path(outcome.path, b"\0" if null else b"\n")
    say(_summary(counts, "would be taken over" if dry_run else "taken over"))


def _summary(counts: Counter[type[Outcome]], done: str) -> str:
    text = f"{counts[TakenOver]} {done}, {counts[Combined]} here already"
    left_out = counts[LeftOut]
    return f"{text}, {left_out} left out: their files hold something else by now" if left_out else text
