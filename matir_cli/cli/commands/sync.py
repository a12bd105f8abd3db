"""`matir sync`: update the gallery to the current content of folders."""

from __future__ import annotations

from collections import Counter
from collections.abc import Generator, Iterable, Sequence
from pathlib import Path

import click

from matir_cli.cli.boundary import say
from matir_cli.cli.exit_codes import DONE, SKIPPED
from matir_cli.cli.indexing import open_for_indexing, open_or_empty, run_with_progress, say_passed_over
from matir_cli.cli.options.cluster import ray_options
from matir_cli.cli.options.common import (
    PathName,
    device_option,
    gallery_option,
    models_option,
    null_option,
    verbose_option,
)
from matir_cli.cli.options.decoding import decode_timeout_option
from matir_cli.cli.options.excluding import folder_options
from matir_cli.cli.options.progress import progress_option
from matir_cli.cli.path_lists import write_path
from matir_cli.cli.progress import shows_progress
from matir_cli.cli.text import count_of, describe_absent
from matir_cli.cli.watching import watch_folders
from matir_cli.cluster.options import RayOptions
from matir_cli.errors import FolderVanished
from matir_cli.gallery.absence import AbsentFolder, remember_absent
from matir_cli.indexing.file_state import FileCounts
from matir_cli.indexing.outcomes import Added, Linked, Refreshed, Skipped, Unchanged
from matir_cli.indexing.sync import (
    ChangeKind,
    Dropped,
    FileChange,
    SyncOutcome,
    check_folders,
    folder_roots,
    list_changes,
    sync_folders,
)
from matir_cli.photos.discover import FolderRules


@click.command(short_help="Update the gallery to the current content of folders.")
@click.argument("paths", nargs=-1, required=True, type=PathName())
@gallery_option
@models_option
@device_option
@decode_timeout_option
@progress_option
@verbose_option
@folder_options
@ray_options
@click.option("--no-previews", is_flag=True, help="Do not store the working-size JPEG of each photo.")
@click.option(
    "--drop-all",
    is_flag=True,
    help="Drop the photos of a folder even if none of its files exists any longer.",
)
@click.option(
    "--metadata",
    "fill_metadata",
    is_flag=True,
    help="Read the ratings and keywords of files that were added by versions that did not.",
)
@click.option("--dry-run", is_flag=True, help="Only print what would be done.")
@click.option("--watch", is_flag=True, help="Go on and follow changes until Ctrl-C; needs the extra watch.")
@null_option("With --dry-run: end each line with NUL instead of a newline.")
@click.pass_context
def sync(
    context: click.Context,
    paths: tuple[Path, ...],
    gallery_path: Path,
    model_set: str | None,
    device: str,
    rules: FolderRules,
    no_previews: bool,
    drop_all: bool,
    fill_metadata: bool,
    dry_run: bool,
    watch: bool,
    null: bool,
    ray: RayOptions | None,
) -> None:
    """Add new photos, update changed ones, and drop those whose files are missing below PATH.

    Nothing outside the PATHs is dropped, and no file on disk is touched. A renamed file is
    recognised and not indexed again. A file that cannot be accessed, for lack of a permission or
    a network, does not count as missing.

    If none of the known files below a PATH exists any longer, it is refused, since its volume may
    not be mounted. A folder inside it that has lost all of its files, two or more, is named and
    kept, and so is one that became a link to nothing. --drop-all confirms that they are gone.

    What --exclude or a file .matirignore in a folder leaves out (patterns as in .gitignore,
    relative to the folder) is neither added nor updated. If it is in the gallery already it stays
    there as long as its file exists; `matir rm` removes it.

    A file whose sidecar is new, has changed or has gone gets its ratings and keywords read again,
    without being indexed again. --metadata reads those of all files of which they have not been
    read.

    --dry-run prints a mark, a space and the file: + new, ~ changed, - missing, * with another
    sidecar. It compares names, sizes and times only, so a renamed file is shown as both new and
    missing. Folders that it would keep, and files that it would skip, or try again because they
    could not be read before, are reported on standard error.

    With --ray, workers on a cluster index new photos, as in `matir add`.

    --watch then keeps the gallery up to date while files change, and prints a mark and the file
    for each: + added or updated, * with another sidecar, - dropped. The models stay loaded. Ctrl-C
    ends it.

    \b
    Exit code: 0 done, 2 an error, 3 done but some files were skipped or folders kept,
    130 interrupted.

    \b
    Examples:
      matir sync ~/Photos
      matir sync ~/Photos --dry-run | grep '^-'
      matir sync /media/archive --drop-all
      matir sync ~/Photos --watch
    """
    if watch and dry_run:
        raise click.UsageError("--watch and --dry-run contradict each other: use only one of them.")
    roots = folder_roots(paths)
    with open_or_empty(gallery_path) as gallery:
        try:
            check_folders(gallery, roots, drop_all=drop_all)
        except FolderVanished as error:
            # Files of another volume may be added there before the next run.
            if error.count and not dry_run and not gallery.connection.readonly("main"):
                remember_absent(gallery, [error.path])
            raise
        if dry_run:
            passed_over = Counter[str]()
            changes = list_changes(
                gallery, roots, passed_over, drop_all=drop_all, rules=rules, fill_metadata=fill_metadata
            )
            _print_changes(changes, passed_over, null=null)
            return
    expected = FileCounts() if shows_progress() else None
    passed_over = Counter[str]()
    with open_for_indexing(gallery_path, model_set, device, ray) as (gallery, models):
        if watch:

            def sync_again(changed: Sequence[Path]) -> Generator[SyncOutcome, None, None]:
                check_folders(gallery, changed, drop_all=drop_all)
                yield from sync_folders(
                    gallery,
                    changed,
                    models,
                    previews=not no_previews,
                    drop_all=drop_all,
                    rules=rules,
                    fill_metadata=fill_metadata,
                )

            watch_folders(roots, gallery_path, sync_again)
        outcomes = sync_folders(
            gallery,
            roots,
            models,
            previews=not no_previews,
            drop_all=drop_all,
            passed_over=passed_over,
            rules=rules,
            fill_metadata=fill_metadata,
            expected=expected,
        )
        counts = run_with_progress(outcomes, expected, _summary)
    say_passed_over(passed_over)
    say(_summary(counts))
    if counts[AbsentFolder]:
        say(_KEPT.format(count_of(counts[AbsentFolder], "folder"), "kept"))
    context.exit(SKIPPED if counts[Skipped] or counts[AbsentFolder] else DONE)


