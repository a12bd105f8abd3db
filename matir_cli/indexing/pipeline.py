"""`matir add`: photo files become regions, vectors and previews in a gallery.

Four stages overlap: reading (stat, hash, decode), proposing, encoding, writing. Each is at most a few
photos ahead of the next, so that memory does not grow with their number. Writing runs in the caller's
thread; no SQLite connection is used by two threads. On a CPU, proposing and encoding take turns in
one thread: each uses all cores, and concurrently they were half as fast. On a GPU, which one photo seldom
fills, the regions of all photos that wait for the encoder are encoded together, and on CUDA two photos are
proposed at a time.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import Protocol

from matir_cli.engines.protocols import RegionEncoder, RegionProposer
from matir_cli.gallery.database import GalleryFile
from matir_cli.gallery.file_metadata import store_metadata
from matir_cli.gallery.files import forget_skipped, remember_inaccessible
from matir_cli.gallery.raw_pairs import shared_photo, shares_photo
from matir_cli.indexing.file_state import FileCounts
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
from matir_cli.indexing.prefetch import prefetch, prefetch_groups, put_back
from matir_cli.indexing.reading import ReadingOptions, decode_photos, find_new_files
from matir_cli.indexing.steps import (
    MOST_PHOTOS,
    ProposeRegions,
    are_enough,
    encode_regions,
    propose_all,
    propose_regions,
)
from matir_cli.photos.decode import DecodedPhoto
from matir_cli.photos.discover import ALL_FILES, FolderRules
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

    @property
    def proposed_at_once(self) -> int:
        """Number of photos that the proposer may work on at a time, each in a thread."""
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
    proposed_at_once: Callable[[], int] = lambda: 1
    """Returns the number of photos that the proposer may work on at a time, each in a thread."""
    remote: RemoteStages | None = None
    """Indexes new photos instead of the two models, which may then be needed for other photos."""

    @classmethod
    def of(cls, session: IndexingSession) -> IndexingModels:
        """Wrap the models of a session; nothing is loaded yet."""
        return cls(
            lambda: session.proposer,
            lambda: session.region_encoder,
            lambda: session.side_by_side,
            lambda: session.proposed_at_once,
        )


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
    reading = ReadingOptions(gallery.path, passed_over, rules, fill_metadata, expected)
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
    reading: ReadingOptions,
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
    found = find_new_files(reading, paths, in_progress, listed_again)
    if models.remote is not None:
        assert propose is propose_all, "other ways to propose regions have state in this process"
        encoded = models.remote(prefetch(found, PREFETCH), previews)
    else:
        read = prefetch(decode_photos(found, in_progress), PREFETCH)
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


def _propose_and_encode(
    items: Generator[DecodedPhoto | FileNote, None, None],
    models: IndexingModels,
    previews: bool,
    propose: ProposeRegions,
) -> Iterator[EncodedPhoto | FileNote]:
    """Run stages 2 and 3; no model is needed, and no device chosen, before the first new photo."""
    with ExitStack() as closes:
        closes.enter_context(closing(items))
        for item in items:
            if isinstance(item, DecodedPhoto):
                break
            yield item
        else:
            return
        proposer, side_by_side = cache(models.proposer), models.side_by_side()
        workers = models.proposed_at_once() if propose is propose_all else 1  # others have state
        if workers > 1:
            proposer()  # loaded once, before several threads ask for it
        closes.pop_all()  # the next stage closes them: one of its threads may be waiting for an item
    photos = put_back(item, items)
    work = partial(_propose_regions, proposer=proposer, previews=previews, propose=propose)
    proposed: Generator[list[ProposedPhoto | FileNote], None, None]
    if side_by_side:
        proposed = prefetch_groups(photos, work, depth=MOST_PHOTOS, workers=workers, full=_is_full)
    else:
        proposed = _propose_in_turn(photos, work)
    with closing(proposed):
        yield from _encode_groups(proposed, cache(models.encoder))


def _propose_in_turn(
    items: Generator[DecodedPhoto | FileNote, None, None],
    work: Callable[[DecodedPhoto | FileNote], ProposedPhoto | FileNote],
) -> Generator[list[ProposedPhoto | FileNote], None, None]:
    """Run stage 2 in the thread of stage 3, one item in each group."""
    with closing(items):
        for item in items:
            yield [work(item)]


def _propose_regions(
    item: DecodedPhoto | FileNote,
    proposer: Callable[[], RegionProposer],
    previews: bool,
    propose: ProposeRegions,
) -> ProposedPhoto | FileNote:
    """Run stage 2 for one item."""
    return propose_regions(item, proposer, previews, propose) if isinstance(item, DecodedPhoto) else item


def _is_full(group: Sequence[ProposedPhoto | FileNote]) -> bool:
    """Return True if no more items should come to stage 3 together."""
    return are_enough([len(each.regions) if isinstance(each, ProposedPhoto) else 0 for each in group])


def _encode_groups(
    groups: Iterable[Sequence[ProposedPhoto | FileNote]], encoder: Callable[[], RegionEncoder]
) -> Iterator[EncodedPhoto | FileNote]:
    """Run stage 3, with the photos of a group together."""
    for group in groups:
        photos = [each for each in group if isinstance(each, ProposedPhoto)]
        encoded = encode_regions(photos, encoder()) if photos else iter(())
        for item in group:
            yield next(encoded) if isinstance(item, ProposedPhoto) else item


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
