"""`matir rm`: take photos out of the gallery."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import click

from matir_cli.cli.boundary import explain, say
from matir_cli.cli.exit_codes import NOTHING_FOUND, SKIPPED
from matir_cli.cli.options.common import PathName, gallery_option, null_option
from matir_cli.cli.path_lists import expand_names, write_path
from matir_cli.cli.text import count_of, describe_absent
from matir_cli.errors import PhotoUnknown
from matir_cli.gallery.absence import AbsentFolder, still_missing
from matir_cli.gallery.database import GalleryFile
from matir_cli.gallery.files import forget_files
from matir_cli.maintenance.remove import files_below, files_of_photo, missing_below
from matir_cli.photos.discover import absolute_path
from matir_cli.search.index import seal_index


@click.command(short_help="Take photos out of the gallery; files on disk are not touched.")
@click.argument("names", nargs=-1, metavar="[PATH|ID]...")
@gallery_option
@click.option(
    "--in",
    "folders",
    multiple=True,
    type=PathName(),
    metavar="PATH",
    help="Forget all files at or below PATH.",
)
@click.option("--missing", is_flag=True, help="Forget files that no longer exist: all, or those --in PATH.")
@click.option(
    "--drop-all",
    is_flag=True,
    help="With --missing: also the files of folders of which no known file is left.",
)
@click.option(
    "--all-copies", is_flag=True, help="For each PATH, forget every file that holds the same photo."
)
@click.option("--dry-run", is_flag=True, help="Only print the files that would be forgotten.")
@null_option("With --dry-run: end each path with NUL instead of a newline.")
@click.pass_context
def rm(
    context: click.Context,
    names: tuple[str, ...],
    gallery_path: Path,
    folders: tuple[Path, ...],
    missing: bool,
    drop_all: bool,
    all_copies: bool,
    dry_run: bool,
    null: bool,
) -> None:
    """Take files and photos out of the gallery. The files on disk are not touched.

    A PATH forgets that file, and its photo if no other file holds it; with a JPEG or HEIC also the
    raw file beside it. An ID forgets the photo with all its files. A number is an ID; write ./12
    for a file whose name is a number. With -, names are read from standard input, one per line or
    separated by NUL. Files that could not be indexed can be forgotten as well. `matir add` adds
    them all again.

    --missing forgets deleted files. A folder that has lost all of its known files, two or more,
    is named and kept, since its volume may not be mounted; --drop-all confirms that they are gone.

    \b
    Exit code: 0 done, 1 none of them is in the gallery, 2 an error,
    3 done but some of them are not in the gallery or folders were kept, 130 interrupted.

    \b
    Examples:
      matir rm ~/Photos/blurred.jpg 4711
      matir rm --in ~/Photos/screenshots
      matir find "a receipt" --no-rerank --min-score 0.3 -0 | matir rm - --dry-run
      matir rm --missing --in ~/Photos
    """
    if "" in names:
        raise click.UsageError("A name is empty: give a file, an id or -.")
    if not names and not folders and not missing:
        raise click.UsageError("Give a file, an id, -, --in PATH or --missing.")
    if names and missing:
        raise click.UsageError("--missing chooses the files itself: give no names, only --in PATH.")
    if drop_all and not missing:
        raise click.UsageError("--drop-all goes with --missing.")
    with GalleryFile.open(gallery_path) as gallery:
        before = gallery.count_photos()
        files = (
            _MissingFiles(gallery, folders, drop_all)
            if missing
            else _NamedFiles(gallery, names, folders, all_copies)
        )
        count = 0
        for path in files if dry_run else forget_files(gallery, files, files.confirm):
            count += 1
            if dry_run:
                write_path(path, null=null)
        if count and not dry_run:
            seal_index(gallery)
        if not dry_run:
            photos = count_of(before - gallery.count_photos(), "photo")
            say(f"{count_of(count, 'file')} and {photos} forgotten")
    if files.problems:
        context.exit(SKIPPED if count or missing else NOTHING_FOUND)


class _MissingFiles:
    """The files to forget because they were deleted; absent folders are reported and counted."""

    def __init__(self, gallery: GalleryFile, folders: tuple[Path, ...], drop_all: bool) -> None:
        self.problems = 0
        """Number of absent folders."""
        self._gallery = gallery
        self._folders = folders
        self._drop_all = drop_all

    def confirm(self, batch: Sequence[Path]) -> Sequence[Path]:
        """Return those of the files that are still missing, in the transaction that forgets them."""
        roots = [absolute_path(folder) for folder in self._folders or (Path(os.sep),)]
        return still_missing(self._gallery, roots, all_files=self._drop_all)(batch)

    def __iter__(self) -> Iterator[Path]:
        for folder in map(absolute_path, self._folders) if self._folders else (None,):
            for item in missing_below(self._gallery, folder, drop_all=self._drop_all):
                if isinstance(item, AbsentFolder):
                    self.problems += 1
                    say(f"kept {describe_absent(item)}; mount its volume, or use --drop-all")
                else:
                    yield item


class _NamedFiles:
    """The files to forget by name; unknown names are reported and counted."""

    def __init__(
        self, gallery: GalleryFile, names: tuple[str, ...], folders: tuple[Path, ...], all_copies: bool
    ) -> None:
        self.problems = 0
        """Number of unknown names."""
        self._gallery = gallery
        self._names = names
        self._folders = folders
        self._all_copies = all_copies

    def confirm(self, batch: Sequence[Path]) -> Sequence[Path]:
        """Return all of the files: they were named."""
        return batch

    def __iter__(self) -> Iterator[Path]:
        for name in expand_names(self._names, self._knows):
            with self._reporting():
                yield from files_of_photo(self._gallery, name, all_copies=self._all_copies)
        for folder in self._folders:
            with self._reporting():
                yield from files_below(self._gallery, absolute_path(folder))

    def _knows(self, name: str) -> bool:
        """Return True if the gallery knows a file or photo of this name."""
        try:
            files_of_photo(self._gallery, name, all_copies=False)
        except PhotoUnknown:
            return False
        return True

    @contextmanager
    def _reporting(self) -> Iterator[None]:
        """Report and count a name that the gallery does not know, and go on."""
        try:
            yield
        except PhotoUnknown as error:
            self.problems += 1
            problem, _ = explain(error)
            say(problem)
