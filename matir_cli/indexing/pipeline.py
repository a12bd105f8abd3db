"""`matir add`: photo files become regions, vectors and previews in a gallery.

Four stages overlap: reading (stat, hash, decode), proposing, encoding, writing. Each is at most a few
photos ahead of the next, so that memory does not grow with their number. Writing runs in the caller's
thread; no SQLite connection is used by two threads. On a CPU, proposing and encoding take turns in
one thread: each uses all cores, and concurrently they were half as fast.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from functools import cache
from itertools import chain
from pathlib import Path
from typing import Protocol

from matir_cli.engines.protocols import RegionEncoder, RegionProposer
from matir_cli.errors import PhotoUnreadable
from matir_cli.gallery.absence import WAS_ABSENT
from matir_cli.gallery.database import GalleryFile
from matir_cli.gallery.file_metadata import store_metadata
from matir_cli.gallery.files import forget_skipped, remember_inaccessible, skip_reason
from matir_cli.gallery.raw_pairs import shared_photo, shares_photo
from matir_cli.indexing.file_state import FileCounts, FileState
from matir_cli.indexing.in_progress import (
    EncodedPhoto,
    FileNote,
    KnownFile,
    NewFile,
    ProposedPhoto,
    RawBeside,
    RefreshedFile,
    RefusedFile,
)
from matir_cli.indexing.outcomes import Added, Linked, Outcome, Refreshed, Skipped, Unchanged
from matir_cli.indexing.packed_paths import PackedPaths
from matir_cli.indexing.prefetch import prefetch
from matir_cli.indexing.steps import (
    ProposeRegions,
    decode_new_file,
    describe_photo,
    encode_regions,
    propose_all,
    propose_regions,
    refuse,
)
from matir_cli.photos.decode import DecodedPhoto, start_decoder
from matir_cli.photos.discover import ALL_FILES, FolderRules, find_photo_files, hash_file, stat_file
from matir_cli.records import FileRecord
from matir_cli.search.index import seal_index, store_vectors

PREFETCH = 3
"""Number of photos that a stage may be ahead of the next one."""

ATTEMPTS = 3
"""Times that a file is indexed at most, if other processes remove its photo in the meantime."""

SEAL_EVERY = 256
"""Number of photos after which a long run moves loose photos into blocks of the search index."""


class IndexingSession(Protocol):
    """The models of one model set; each is loaded when it is first asked for, once."""

    @property
    def proposer(self) -> RegionProposer:
        """Proposes the regions of a photo."""
        ...

    @property
    def region_encoder(self) -> RegionEncoder:
        """Encodes the regions of a photo."""
        ...

    @property
    def side_by_side(self) -> bool:
        """True if both may run at a time, since they do not compete for the processor's cores."""
        ...


class RemoteStages(Protocol):
    """Decodes, proposes and encodes photos in other processes, on this machine or on others."""

    def __call__(
        self, items: Generator[NewFile | FileNote, None, None], previews: bool
    ) -> Generator[EncodedPhoto | FileNote, None, None]:
        """Yield the photos of the new files, in any order, and pass all else on; closes `items`.

        A `KnownFile` comes after the photo whose bytes it has. Photos are without their pixels.
        """
        ...


@dataclass(frozen=True, slots=True)
class IndexingModels:
    """Loaders of the models that index photos; each is called once, when the first photo needs it."""

    proposer: Callable[[], RegionProposer]
    encoder: Callable[[], RegionEncoder]
    side_by_side: Callable[[], bool] = lambda: False
    """Returns True if both may run at a time, since they do not compete for the processor's cores."""
    remote: RemoteStages | None = None
    """Indexes new photos instead of the two models, which may then be needed for other photos."""

    @classmethod
    def of(cls, session: IndexingSession) -> IndexingModels:
        """Wrap the models of a session; nothing is loaded yet."""
        return cls(lambda: session.proposer, lambda: session.region_encoder, lambda: session.side_by_side)


@dataclass(frozen=True, slots=True)
class _Reading:
    """Settings of stage 1; those without an explanation are arguments of `add_photos`."""

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
    """Yield the files that `add_photos` would read: new and changed ones, and those with another sidecar.

    Those that cannot be accessed are yielded, too. Arguments as in `find_photo_files` and `add_photos`.
    """
    state = FileState(gallery, fill_metadata=fill_metadata)
    for path in find_photo_files(paths, passed_over, rules=rules):
        try:
            if not state.is_current(stat_file(path)) or state.is_metadata_due(path):
                yield path
        except PhotoUnreadable as error:
            yield Skipped(path, error.reason)


