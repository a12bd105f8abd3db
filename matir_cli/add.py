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

import numpy as np

from matir_cli import masks, photos, search
from matir_cli.errors import PhotoUnreadable
from matir_cli.gallery import GalleryFile
from matir_cli.loading import Engines
from matir_cli.lookahead import ahead
from matir_cli.photos import DecodedPhoto
from matir_cli.protocols import RegionEncoder, RegionProposer
from matir_cli.records import FloatArray, Region
from matir_cli.stored import FileRecord

LOOKAHEAD = 3
"""Photos that a stage may be ahead of the next one."""

SEAL_EVERY = 256
"""Photos between two tidyings of the search index during a long run."""


@dataclass(frozen=True, slots=True)
class Models:
    """What photos are indexed with; each is loaded when the first photo needs it, once."""

    proposer: Callable[[], RegionProposer]
    encoder: Callable[[], RegionEncoder]
    side_by_side: Callable[[], bool] = lambda: False
    """Whether both may run at a time: they do not compete for the processor's cores."""

    @classmethod
    def of(cls, engines: Engines) -> Models:
        """Those of a model set at work on a gallery; nothing is loaded yet."""
        return cls(lambda: engines.proposer, lambda: engines.region_encoder, lambda: engines.side_by_side)


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
class _Known:
    """A file whose bytes are those of a photo that is, or is about to be, in the gallery."""

    file: FileRecord
    sha256: bytes


@dataclass(frozen=True, slots=True)
class _Refused:
    """A file that cannot be indexed; `file` is None when not even its size is known."""

    path: Path
    file: FileRecord | None
    reason: str


@dataclass(frozen=True, slots=True)
class _Proposed:
    """A photo with its regions."""

    photo: DecodedPhoto
    preview: bytes | None
    regions: list[Region]
    """The whole photo first; working pixels."""


@dataclass(frozen=True, slots=True)
class _Encoded:
    """A photo with all that will be written of it."""

    proposed: _Proposed
    vectors: FloatArray
    """(len(regions), d) float32."""


_Passed = Unchanged | _Known | _Refused
"""What the stages hand on untouched."""


def pending(
    gallery: GalleryFile, paths: Iterable[Path], passed_over: Counter[str] | None = None
) -> Iterator[Path | Skipped]:
    """The files among `paths` that `add` would read, new ones and changed ones, and those that it cannot."""
    for path in photos.find_files(paths, passed_over):
        try:
            if not gallery.is_unchanged(photos.status(path)):
                yield path
        except PhotoUnreadable as error:
            yield Skipped(path, error.reason)


def add(
    gallery: GalleryFile,
    paths: Iterable[Path],
    models: Models,
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
    read = ahead(_read(gallery.path, photos.find_files(paths, passed_over), in_hand), LOOKAHEAD)
    encoded = ahead(_see(read, models, previews), LOOKAHEAD)
    written = 0
    for item in encoded:
        outcome = _write(gallery, item)
        if isinstance(item, _Encoded):
            in_hand.discard(item.proposed.photo.record.sha256)
            written += 1
            if written % SEAL_EVERY == 0:
                search.seal(gallery)
        yield outcome
    if written:
        search.seal(gallery)


def _read(gallery: Path, files: Iterable[Path], in_hand: set[bytes]) -> Iterator[DecodedPhoto | _Passed]:
    """Stage 1, with its own connection: what is there already is not read, hashed or decoded again."""
    with GalleryFile.open(gallery) as known:
        for path in files:
            file = None
            try:
                file = photos.status(path)
                if known.is_unchanged(file):
                    yield Unchanged(path)
                    continue
                digest = photos.sha256(file)
                if digest in in_hand or known.photo_with(digest) is not None:
                    yield _Known(file, digest)
                    continue
                photo = photos.decode(file, digest)
            except PhotoUnreadable as error:
                yield _Refused(path, file, error.reason)
                continue
            in_hand.add(digest)
            yield photo


def _see(
    items: Generator[DecodedPhoto | _Passed, None, None], models: Models, previews: bool
) -> Iterator[_Encoded | _Passed]:
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
            proposed = ahead(proposed, LOOKAHEAD)
        with closing(proposed):
            yield from _encode(proposed, cache(models.encoder))


def _propose(
    items: Iterable[DecodedPhoto | _Passed], proposer: Callable[[], RegionProposer], previews: bool
) -> Generator[_Proposed | _Passed, None, None]:
    """Stage 2. The whole photo becomes a region too, so that scenes are found as well as objects."""
    for item in items:
        if not isinstance(item, DecodedPhoto):
            yield item
            continue
        height, width = item.image.shape[:2]
        rle = masks.whole(height, width)
        whole = Region(rle, masks.box(rle), height * width, 1.0, 1.0)
        preview = photos.encode_preview(item.image) if previews else None
        yield _Proposed(item, preview, [whole, *proposer().propose(item.image)])


def _encode(
    items: Iterable[_Proposed | _Passed], encoder: Callable[[], RegionEncoder]
) -> Iterator[_Encoded | _Passed]:
    """Stage 3. Vectors that are not numbers are refused: they would outrank everything."""
    for item in items:
        if not isinstance(item, _Proposed):
            yield item
            continue
        vectors = encoder().encode(item.photo.image, [region.rle for region in item.regions])
        if np.isfinite(vectors).all():
            yield _Encoded(item, vectors)
        else:
            file = item.photo.file
            yield _Refused(file.path, file, "the encoder gave a vector that is not a number")


def _write(gallery: GalleryFile, item: _Encoded | _Passed) -> Outcome:
    """Stage 4: one transaction a photo."""
    match item:
        case Unchanged():
            return item
        case _Refused(path, file, reason):
            if file is not None:
                gallery.remember_skipped(file, reason)
            return Skipped(path, reason)
        case _Known(file, digest):
            return _link(gallery, file, digest)
        case _Encoded(_Proposed(photo, preview, regions), vectors):
            with gallery.atomic():
                # Another `add` may have been faster since this photo was read.
                if gallery.photo_with(photo.record.sha256) is None:
                    photo_id, ids = gallery.add_photo(photo.file, photo.record, regions, preview)
                    search.store(gallery, photo_id, ids, vectors)
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
