"""`matir add`: index photos."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import click

from matir_cli.atomic_write import STREAM
from matir_cli.cli.boundary import say
from matir_cli.cli.exit_codes import DONE, SKIPPED
from matir_cli.cli.indexing import open_for_indexing, open_or_empty, run_with_progress, say_passed_over
from matir_cli.cli.options.common import (
    PathName,
    device_option,
    gallery_option,
    models_option,
    verbose_option,
)
from matir_cli.cli.options.decoding import decode_timeout_option
from matir_cli.cli.options.excluding import folder_options
from matir_cli.cli.options.progress import progress_option
from matir_cli.cli.path_lists import expand_paths, write_path
from matir_cli.cli.progress import shows_progress
from matir_cli.indexing.pipeline import Added, Linked, Outcome, Skipped, Unchanged, add_photos, pending_files
from matir_cli.photos.discover import FolderRules, find_photo_files


@click.command(short_help="Index photos.")
@click.argument("paths", nargs=-1, required=True, type=PathName(allow_dash=True))
@gallery_option
@models_option
@device_option
@decode_timeout_option
@progress_option
@verbose_option
@folder_options
@click.option("--no-previews", is_flag=True, help="Do not store the working-size JPEG of each photo.")
@click.option("--allow-root", is_flag=True, help="Let the list name the root of the file system.")
@click.option("--dry-run", is_flag=True, help="Only print the files that would be read.")
@click.pass_context
def add(
    context: click.Context,
    paths: tuple[Path, ...],
    gallery_path: Path,
    model_set: str | None,
    device: str,
    rules: FolderRules,
    no_previews: bool,
    allow_root: bool,
    dry_run: bool,
) -> None:
    """Index photos: files, folders (recursively), or - for a list of paths on standard input.

    The list has one path per line, or paths separated by NUL, as `find -print0` writes them. It is
    bytes or UTF-8; the root of the file system in it is left out unless --allow-root is given.
    Unchanged files are not read again; copies and renamed files are recognised. In folders,
    formats that are not read are passed over, cameras' raw files (CR2, NEF, DNG, ...) with
    --no-raw, without the extra raw, or beside a JPEG or HEIC of the same name. They are
    counted at the end, and so is what --exclude or a file .matirignore in a folder leaves
    out: patterns as in .gitignore, relative to the folder. A PATH that you name is never left out.

    \b
    Exit code: 0 done, 2 an error, 3 done but some files were skipped, 130 interrupted.

    \b
    Examples:
      matir add ~/Photos
      find . -name '*.jpg' -print0 | matir add -
      matir add ~/Photos --exclude '*.png' --exclude screenshots/
      matir add ~/Photos --dry-run | wc -l
    """
    if dry_run:
        _print_pending(gallery_path, expand_paths(paths, allow_root=allow_root), rules)
        return
    passed_over = Counter[str]()
    with open_for_indexing(gallery_path, model_set, device) as (gallery, models):
        outcomes = add_photos(
            gallery,
            expand_paths(paths, allow_root=allow_root),
            models,
            previews=not no_previews,
            passed_over=passed_over,
            rules=rules,
        )
        counts = run_with_progress(outcomes, _count(paths, rules), _summary)
    say_passed_over(passed_over)
    say(_summary(counts))
    context.exit(SKIPPED if counts[Skipped] else DONE)


def _count(paths: tuple[Path, ...], rules: FolderRules) -> int | None:
    """Count the files, to show the time left; this takes a moment, so only if somebody sees it."""
    if not shows_progress() or STREAM in paths:
        return None
    return sum(1 for _ in find_photo_files(paths, rules=rules))


def _print_pending(gallery_path: Path, paths: Iterable[Path], rules: FolderRules) -> None:
    passed_over = Counter[str]()
    with open_or_empty(gallery_path) as gallery:
        for item in pending_files(gallery, paths, passed_over, rules):
            if isinstance(item, Skipped):
                say(f"would skip {item.path}: {item.reason}")
            else:
                write_path(item, null=False)
    say_passed_over(passed_over)


def _summary(counts: Counter[type[Outcome]]) -> str:
    return (
        f"{counts[Added]} added, {counts[Linked]} recognised, "
        f"{counts[Unchanged]} unchanged, {counts[Skipped]} skipped"
    )