def add_photos(
    gallery: GalleryFile,
    paths: Iterable[Path],
    models: IndexingModels,
    *,
    previews: bool,
    passed_over: Counter[str] | None = None,
    rules: FolderRules = ALL_FILES,
    propose: ProposeRegions = propose_all,
    fill_metadata: bool = False,
    expected: FileCounts | None = None,
) -> Generator[Outcome, None, None]:
    """Index the photos at or below `paths`, files and folders recursively; yields one outcome per file.

    Each photo is committed in its own transaction. Closing the generator drops the photos in progress
    and keeps those already written; the next run continues from there.

    Args:
        previews: store a preview of each added photo.
        passed_over: as in `find_photo_files`; complete once the generator has ended.
        rules: as in `find_photo_files`.
        propose: gives the regions of a photo.
        fill_metadata: read the ratings and keywords of unchanged files if they have not been read yet.
        expected: filled in when all files have been found, before the first of them is read; the outcomes of
            unchanged files come before. None: each is read as it is found.

    Raises:
        MatirError: an error that ends the run, such as a full disk or weights that cannot be loaded.
    """
    reading = _Reading(gallery.path, passed_over, rules, fill_metadata, expected)
    for _ in range(ATTEMPTS):
        lost: list[Path] = []
        yield from _index(gallery, paths, models, previews, reading, propose, lost)
        if not lost:
            return
        paths, reading = lost, replace(reading, expected=None, pictures_first=False)
    reason = "other commands keep removing its photo"
    for path in lost:
        remember_inaccessible(gallery, path, reason)
        yield Skipped(path, reason)


def _index(
    gallery: GalleryFile,
    paths: Iterable[Path],
    models: IndexingModels,
    previews: bool,
    reading: _Reading,
    propose: ProposeRegions,
    lost: list[Path],
) -> Iterator[Outcome]:
    """Run the four stages once; arguments as in `add_photos`.

    Args:
        lost: extended by the files that must be read again: copies of photos that another process removed
            before the copy was recorded, and raw files whose picture is not in the gallery.
    """
    in_progress: set[bytes] = set()
    refused: set[bytes] = set()
    listed_again: list[Path] = []
    reading = replace(reading, decodes_here=models.remote is None)
    found = _find_new_files(reading, paths, in_progress, listed_again)
    if models.remote is not None:
        assert propose is propose_all, "other ways to propose regions have state in this process"
        encoded = models.remote(prefetch(found, PREFETCH), previews)
    else:
        read = prefetch(_decode_photos(found, in_progress), PREFETCH)
        encoded = prefetch(_propose_and_encode(read, models, previews, propose), PREFETCH)
    written = 0
    for item in encoded:
        outcome = _write(gallery, item, refused)
        if outcome is None:
            assert isinstance(item, KnownFile | RefreshedFile | RawBeside)
            lost.append(item.file.path)
            continue
        if isinstance(item, EncodedPhoto):
            in_progress.discard(item.proposed.photo.record.sha256)
            written += 1
            if written % SEAL_EVERY == 0:
                seal_index(gallery)
        yield outcome
    if written:
        seal_index(gallery)
    if listed_again:
        forget_skipped(gallery, listed_again)


def _find_new_files(
    reading: _Reading, paths: Iterable[Path], in_progress: set[bytes], listed_again: list[Path]
) -> Generator[NewFile | FileNote, None, None]:
    """Run the first half of stage 1, on a connection of its own: find and hash files not indexed yet.

    Args:
        in_progress: SHA-256 of the photos between this stage and the last one; extended here.
        listed_again: extended by the folders that could not be listed before.
    """
    with GalleryFile.open(reading.gallery) as known:
        state = FileState(known, fill_metadata=reading.fill_metadata)

        def note_listed(folder: Path) -> None:
            if skip_reason(known, folder) not in (None, WAS_ABSENT):
                listed_again.append(folder)

        found: Iterable[Path] = find_photo_files(paths, reading.passed_over, note_listed, reading.rules)
        if reading.expected is not None:
            due = PackedPaths()
            yield from _pass_settled(state, found, reading.expected, due)
            found, state = due, FileState(known, fill_metadata=reading.fill_metadata)
        for path in found:
            file = None
            try:
                file = stat_file(path)
                if (note := _note(state, file, pictures_first=reading.pictures_first)) is not None:
                    yield note
                    continue
                if reading.decodes_here:
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