_KEPT = "{} {}: mount the volume, or use --drop-all if the files were moved or deleted for good"


def _print_changes(changes: Iterable[FileChange], passed_over: Counter[str], *, null: bool) -> None:
    counts: Counter[ChangeKind] = Counter()
    for change in changes:
        counts[change.mark] += 1
        if change.mark is ChangeKind.UNREADABLE:
            say(f"would skip {change.path}: {change.reason}")
        elif change.mark is ChangeKind.RETRIED:
            say(f"would try again {change.path}: {change.reason}")
        elif change.mark is ChangeKind.KEPT:
            assert change.absent is not None
            say(f"would keep {describe_absent(change.absent)}")
        else:
            write_path(change.path, null=null, before=change.mark.value.encode() + b" ")
    say_passed_over(passed_over)
    retried = f", {counts[ChangeKind.RETRIED]} to try again" if counts[ChangeKind.RETRIED] else ""
    new, changed, missing = (counts[kind] for kind in (ChangeKind.NEW, ChangeKind.CHANGED, ChangeKind.GONE))
    sidecars = f", {counts[ChangeKind.METADATA]} with other metadata" if counts[ChangeKind.METADATA] else ""
    say(f"{new} new, {changed} changed, {missing} missing{sidecars}{retried}; nothing was done")
    if counts[ChangeKind.KEPT]:
        say(_KEPT.format(count_of(counts[ChangeKind.KEPT], "folder"), "would be kept"))


def _summary(counts: Counter[type[SyncOutcome]]) -> str:
    refreshed = f"{counts[Refreshed]} with new metadata, " if counts[Refreshed] else ""
    return (
        f"{counts[Added]} added or updated, {counts[Linked]} recognised, "
        f"{counts[Dropped]} dropped, {refreshed}{counts[Unchanged]} unchanged, "
        f"{counts[Skipped]} skipped"
    )
