"""`matir reencode`: new vectors for the regions that a gallery holds, from another encoder.

The new vectors are written beside the old ones, some photos per transaction, and all searches answer from
the old ones meanwhile. When no photo lacks them, one transaction puts them in the place of the old ones,
together with the name of the encoder. A process killed at any moment loses at most the photos of the
transaction at work; the next run goes on from there, and covers photos that were added meanwhile.
"""

from __future__ import annotations

import shutil
from collections.abc import Collection, Generator, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from matir_cli.engines.protocols import MaskedPhoto, RegionEncoder
from matir_cli.errors import (
    GalleryChanged,
    GalleryDamaged,
    GalleryEmpty,
    PhotoUnknown,
    PhotoUnreadable,
    ReencodingBegun,
    RoomTooSmall,
)
from matir_cli.gallery.bound_models import ENCODER, NextEncoder, next_encoder
from matir_cli.gallery.database import GalleryFile
from matir_cli.gallery.rows import StoredRegion
from matir_cli.gallery.working_image import load_working_image
from matir_cli.indexing.pipeline import PREFETCH
from matir_cli.indexing.prefetch import prefetch_groups
from matir_cli.indexing.steps import MOST_PHOTOS, are_enough, encode_together
from matir_cli.progress import ProgressObserver, no_progress
from matir_cli.records import FloatArray, ImageArray, ModelIdentity
from matir_cli.search.index import seal_index
from matir_cli.search.quantisation import quantise_finely

PHOTOS_AT_ONCE = 16
"""Number of photos per transaction: what a killed process loses at most."""

NOT_THERE = "no preview is stored, and the file is missing or has changed"

SPARE = 1.2
"""Factor on the space that vectors take by themselves: rows, pages that are not full, the journal."""


@dataclass(frozen=True, slots=True)
class Reencoded:
    """The new vectors of a photo were stored."""

    path: Path


@dataclass(frozen=True, slots=True)
class NotReencoded:
    """A photo has no new vectors, since its picture cannot be had."""

    path: Path
    reason: str


@dataclass(frozen=True, slots=True)
class Exchanged:
    """The new vectors took the place of the old ones."""

    photos: int
    dropped: int
    """Number of photos that were dropped, since they have no new vectors."""


ReencodingOutcome = Reencoded | NotReencoded | Exchanged


@dataclass(frozen=True, slots=True)
class _Picture:
    """A photo with its regions, before encoding."""

    photo_id: int
    path: Path
    regions: list[StoredRegion]
    image: ImageArray | None
    """(mask_height, mask_width, 3) uint8 RGB; None if it cannot be had."""
    reason: str = ""
    """Why not."""


def begin_reencoding(
    gallery: GalleryFile, identity: ModelIdentity, model_set: str, *, restart: bool
) -> NextEncoder | None:
    """Record that vectors are being made for the encoder `identity`; return it with what is done already.

    Args:
        model_set: name or TOML path of its set.
        restart: forget new vectors that are half made.

    Returns:
        None if the vectors in use are of this encoder, so that there is nothing to do.

    Raises:
        GalleryEmpty: the gallery has no vectors.
        ReencodingBegun: new vectors for another encoder are half made.
    """
    with gallery.atomic():
        db = gallery.connection
        if restart:
            db.execute("delete from next_vectors")
            db.execute("delete from next_models")
        bound = gallery.model(ENCODER)
        if bound is None or gallery.count_photos() == 0:
            raise GalleryEmpty(gallery.path)
        begun = next_encoder(gallery)
        if begun is not None and begun.identity.weight_hash != identity.weight_hash:
            raise ReencodingBegun(gallery.path, begun.model_set, model_set)
        if bound.weight_hash == identity.weight_hash:
            return None
        db.execute(
            "insert or replace into next_models (role, name, weight_hash, model_set) values (?, ?, ?, ?)",
            (ENCODER, identity.name, identity.weight_hash, model_set),
        )
        return next_encoder(gallery)


