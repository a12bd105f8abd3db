"""`matir sync`."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import click

from matir_cli import add as pipeline
from matir_cli import photos
from matir_cli.cli import boundary, indexing
from matir_cli.cli.boundary import say
from matir_cli.cli.common import device_option, gallery_option, models_option, verbose_option
from matir_cli.cli.path_lists import write_path
from matir_cli.gallery import GalleryFile
from matir_cli.upkeep import sync as syncing
from matir_cli.upkeep.sync import Mark


@click.command(short_help="Bring the gallery to what folders hold now.")
@click.argument("paths", nargs=-1, required=True, type=click.Path(path_type=Path))
@gallery_option
@models_option
@device_option
@verbose_option
@click.option("--no-previews", is_flag=True, help="Do not store the working-size JPEG of each photo.")
@click.option(
    "--drop-all",
    is_flag=True,
    help="Drop the photos of a PATH even if none of its files is there any more.",
)
@click.option("--dry-run", is_flag=True, help="Only print what would be done.")
@click.option("-0", "--null", is_flag=True, help="With --dry-run: end each line by NUL, not a newline.")
@click.pass_context
def sync(
    context: click.Context,
    paths: tuple[Path, ...],
    gallery_path: Path,
    model_set: str | None,
    device: str,
    no_previews: bool,
    drop_all: bool,
    dry_run: bool,
    null: bool,
) -> None:
    """Add new photos, update changed ones, and drop those whose files are gone below PATH.

    Nothing outside the PATHs is dropped, and no file on disk is touched. A renamed file is
    recognised and not indexed again. A PATH of which no known file is there any more is
    refused, since its volume may not be mounted; --drop-all says that they are gone for good.
    A file that cannot be looked at, for want of a permission or of a network, is not gone.

    --dry-run prints a mark, a blank and the file: + new, ~ changed, - gone. It tells files
    by name, size and time alone, so a renamed one is both new and gone to it. Files that it
    would skip or try again, as they could not be read before, are said on standard error.

    \b
    Exit code: 0 done, 2 an error, 3 done but some files were skipped, 130 interrupted.

    \b
    Examples:
      matir sync ~/Photos
      matir sync ~/Photos --dry-run | grep '^-'
      matir sync /media/archive --drop-all
    """
    within = syncing.roots(paths)
    with indexing.opened_or_empty(gallery_path) as gallery:
        syncing.check(gallery, within, drop_all=drop_all)
        if dry_run:
            _print_changes(gallery, within, b"\0" if null else b"\n")
            return
        total = _count(gallery, within)
    passed_over = Counter[str]()
    with indexing.opened(gallery_path, model_set, device) as (gallery, models):
        outcomes = syncing.sync(gallery, within, models, previews=not no_previews, passed_over=passed_over)
        counts = indexing.watch(outcomes, total, _summary)
    indexing.say_passed_over(passed_over)
    say(_summary(counts))
    context.exit(boundary.SKIPPED if counts[pipeline.Skipped] else 0)


def _count(gallery: GalleryFile, within: Sequence[Path]) -> int | None:
    """How many outcomes there will be, for the time left; only where somebody watches."""
    if not sys.stderr.isatty():
        return None
    return sum(1 for _ in photos.find_files(within)) + sum(1 for _ in syncing.gone(gallery, within))


def _print_changes(gallery: GalleryFile, within: Sequence[Path], end: bytes) -> None:
    counts: Counter[Mark] = Counter()
    passed_over = Counter[str]()
    for change in syncing.changes(gallery, within, passed_over):
        counts[change.mark] += 1
        if change.mark is Mark.UNREADABLE:
            say(f"would skip {change.path}: {change.reason}")
        elif change.mark is Mark.RETRIED:
            say(f"would try again {change.path}: {change.reason}")
        else:
            write_path(change.path, end, before=change.mark.value.encode() + b" ")
    indexing.say_passed_over(passed_over)
    again = f", {counts[Mark.RETRIED]} to try again" if counts[Mark.RETRIED] else ""
    done = f"{counts[Mark.NEW]} new, {counts[Mark.CHANGED]} changed, {counts[Mark.GONE]} gone{again}"
    say(f"{done}; nothing was done")


def _summary(counts: Counter[type[syncing.Outcome]]) -> str:
    return (
        f"{counts[pipeline.Added]} added or updated, {counts[pipeline.Linked]} recognised, "
        f"{counts[syncing.Dropped]} dropped, {counts[pipeline.Unchanged]} unchanged, "
        f"{counts[pipeline.Skipped]} skipped"
    )
