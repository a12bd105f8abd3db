"""`matir add`: photo files become regions, vectors and previews in the gallery.

Four stages overlap, each at most a few photos ahead of the next, so that memory does
not grow with their number: reading (stat, hash, decode), proposing, encoding, writing.
The writing is the caller's thread; SQLite is never used from two threads at once. On a
CPU, proposing and encoding take turns in one thread: each wants all cores for itself, and
side by side they were half as fast.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from functools import cache
from itertools import chain
from pathlib import Path
from typing import Protocol

import numpy as np

from matir_cli import masks
from matir_cli.engines.protocols import RegionEncoder, RegionProposer
from matir_cli.errors import PhotoUnreadable
from matir_cli.gallery.database import GalleryFile
from matir_cli.indexing.prefetch import prefetch
from matir_cli.photos.decode import DecodedPhoto, decode_photo
from matir_cli.photos.discover import find_photo_files, hash_file, stat_file
from matir_cli.photos.preview import encode_preview
from matir_cli.records import FileRecord, FloatArray, Region
from matir_cli.search.index import seal_index, store_vectors

PREFETCH = 3
"""Photos that a stage may be ahead of the next one."""

SEAL_EVERY = 256
"""Photos between two tidyings of the search index during a long run."""


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


@dataclass(frozen=True, slots=True)
class IndexingModels:
    """What photos are indexed with; each is loaded when the first photo needs it, once."""

    proposer: Callable[[], RegionProposer]
    encoder: Callable[[], RegionEncoder]
    side_by_side: Callable[[], bool] = lambda: False
    """Whether both may run at a time: they do not compete for the processor's cores."""

    @classmethod
    def of(cls, session: IndexingSession) -> IndexingModels:
        """Wrap the models of a session; nothing is loaded yet."""
        return cls(lambda: session.proposer, lambda: session.region_encoder, lambda: session.side_by_side)


@dataclass(frozen=True, slots=True)
class Added:
    """A new photo, or a new version of one, is in the gallery."""

    path: Path
    regions: int
    """How many the proposer found; the whole photo is not counted."""


@dataclass(frozen=True, slots=True)
class Linked:
    """The file holds a photo that is in the gallery already: a copy, or renamed."""

    path: Path


@dataclass(frozen=True, slots=True)
class Unchanged:
    """The file has not changed since it was indexed; it was not read."""

    path: Path


@dataclass(frozen=True, slots=True)
class Skipped:
    """The file cannot be indexed."""

    path: Path
    reason: str


Outcome = Added | Linked | Unchanged | Skipped


@dataclass(frozen=True, slots=True)
class _KnownFile:
    """A file whose bytes are those of a photo that is, or is about to be, in the gallery."""

    file: FileRecord
    sha256: bytes


@dataclass(frozen=True, slots=True)
class _RefusedFile:
    """A file that cannot be indexed; `file` is None when not even its size is known."""

    path: Path
    file: FileRecord | None
    reason: str


@dataclass(frozen=True, slots=True)
class _ProposedPhoto:
    """A photo with its regions."""

    photo: DecodedPhoto
    preview: bytes | None
    regions: list[Region]
    """The whole photo first; working pixels."""


@dataclass(frozen=True, slots=True)
class _EncodedPhoto:
    """A photo with all that will be written of it."""

    proposed: _ProposedPhoto
    vectors: FloatArray
    """(len(regions), d) float32."""


_Passed = Unchanged | _KnownFile | _RefusedFile
"""What the stages hand on untouched."""


def pending_files(
    gallery: GalleryFile, paths: Iterable[Path], passed_over: Counter[str] | None = None
) -> Iterator[Path | Skipped]:
    """The files among `paths` that `add` would read, new ones and changed ones, and those that it cannot."""
    for path in find_photo_files(paths, passed_over):
        try:
            if not gallery.is_unchanged(stat_file(path)):
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
) -> Generator[Outcome, None, None]:
    """Index the photos that `paths` name (files, and folders recursively); one outcome a file.

    Each photo is committed by itself. Closing the iterator drops the photos in hand and
    leaves the gallery as it is; running again goes on from there.

    Args:
        passed_over: as `photos.find_files` has it; complete once the iterator has ended.

    Raises:
        MatirError: what ends the run, such as a full disk or weights that do not load.
    """
    in_hand: set[bytes] = set()
    read = prefetch(_read(gallery.path, find_photo_files(paths, passed_over), in_hand), PREFETCH)
    encoded = prefetch(_see(read, models, previews), PREFETCH)
    written = 0
    for item in encoded:
        outcome = _write(gallery, item)
        if isinstance(item, _EncodedPhoto):
            in_hand.discard(item.proposed.photo.record.sha256)
            written += 1
            if written % SEAL_EVERY == 0:
                seal_index(gallery)
        yield outcome
    if written:
        seal_index(gallery)