def space_needed(gallery: GalleryFile, dimensions: int) -> int:
    """Return about how many bytes of the disk vectors of `dimensions` numbers need meanwhile.

    That is room for the new vectors and residuals, for the journal of the exchange, which keeps the old ones
    and their index, and for what the new ones need more.
    """
    count, length = gallery.connection.execute(
        "select count(*), (select octet_length(vector) from vectors limit 1) from regions where true"
    ).get
    regions, old = gallery.checked_id(count), gallery.checked_id(length or 0)
    done = int(
        gallery.connection.execute(
            "select coalesce(sum(octet_length(vectors) + octet_length(residuals)), 0) from next_vectors"
        ).get
    )
    beside = max(0, regions * 3 * dimensions // 2 - done)
    return int(SPARE * (beside + 2 * regions * old + 2 * regions * max(0, dimensions - old)))


def check_space(gallery: GalleryFile, dimensions: int) -> int:
    """Return `space_needed`.

    Raises:
        RoomTooSmall: the disk has less.
    """
    needed, free = space_needed(gallery, dimensions), shutil.disk_usage(gallery.path.absolute().parent).free
    if free < needed:
        raise RoomTooSmall(gallery.path, needed, free)
    return needed


def count_pending(gallery: GalleryFile) -> int:
    """Return the number of photos without new vectors."""
    return gallery.checked_id(gallery.connection.execute(f"select count(*) {_PENDING}").get)


_PENDING = "from photos left join next_vectors on photo_id = photos.id where photo_id is null"


def reencode_photos(
    gallery: GalleryFile,
    encoder: RegionEncoder,
    begun: NextEncoder,
    *,
    from_files: bool = False,
    drop_missing: bool = False,
    together: bool = False,
    progress: ProgressObserver = no_progress,
) -> Generator[ReencodingOutcome, None, None]:
    """Encode the regions of all photos without new vectors, then exchange all vectors.

    Yields one outcome per photo, and `Exchanged` at the end, unless a photo's picture cannot be had: then the
    vectors in use stay, and the next run tries it again. Closing the generator keeps what is written.

    Args:
        begun: as `begin_reencoding` returned it.
        from_files: decode unchanged files rather than previews; the vectors are then those of a new index.
        drop_missing: drop photos whose picture cannot be had from the gallery.
        together: encode the photos that are ready together, for an encoder with a processor of its own.
        progress: shows the progress of the exchange.

    Raises:
        GalleryChanged: another process has ended or restarted the run.
        MatirError: as the encoder and the gallery raise it.
    """
    lost: set[int] = set()
    while True:
        with gallery.atomic():
            _check_begun(gallery, begun)
            _forget_stale(gallery, encoder.dimensions)
        groups = prefetch_groups(
            _read_pictures(gallery.path, from_files, lost),
            lambda picture: picture,
            depth=MOST_PHOTOS if together else PREFETCH,
            full=_is_full if together else lambda _: True,
        )
        with closing(groups):
            yield from _encode(gallery, groups, encoder, begun, lost)
        with gallery.atomic():
            _check_begun(gallery, begun)
            _forget_stale(gallery, encoder.dimensions)
            rows = gallery.connection.execute(f"select id {_PENDING}")
            pending = {gallery.checked_id(photo_id) for (photo_id,) in rows}
            exchanged = None
            if not pending or (drop_missing and pending <= lost):
                exchanged = _exchange(gallery, encoder.dimensions, begun, pending, progress)
        if exchanged is not None:
            seal_index(gallery, progress=progress)
            yield exchanged
        if exchanged is not None or pending <= lost:  # else: photos have come meanwhile
            return


def _read_pictures(path: Path, from_files: bool, lost: Collection[int]) -> Iterator[_Picture]:
    """Load the photos without new vectors but for `lost`, on a connection of its own."""
    with GalleryFile.open(path) as gallery:
        rows = gallery.connection.execute(f"select id {_PENDING} order by id").fetchall()
        for photo_id in (gallery.checked_id(row[0]) for row in rows):
            if photo_id in lost:
                continue
            try:
                with gallery.snapshot():
                    stored, regions = gallery.photo(photo_id), gallery.regions(photo_id)
            except PhotoUnknown:  # removed meanwhile
                continue
            image, reason = None, NOT_THERE
            try:
                image = load_working_image(gallery, photo_id, prefer_file=from_files)
            except PhotoUnreadable as error:
                reason = error.reason
            if image is not None and image.shape[:2] != (stored.record.mask_height, stored.record.mask_width):
                image, reason = None, "it is decoded to another size than its masks have"
            yield _Picture(photo_id, stored.paths[0], regions, image, reason)


def _is_full(group: Sequence[_Picture]) -> bool:
    """Return True if no more photos should be encoded together."""
    return are_enough([len(picture.regions) for picture in group])


def _encode(
    gallery: GalleryFile,
    groups: Iterable[Sequence[_Picture]],
    encoder: RegionEncoder,
    begun: NextEncoder,
    lost: set[int],
) -> Iterator[Reencoded | NotReencoded]:
    """Encode pictures, each group together, and store their vectors, `PHOTOS_AT_ONCE` per transaction.

    Args:
        lost: extended by the ids of photos that have no vectors.
    """
    rows: list[tuple[int, int, bytes, bytes]] = []
    paths: list[Path] = []
    for picture, vectors in _encode_groups(groups, encoder):
        row = None
        reason = picture.reason
        if vectors is not None:
            if np.isfinite(vectors).all() and vectors.any(axis=1).all():
                stored, residuals = quantise_finely(vectors)
                newest = max((region.id for region in picture.regions), default=0)
                row = (picture.photo_id, newest, stored.tobytes(), residuals.tobytes())
            else:
                reason = "the encoder gave a vector that is not a number"
        if row is None:
            lost.add(picture.photo_id)
            yield NotReencoded(picture.path, reason)
            continue
        rows.append(row)
        paths.append(picture.path)
        if len(rows) == PHOTOS_AT_ONCE:
            _store(gallery, rows, begun)
            yield from map(Reencoded, paths)
            rows, paths = [], []
    if rows:
        _store(gallery, rows, begun)
        yield from map(Reencoded, paths)


def _encode_groups(
    groups: Iterable[Sequence[_Picture]], encoder: RegionEncoder
) -> Iterator[tuple[_Picture, FloatArray | None]]:
    """Yield each picture with its vectors; None if its pixels cannot be had."""
    for group in groups:
        photos = [
            MaskedPhoto(picture.image, [stored.region.rle for stored in picture.regions])
            for picture in group
            if picture.image is not None
        ]
        encoded = encode_together(photos, encoder)
        for picture in group:
            yield picture, None if picture.image is None else next(encoded)


def _store(gallery: GalleryFile, rows: Sequence[tuple[int, int, bytes, bytes]], begun: NextEncoder) -> None:
    """Store photos' new vectors; those of photos that were removed meanwhile are left out."""
    with gallery.atomic():
        _check_begun(gallery, begun)
        gallery.connection.executemany(
            "insert or replace into next_vectors (photo_id, newest_region, vectors, residuals) "
            "select id, ?2, ?3, ?4 from photos where id = ?1",
            rows,
        )


def _check_begun(gallery: GalleryFile, begun: NextEncoder) -> None:
    """Check that new vectors are still made for the same encoder; raises GalleryChanged if not."""
    select = "select weight_hash from next_models where role = ?"
    if gallery.connection.execute(select, (ENCODER,)).fetchone() != (begun.identity.weight_hash,):
        raise GalleryChanged(gallery.path)


def _forget_stale(gallery: GalleryFile, dimensions: int) -> None:
    """Forget new vectors that do not belong to the photo's regions of now, or have an impossible length."""
    gallery.connection.execute(_STALE, (dimensions, (dimensions + 1) // 2))


_STALE = """
    delete from next_vectors where photo_id in (
        select next_vectors.photo_id from next_vectors left join (
            select photo_id, count(*) as regions, max(id) as newest from regions group by photo_id
        ) as now using (photo_id)
        where newest_region is not coalesce(newest, 0)
        or typeof(vectors) <> 'blob' or octet_length(vectors) <> coalesce(regions, 0) * ?1
        or typeof(residuals) <> 'blob' or octet_length(residuals) <> coalesce(regions, 0) * ?2
    )
"""


def _exchange(
    gallery: GalleryFile,
    dimensions: int,
    begun: NextEncoder,
    dropped: Collection[int],
    progress: ProgressObserver,
) -> Exchanged:
    """Put the new vectors in the place of the old ones; the caller holds the transaction."""
    db = gallery.connection
    db.executemany("delete from photos where id = ?", ((photo_id,) for photo_id in dropped))
    for table in ("vectors", "residuals", "codes", "blocks", "loose"):
        db.execute(f"delete from {table}")  # noqa: S608 - constants
    photos = gallery.count_photos()
    with progress("exchanging the vectors", photos, "photo") as advance:
        for photo_id, blob in db.execute("select photo_id, vectors from next_vectors order by photo_id"):
            ids = db.execute("select id from regions where photo_id = ? order by ordinal", (photo_id,))
            db.executemany(
                "insert into vectors (region_id, photo_id, vector) values (?, ?, ?)",
                [
                    (region_id, photo_id, blob[number * dimensions : (number + 1) * dimensions])
                    for number, (region_id,) in enumerate(ids.fetchall())
                ],
            )
            advance()
    if db.execute("select exists (select 1 from vectors where vector = zeroblob(?))", (dimensions,)).get:
        raise GalleryDamaged(gallery.path, "a new vector is all zeros; begin anew with --restart")
    db.execute("insert into residuals (photo_id, residuals) select photo_id, residuals from next_vectors")
    db.execute("insert into loose (photo_id) select id from photos")
    db.execute(
        "update models set name = ?, weight_hash = ? where role = ?",
        (begun.identity.name, begun.identity.weight_hash, ENCODER),
    )
    db.execute("update models set model_set = ?", (begun.model_set,))
    db.execute("delete from next_vectors")
    db.execute("delete from next_models")
    return Exchanged(photos, len(dropped))
