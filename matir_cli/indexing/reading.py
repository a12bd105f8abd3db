"""Stage 1 of indexing: files are found, compared with the gallery, hashed and decoded."""

from __future__ import annotations

from collections import Counter
from collections.abc import Generator, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from matir_cli.errors import PhotoUnreadable
from matir_cli.gallery.absence import WAS_ABSENT
from matir_cli.gallery.database import GalleryFile
from matir_cli.gallery.files import skip_reason
from matir_cli.indexing.file_state import FileCounts, FileState
from matir_cli.indexing.in_progress import (
    FileNote,
    KnownFile,
    NewFile,
    RawBeside,
    RefreshedFile,
    RefusedFile,
)
from matir_cli.indexing.outcomes import Skipped, Unchanged
from matir_cli.indexing.packed_paths import PackedPaths
from matir_cli.indexing.steps import decode_new_file, describe_photo, refuse
from matir_cli.photos.decode import DecodedPhoto, start_decoder
from matir_cli.photos.discover import ALL_FILES, FolderRules, find_photo_files, hash_file, stat_file
from matir_cli.records import FileRecord


@dataclass(frozen=True, slots=True)
class ReadingOptions:
    """Settings of stage 1; those without an explanation are arguments of `pipeline.add_photos`."""

    gallery: Path
    passed_over: Counter[str] | None
    rules: FolderRules
    fill_metadata: bool
    expected: FileCounts | None
    pictures_first: bool = True
    """The pictures beside raw files may be among the files still to come: they are waited for."""
    decodes_here: bool = True
    """New photos are decoded by this process."""


def pending_files(
    gallery: GalleryFile,
    paths: Iterable[Path],
    passed_over: Counter[str] | None = None,
    rules: FolderRules = ALL_FILES,
    *,
    fill_metadata: bool = False,
) -> Iterator[Path | Skipped]:
    """Yield the files that `pipeline.add_photos` would read: new, changed, and those with another sidecar.

    Those that cannot be accessed are yielded, too. Arguments as there and in `find_photo_files`.
    """
    state = FileState(gallery, fill_metadata=fill_metadata)
    for path in find_photo_files(paths, passed_over, rules=rules):
        try:
            if not state.is_current(stat_file(path)) or state.is_metadata_due(path):
                yield path
        except PhotoUnreadable as error:
            yield Skipped(path, error.reason)


def find_new_files(
    options: ReadingOptions, paths: Iterable[Path], in_progress: set[bytes], listed_again: list[Path]
) -> Generator[NewFile | FileNote, None, None]:
    """Run the first half of stage 1, on a connection of its own: find and hash files not indexed yet.

    Args:
        in_progress: SHA-256 of the photos between this stage and the last one; extended here.
        listed_again: extended by the folders that could not be listed before.
    """
    with GalleryFile.open(options.gallery) as known:
        state = FileState(known, fill_metadata=options.fill_metadata)

        def note_listed(folder: Path) -> None:
            if skip_reason(known, folder) not in (None, WAS_ABSENT):
                listed_again.append(folder)

        found: Iterable[Path] = find_photo_files(paths, options.passed_over, note_listed, options.rules)
        if options.expected is not None:
            due = PackedPaths()
            yield from _pass_settled(state, found, options.expected, due)
            found, state = due, FileState(known, fill_metadata=options.fill_metadata)
        for path in found:
            file = None
            try:
                file = stat_file(path)
                if (note := _note(state, file, pictures_first=options.pictures_first)) is not None:
                    yield note
                    continue
                if options.decodes_here:
                    start_decoder()  # it takes a moment, in which the file is hashed
                digest = hash_file(file)
            except PhotoUnreadable as error:
                yield refuse(path, file, error)
                continue
            if digest in in_progress or known.photo_with(digest) is not None:
                yield KnownFile(file, digest, state.describe(path))
                continue
            in_progress.add(digest)
            yield NewFile(file, digest, state.sidecar(path))


def decode_photos(
    items: Iterable[NewFile | FileNote], in_progress: set[bytes]
) -> Generator[DecodedPhoto | FileNote, None, None]:
    """Run the second half of stage 1. A copy of a file that cannot be decoded is tried for itself."""
    for item in items:
        if not isinstance(item, NewFile):
            yield item
            continue
        decoded = decode_new_file(item)
        if isinstance(decoded, RefusedFile):
            in_progress.discard(item.sha256)
            yield decoded
        else:
            yield describe_photo(decoded, item.sidecar)


def _pass_settled(
    state: FileState, found: Iterable[Path], expected: FileCounts, due: PackedPaths
) -> Iterator[FileNote]:
    """Yield what there is to do for files that need not be read, add the others to `due`, and count both."""
    settled = 0
    for path in found:
        try:
            note = _settled_note(state, stat_file(path), pictures_first=True)
        except PhotoUnreadable:
            note = None
        if note is None:
            due.append(path)
        else:
            settled += 1
            yield note
    expected.pending, expected.total = len(due), settled + len(due)


def _settled_note(state: FileState, file: FileRecord, *, pictures_first: bool) -> FileNote | None:
    """Return what there is to do for a file that need not be read; None if it must be."""
    if not state.is_current(file) or state.is_metadata_due(file.path):
        return None
    if not state.is_beside(file.path, pictures_first=pictures_first):
        return Unchanged(file.path)
    return RawBeside(file, None) if state.shares_photo(file.path) else None


def _note(state: FileState, file: FileRecord, *, pictures_first: bool) -> FileNote | None:
    """Return what there is to do for a file without decoding it; None if it must be decoded."""
    settled = _settled_note(state, file, pictures_first=pictures_first)
    if settled is not None:
        return settled
    if state.is_beside(file.path, pictures_first=pictures_first):
        return RawBeside(file, state.describe(file.path))
    return RefreshedFile(file, state.describe(file.path)) if state.is_current(file) else None