def _read(gallery: Path, files: Iterable[Path], in_hand: set[bytes]) -> Iterator[DecodedPhoto | _Passed]:
    """Stage 1, with its own connection: what is there already is not read, hashed or decoded again."""
    with GalleryFile.open(gallery) as known:
        for path in files:
            file = None
            try:
                file = stat_file(path)
                if known.is_unchanged(file):
                    yield Unchanged(path)
                    continue
                digest = hash_file(file)
                if digest in in_hand or known.photo_with(digest) is not None:
                    yield _KnownFile(file, digest)
                    continue
                photo = decode_photo(file, digest)
            except PhotoUnreadable as error:
                yield _RefusedFile(path, file, error.reason)
                continue
            in_hand.add(digest)
            yield photo


def _see(
    items: Generator[DecodedPhoto | _Passed, None, None], models: IndexingModels, previews: bool
) -> Iterator[_EncodedPhoto | _Passed]:
    """Stages 2 and 3; where they run is asked when there is the first photo to see, not before."""
    with closing(items):
        for item in items:
            if isinstance(item, DecodedPhoto):
                break
            yield item
        else:
            return
        proposed = _propose(chain([item], items), cache(models.proposer), previews)
        if models.side_by_side():
            proposed = prefetch(proposed, PREFETCH)
        with closing(proposed):
            yield from _encode(proposed, cache(models.encoder))


def _propose(
    items: Iterable[DecodedPhoto | _Passed], proposer: Callable[[], RegionProposer], previews: bool
) -> Generator[_ProposedPhoto | _Passed, None, None]:
    """Stage 2. The whole photo becomes a region too, so that scenes are found as well as objects."""
    for item in items:
        if not isinstance(item, DecodedPhoto):
            yield item
            continue
        height, width = item.image.shape[:2]
        rle = masks.whole(height, width)
        whole = Region(rle, masks.box(rle), height * width, 1.0, 1.0)
        preview = encode_preview(item.image) if previews else None
        yield _ProposedPhoto(item, preview, [whole, *proposer().propose(item.image)])


def _encode(
    items: Iterable[_ProposedPhoto | _Passed], encoder: Callable[[], RegionEncoder]
) -> Iterator[_EncodedPhoto | _Passed]:
    """Stage 3. Vectors that are not numbers are refused: they would outrank everything."""
    for item in items:
        if not isinstance(item, _ProposedPhoto):
            yield item
            continue
        vectors = encoder().encode(item.photo.image, [region.rle for region in item.regions])
        if np.isfinite(vectors).all():
            yield _EncodedPhoto(item, vectors)
        else:
            file = item.photo.file
            yield _RefusedFile(file.path, file, "the encoder gave a vector that is not a number")


def _write(gallery: GalleryFile, item: _EncodedPhoto | _Passed) -> Outcome:
    """Stage 4: one transaction a photo."""
    match item:
        case Unchanged():
            return item
        case _RefusedFile(path, file, reason):
            if file is not None:
                gallery.remember_skipped(file, reason)
            return Skipped(path, reason)
        case _KnownFile(file, digest):
            return _link(gallery, file, digest)
        case _EncodedPhoto(_ProposedPhoto(photo, preview, regions), vectors):
            with gallery.atomic():
                # Another `add` may have been faster since this photo was read.
                if gallery.photo_with(photo.record.sha256) is None:
                    photo_id, ids = gallery.add_photo(photo.file, photo.record, regions, preview)
                    store_vectors(gallery, photo_id, ids, vectors)
                    return Added(photo.file.path, len(regions) - 1)
            return _link(gallery, photo.file, photo.record.sha256)


def _link(gallery: GalleryFile, file: FileRecord, digest: bytes) -> Outcome:
    photo_id = gallery.photo_with(digest)
    if photo_id is None:  # its first file was refused after decoding
        reason = "the same bytes as a file that was skipped"
        gallery.remember_skipped(file, reason)
        return Skipped(file.path, reason)
    gallery.link_file(file, photo_id)
    return Linked(file.path)
