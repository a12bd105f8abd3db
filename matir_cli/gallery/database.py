"""The gallery: one SQLite file that holds photos, previews, masks and vectors.

Durability. The file is in rollback-journal mode: after a commit nothing but the one
file remains, it opens from read-only media, and a process killed at any moment leaves
a journal that the next opening rolls back. A photo is written in one transaction.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any

import apsw
import sqlite_vec

from matir_cli import errors
from matir_cli.gallery import schema
from matir_cli.gallery.paths import decode_path, encode_path, is_gone
from matir_cli.gallery.rows import StoredPhoto, StoredRegion, checked_photo, read_region
from matir_cli.records import FileRecord, ModelIdentity, PhotoRecord, Region

BUSY_TIMEOUT_MS = 60_000
"""How long a command waits for another one's transaction."""


class GalleryFile:
    """An open gallery. Use as a context manager: leaving it closes the file, and turns what
    SQLite raised inside into the matching `GalleryError`."""

    def __init__(self, path: Path, connection: apsw.Connection) -> None:
        self.path = path
        self.connection = connection

    @classmethod
    def open(cls, path: Path, *, create: bool = False) -> GalleryFile:
        """Open the gallery at `path`, bringing an older schema up to date.

        Raises:
            GalleryMissing: no file there, and `create` is false.
            NotAGallery: another kind of file; it is not touched.
            GalleryTooNew: written by a later version of this tool.
            GalleryReadOnly: it, or its folder, cannot be opened or made.
        """
        if not path.exists() and not create:
            raise errors.GalleryMissing(path)
        try:
            if create:
                path.parent.mkdir(parents=True, exist_ok=True)
            # SQLite itself falls back to reading where writing is not allowed.
            flags = apsw.SQLITE_OPEN_READWRITE | (apsw.SQLITE_OPEN_CREATE if create else 0)
            connection = apsw.Connection(os.fspath(path), flags=flags)
        except (apsw.CantOpenError, apsw.PermissionsError, OSError, UnicodeEncodeError) as error:
            raise errors.GalleryReadOnly(path) from error
        gallery = cls(path, connection)
        try:
            with translated(path):
                gallery._prepare()
        except BaseException:
            connection.close()
            raise
        return gallery

    def _prepare(self) -> None:
        """Check that the file is ours before anything is written to it, then migrate."""
        db = self.connection
        db.set_busy_timeout(BUSY_TIMEOUT_MS)
        # The file may come from a stranger: what its schema brings along must not reach beyond it.
        db.config(apsw.SQLITE_DBCONFIG_DEFENSIVE, 1)
        db.config(apsw.SQLITE_DBCONFIG_TRUSTED_SCHEMA, 0)
        if schema.is_empty(db):
            db.pragma("page_size", schema.PAGE_SIZE)
        elif not schema.is_gallery(db):
            raise errors.NotAGallery(self.path)
        if (found := schema.version_of(db)) > schema.VERSION:
            raise errors.GalleryTooNew(self.path, found, schema.VERSION)
        db.pragma("foreign_keys", True)
        db.enable_load_extension(True)
        db.load_extension(sqlite_vec.loadable_path())
        db.enable_load_extension(False)
        if found < schema.VERSION:
            with self.atomic():
                schema.migrate(db)

    def __enter__(self) -> GalleryFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.connection.close()
        if isinstance(error, apsw.Error | UnicodeDecodeError):
            raise _as_gallery_error(self.path, error) from error

    @contextmanager
    def atomic(self) -> Iterator[None]:
        """One write transaction: all of the block or nothing of it. Within another one, a part of that."""
        if self.connection.in_transaction:
            yield
            return
        self.connection.execute("begin immediate")
        try:
            yield
            self.connection.execute("commit")
        except BaseException:
            if self.connection.in_transaction:
                self.connection.execute("rollback")
            raise

    # Models

    def model_set(self) -> str | None:
        """The model set the gallery was made with: a name, or the path of a TOML; None while it is new."""
        row = self.connection.execute("select model_set from models limit 1").fetchone()
        return None if row is None else str(row[0])

    def model(self, role: str) -> ModelIdentity | None:
        """What the gallery was made with in `role`; None while nothing is stored for it."""
        select = "select name, weight_hash from models where role = ?"
        row = self.connection.execute(select, (role,)).fetchone()
        return None if row is None else ModelIdentity(str(row[0]), str(row[1]))

    def check_model(self, role: str, identity: ModelIdentity) -> None:
        """Make sure that `identity` is what this gallery was made with in `role`.

        Raises:
            ModelMismatch: it is not; a role that nothing is stored for matches anything.
        """
        made = self.model(role)
        if made is None or made.weight_hash == identity.weight_hash:
            return
        stored, wanted = made.name, identity.name
        if stored == wanted:  # the same name over other weights or settings: the hashes tell them apart
            stored, wanted = f"{stored} ({made.weight_hash[:12]})", f"{wanted} ({identity.weight_hash[:12]})"
        raise errors.ModelMismatch(self.path, role, stored, wanted)

    def bind_model(self, role: str, identity: ModelIdentity, model_set: str) -> None:
        """Remember `identity` for `role`, or check it against what is remembered.

        Raises:
            ModelMismatch: the gallery was made with another one.
        """
        with self.atomic():
            self.check_model(role, identity)
            self.connection.execute(
                "insert into models (role, name, weight_hash, model_set) values (?, ?, ?, ?) "
                "on conflict (role) do update set name = excluded.name, model_set = excluded.model_set",
                (role, identity.name, identity.weight_hash, model_set),
            )

    # Files

    def is_unchanged(self, file: FileRecord) -> bool:
        """Whether the file was read before and has the same size and time of change since."""
        row = self.connection.execute(
            "select bytes, mtime_ns from files where path = ?", (encode_path(file.path),)
        ).fetchone()
        return row == (file.bytes, file.mtime_ns)

    def remember_skipped(self, file: FileRecord, reason: str) -> None:
        """Record that `file` cannot be indexed; a photo that lay there before is forgotten.

        It is tried again the next time: a permission, a package or a version may have changed.
        """
        with self.atomic():
            self.unlink(file.path)
            self.connection.execute(
                "insert or replace into skipped values (?, ?, ?, ?, ?)",
                (encode_path(file.path), reason, file.bytes, file.mtime_ns, _now()),
            )

    def link_file(self, file: FileRecord, photo_id: int) -> None:
        """Record that `file` holds a photo that is here already (a copy, or renamed).

        Files of that photo which are no longer on disk are forgotten: that is what a rename is.
        """
        with self.atomic():
            self.link(file, photo_id)
            for path in self.paths(photo_id):
                if path != file.path and is_gone(path):
                    self.connection.execute("delete from files where path = ?", (encode_path(path),))

    def link(self, file: FileRecord, photo_id: int) -> None:
        """Record that `file` holds this photo, whatever it held before; the caller holds the transaction."""
        stored = encode_path(file.path)
        row = self.connection.execute("select photo_id from files where path = ?", (stored,)).fetchone()
        if row is not None and row[0] != photo_id:
            self.unlink(file.path)
        self.connection.execute(
            "insert or replace into files values (?, ?, ?, ?)",
            (stored, photo_id, file.bytes, file.mtime_ns),
        )
        self.connection.execute("delete from skipped where path = ?", (stored,))

    def unlink(self, path: Path) -> bool:
        """Forget the file, and its photo when no other file holds it; the caller holds the transaction.

        Returns:
            Whether anything was known of it.
        """
        db, stored = self.connection, (encode_path(path),)
        noted = db.execute("delete from skipped where path = ? returning 1", stored).fetchone()
        row = db.execute("delete from files where path = ? returning photo_id", stored).fetchone()
        if row is not None:
            db.execute(
                "delete from photos where id = ?1 and not exists (select 1 from files where photo_id = ?1)",
                row,
            )
        return noted is not None or row is not None

    # Photos and regions

    def photo_with(self, sha256: bytes) -> int | None:
        """The id of the photo whose file has this SHA-256, None if it is not here."""
        row = self.connection.execute("select id from photos where sha256 = ?", (sha256,)).fetchone()
        return None if row is None else int(row[0])

    def count_photos(self) -> int:
        return int(_only(self.connection.execute("select count(*) from photos"))[0])

    def add_photo(
        self, file: FileRecord, photo: PhotoRecord, regions: Sequence[Region], preview: bytes | None
    ) -> tuple[int, list[int]]:
        """Write a photo and its regions; the caller holds the transaction and adds the vectors.

        Args:
            regions: the whole photo first; masks and boxes in working pixels.
            preview: JPEG, or None to store none.

        Returns:
            The photo's id and its regions' ids, in order.
        """
        db = self.connection
        photo_id = int(
            _only(
                db.execute(
                    "insert into photos (sha256, width, height, mask_width, mask_height, orientation, "
                    "taken_at, camera, latitude, longitude, added_at) "
                    "values (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) returning id",
                    (
                        *(photo.sha256, photo.width, photo.height, photo.mask_width, photo.mask_height),
                        *(photo.orientation, photo.taken_at, photo.camera, photo.latitude, photo.longitude),
                        _now(),
                    ),
                )
            )[0]
        )
        self.link(file, photo_id)
        if preview is not None:
            db.execute("insert into previews values (?, ?)", (photo_id, preview))
        region_ids = []
        for ordinal, region in enumerate(regions):
            box = photo.to_photo(region.box)
            row = _only(
                db.execute(
                    "insert into regions "
                    "(photo_id, ordinal, x0, y0, x1, y1, area, predicted_iou, stability, rle) "
                    "values (?, ?, ?, ?, ?, ?, ?, ?, ?, ?) returning id",
                    (
                        *(photo_id, ordinal, box.x0, box.y0, box.x1, box.y1),
                        *(region.area, region.predicted_iou, region.stability, region.rle.counts),
                    ),
                )
            )
            region_ids.append(int(row[0]))
        return photo_id, region_ids

    def paths(self, photo_id: int) -> tuple[Path, ...]:
        """The files that hold the photo, in order of path."""
        rows = self.connection.execute("select path from files where photo_id = ? order by path", (photo_id,))
        return tuple(decode_path(row[0]) for row in rows)

    def photo(self, photo_id: int) -> StoredPhoto:
        """The photo with this id.

        Raises:
            PhotoUnknown: it is not here, perhaps not any more.
            GalleryDamaged: what is stored of it is impossible.
        """
        row = self.connection.execute(
            "select sha256, width, height, mask_width, mask_height, orientation, taken_at, camera, "
            "latitude, longitude from photos where id = ?",
            (photo_id,),
        ).fetchone()
        if row is None:
            raise errors.PhotoUnknown(self.path, str(photo_id))
        try:
            record = checked_photo(PhotoRecord(*row))
        except ValueError as error:
            raise errors.GalleryDamaged(self.path, f"photo {photo_id}: {error}") from error
        found = self.paths(photo_id)
        if not found:
            raise errors.GalleryDamaged(self.path, f"photo {photo_id}: no file holds it")
        return StoredPhoto(photo_id, found, record)

    def preview(self, photo_id: int) -> bytes | None:
        """The photo's JPEG at working size, None where it was not stored."""
        row = self.connection.execute("select jpeg from previews where photo_id = ?", (photo_id,)).fetchone()
        if row is not None and not isinstance(row[0], bytes):
            raise errors.GalleryDamaged(self.path, f"photo {photo_id}: its preview is no picture")
        return None if row is None else row[0]

    def region(self, region_id: int) -> StoredRegion:
        """The region with this id.

        Raises:
            PhotoUnknown: it is not here, perhaps not any more.
        """
        row = self.connection.execute(f"{_SELECT_REGION} where regions.id = ?", (region_id,)).fetchone()
        if row is None:
            raise errors.PhotoUnknown(self.path, f"of region {region_id}")
        return self._read_region(row)

    def regions(self, photo_id: int) -> list[StoredRegion]:
        """All regions of a photo, the whole photo first."""
        rows = self.connection.execute(f"{_SELECT_REGION} where photo_id = ? order by ordinal", (photo_id,))
        return [self._read_region(row) for row in rows]

    def _read_region(self, row: Any) -> StoredRegion:
        """A row of `_SELECT_REGION`, checked."""
        try:
            return read_region(row)
        except (TypeError, ValueError, ZeroDivisionError) as error:
            raise errors.GalleryDamaged(self.path, f"region {row[0]}: {error}") from error