def _decode_photos(
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


def _propose_and_encode(
    items: Generator[DecodedPhoto | FileNote, None, None],
    models: IndexingModels,
    previews: bool,
    propose: ProposeRegions,
) -> Iterator[EncodedPhoto | FileNote]:
    """Run stages 2 and 3; no model is needed, and no device chosen, before the first new photo."""
    with closing(items):
        for item in items:
            if isinstance(item, DecodedPhoto):
                break
            yield item
        else:
            return
        proposed = _propose_regions(chain([item], items), cache(models.proposer), previews, propose)
        if models.side_by_side():
            proposed = prefetch(proposed, PREFETCH)
        with closing(proposed):
            yield from _encode_regions(proposed, cache(models.encoder))


def _propose_regions(
    items: Iterable[DecodedPhoto | FileNote],
    proposer: Callable[[], RegionProposer],
    previews: bool,
    propose: ProposeRegions,
) -> Generator[ProposedPhoto | FileNote, None, None]:
    """Run stage 2."""
    for item in items:
        if isinstance(item, DecodedPhoto):
            yield propose_regions(item, proposer, previews, propose)
        else:
            yield item


def _encode_regions(
    items: Iterable[ProposedPhoto | FileNote], encoder: Callable[[], RegionEncoder]
) -> Iterator[EncodedPhoto | FileNote]:
    """Run stage 3."""
    for item in items:
        yield encode_regions(item, encoder()) if isinstance(item, ProposedPhoto) else item


def _write(gallery: GalleryFile, item: EncodedPhoto | FileNote, refused: set[bytes]) -> Outcome | None:
    """Run stage 4 for one file, in one transaction.

    Args:
        refused: SHA-256 of the photos that were refused after decoding; extended here.

    Returns:
        None if the file was a copy of a photo that another process has removed: it must be indexed itself.
    """
    match item:
        case Unchanged():
            return item
        case RefusedFile(path, file, reason, digest):
            if digest is not None:
                refused.add(digest)
            if file is None:
                remember_inaccessible(gallery, path, reason)
            else:
                gallery.remember_skipped(file, reason)
            return Skipped(path, reason)
        case RefreshedFile(file, described):
            with gallery.atomic():
                if not gallery.is_unchanged(file):  # another process has written it meanwhile
                    return None
                store_metadata(gallery.connection, file.path, described.metadata, described.sidecar)
                return Refreshed(file.path, described.notes)
        case RawBeside():
            with gallery.atomic():
                return _write_raw(gallery, item)
        case KnownFile(file, digest, described):
            with gallery.atomic():
                if gallery.link_file(file, digest):
                    store_metadata(gallery.connection, file.path, described.metadata, described.sidecar)
                    return Linked(file.path)
            if digest not in refused:
                return None
            reason = "the same bytes as a file that was skipped"
            gallery.remember_skipped(file, reason)
            return Skipped(file.path, reason)
        case EncodedPhoto(ProposedPhoto(photo, preview, regions, prompts), vectors):
            with gallery.atomic():
                # Another process may have added the photo since it was read.
                present = gallery.link_file(photo.file, photo.record.sha256)
                if not present:
                    record, notes = photo.record, photo.notes
                    photo_id, ids = gallery.add_photo(photo.file, record, regions, preview, notes)
                    store_vectors(gallery, photo_id, ids, vectors)
                store_metadata(gallery.connection, photo.file.path, photo.metadata, photo.sidecar)
                if present:
                    return Linked(photo.file.path)
                return Added(photo.file.path, len(regions) - 1, photo.notes, prompts)


def _write_raw(gallery: GalleryFile, raw: RawBeside) -> Outcome | None:
    """Let a raw file share the photo of the picture beside it; the caller holds the transaction.

    Returns:
        None if the gallery does not hold the picture, or what was known of the file is no longer true.
    """
    path, described = raw.file.path, raw.described
    photo_id = shared_photo(gallery.connection, path)
    if photo_id is None:
        return None
    is_current = gallery.is_unchanged(raw.file) and shares_photo(gallery.connection, path)
    if described is None:
        return Unchanged(path) if is_current else None
    if not is_current:
        gallery.link(raw.file, photo_id)
    store_metadata(gallery.connection, path, described.metadata, described.sidecar)
    return Refreshed(path, described.notes) if is_current else Linked(path)