_SELECT_REGION = (
    "select regions.id, photo_id, ordinal, x0, y0, x1, y1, area, predicted_iou, stability, rle, "
    "width, height, mask_width, mask_height from regions join photos on photos.id = photo_id"
)


@contextmanager
def translated(path: Path) -> Iterator[None]:
    """Turn SQLite's errors about the file at `path` into `GalleryError`s."""
    try:
        yield
    except (apsw.Error, UnicodeDecodeError) as error:
        raise _as_gallery_error(path, error) from error


def _as_gallery_error(path: Path, error: apsw.Error | UnicodeDecodeError) -> errors.GalleryError:
    match error:
        case apsw.BusyError() | apsw.LockedError():
            return errors.GalleryBusy(path)
        case apsw.FullError():
            return errors.DiskFull(path)
        case apsw.ReadOnlyError() | apsw.CantOpenError() | apsw.PermissionsError() | apsw.AuthError():
            return errors.GalleryReadOnly(path)
        case apsw.NotADBError():
            return errors.NotAGallery(path)
        case apsw.IOError():
            return errors.GalleryIOFailed(path, str(error))
        case _:
            return errors.GalleryDamaged(path, str(error))


def _only(cursor: apsw.Cursor) -> Any:
    """The first row: a tuple of whatever types the query selects, None where there is none."""
    return cursor.fetchone()


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
