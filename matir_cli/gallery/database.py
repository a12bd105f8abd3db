"""The gallery file: opening, transactions, models, files, photos and regions.

Durability: the file is in rollback-journal mode. After a commit only the one file remains, and it
can be opened from read-only media; a process killed at any moment leaves a journal that the next
opening rolls back. Each photo is written in one transaction.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any

import apsw
import sqlite_vec

from matir_cli import errors
from matir_cli.gallery import schema
from matir_cli.gallery.connection import MAPPED_BYTES, READ_WRITE_CREATE, open_defensively
from matir_cli.gallery.file_metadata import photo_metadata
from matir_cli.gallery.notes import store_notes
from matir_cli.gallery.paths import decode_path, encode_path, is_gone
from matir_cli.gallery.raw_pairs import join_raw_files, leave_raw_files, move_raw_files
from matir_cli.gallery.region_rows import SELECT_REGION, insert_regions
from matir_cli.gallery.rows import (
    LONGEST_PREVIEW,
    StoredPhoto,
    StoredRegion,
    check_id,
    check_photo,
    check_text,
    read_region,
)
from matir_cli.gallery.sqlite_errors import connect, gallery_error, translated
from matir_cli.photos.raw_pairs import is_beside_raw, raw_last
from matir_cli.records import FileRecord, ModelIdentity, Note, PhotoRecord, Region


class GalleryFile:
    """An open gallery file.

    As a context manager it closes the file on leaving, and turns errors that SQLite raised inside
    into the matching `GalleryError`.
    """

    def __init__(self, path: Path, connection: apsw.Connection) -> None:
        self.path = path
        self.connection = connection
        self.relied_models: dict[str, str] = {}  # role to hash: see `bound_models.confirm_models`
        self._second: apsw.Connection | None = None

    @classmethod
    def open(cls, path: Path, *, create: bool = False) -> GalleryFile:
        """Open the gallery at `path` and migrate an older schema.

        A gallery of an older schema that cannot be written is opened as it is, for reading only: the tables
        that it lacks are empty.

        Args:
            create: create the file and its folder if they do not exist.

        Raises:
            GalleryMissing: there is no file at `path`, and `create` is false.
            NotAGallery: the file is of another kind; it is left unchanged.
            GalleryTooNew: a later version of this tool wrote the file.
            GalleryDamaged: the file's schema is not that of its version, word by word.
            GalleryNameInvalid: the path is not UTF-8.
            GalleryReadOnly: the file cannot be opened, or the file or its folder cannot be created.
            GalleryUnrecovered: the file may only be read, and an interrupted write is not rolled back.
            GalleryIOFailed: the system fails to read or write the file.
        """
        # SQLite itself falls back to read-only access if the file cannot be written.
        with translated(path):
            try:
                return cls._open(path, READ_WRITE_CREATE if create else apsw.SQLITE_OPEN_READWRITE)
            except (apsw.ReadOnlyError, apsw.CantOpenError, apsw.PermissionsError):
                # The file can be written, but not its folder, where SQLite keeps the journal of a migration.
                if create:
                    raise
                return cls._open(path, apsw.SQLITE_OPEN_READONLY)

    @classmethod
    def open_temporary(cls, path: Path) -> GalleryFile:
        """Create an empty gallery in a file without a name, which SQLite deletes when the gallery is closed.

        Args:
            path: of the gallery that it stands for, for messages.
        """
        with translated(path):
            return cls._checked(path, open_defensively(""))

    @classmethod
    def _open(cls, path: Path, flags: int) -> GalleryFile:
        """Open and check the gallery, with these SQLITE_OPEN_* bits; raises SQLite's errors as they are."""
        return cls._checked(path, connect(path, flags))

    @classmethod
    def _checked(cls, path: Path, connection: apsw.Connection) -> GalleryFile:
        """Check the gallery that a connection is open to; close it if that fails."""
        gallery = cls(path, connection)
        try:
            gallery._prepare()
        except BaseException:
            gallery.connection.close()
            raise
        return gallery

    def _prepare(self) -> None:
        """Check that the file is a gallery before anything is written to it, then migrate."""
        db = self.connection
        if schema.is_empty(db):
            db.pragma("page_size", schema.PAGE_SIZE)
        version = schema.check_schema(db, self.path)
        db.pragma("foreign_keys", True)
        db.pragma("mmap_size", MAPPED_BYTES)
        db.enable_load_extension(True)
        db.load_extension(sqlite_vec.loadable_path())
        db.enable_load_extension(False)
        if version == schema.VERSION:
            return
        if version and db.readonly("main"):
            schema.add_missing_tables(db, version)
            return
        with self.atomic():
            if schema.version_of(db):
                schema.check_schema(db, self.path)  # another process may have written meanwhile
            schema.migrate(db)
            schema.check_schema(db, self.path)

    def __enter__(self) -> GalleryFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
        if isinstance(error, apsw.Error | UnicodeDecodeError):
            raise gallery_error(self.path, error) from error

    def close(self) -> None:
        """Close the file."""
        self.connection.close()
        if self._second is not None:
            self._second.close()

    @contextmanager
    def atomic(self) -> Iterator[None]:
        """Run the block as one write transaction: all of it or nothing takes effect.

        Inside another `atomic` block, it is a part of that block's transaction.
        """
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

    def snapshot(self) -> AbstractContextManager[object]:
        """Let the block read one state of the file, whatever other processes write meanwhile.

        Their commits wait until the block ends, so it must be short.
        """
        # No generator: one that a signal has cut off would complain when it is deleted behind the connection.
        return self.connection

    def second_connection(self) -> apsw.Connection | None:
        """Return another connection to the file, so that two threads can read it; None if there can be none.

        It does not see what this connection has written in a transaction that has not ended, and the file at
        its path may be another one by now: the caller has to compare. Where another process waits to write,
        reading raises BusyError at once, since that process waits for this one.
        """
        if self._second is None and self.connection.filename:
            with suppress(apsw.Error):
                second = open_defensively(self.connection.filename, apsw.SQLITE_OPEN_READONLY)
                second.set_busy_handler(None)
                second.pragma("mmap_size", MAPPED_BYTES)
                self._second = second
        return self._second

    # Size

    @property
    def file_bytes(self) -> int:
        """Size of the database, bytes."""
        return int(self.connection.pragma("page_count")) * int(self.connection.pragma("page_size"))

    @property
    def free_bytes(self) -> int:
        """Bytes of the file that deleted rows left unused."""
        return int(self.connection.pragma("freelist_count")) * int(self.connection.pragma("page_size"))

    # Models

    def model_set(self) -> str | None:
        """Return the gallery's model set: a name, or the path of a TOML; None if no model is bound yet."""
        row = self.connection.execute("select model_set from models limit 1").fetchone()
        return None if row is None else self.checked_text(row[0], "the name of its model set")

    def model(self, role: str) -> ModelIdentity | None:
        """Return the model that the gallery is bound to in `role`; None if none is bound yet."""
        select = "select name, weight_hash from models where role = ?"
        row = self.connection.execute(select, (role,)).fetchone()
        if row is None:
            return None
        name, weight_hash = (self.checked_text(value, f"the {role}") for value in row)
        return ModelIdentity(name, weight_hash)

    def check_model(self, role: str, identity: ModelIdentity) -> None:
        """Check that `identity` is the model that the gallery is bound to in `role`.

        Any model passes if none is bound yet.

        Raises:
            ModelMismatch: the gallery is bound to another model.
        """
        bound = self.model(role)
        if bound is None or bound.weight_hash == identity.weight_hash:
            self.relied_models[role] = identity.weight_hash
            return
        stored, wanted = bound.name, identity.name
        if stored == wanted:  # same name, other weights or settings: the hashes tell them apart
            stored, wanted = f"{stored} ({bound.weight_hash[:12]})", f"{wanted} ({identity.weight_hash[:12]})"
        raise errors.ModelMismatch(self.path, role, stored, wanted)

    def bind_model(self, role: str, identity: ModelIdentity, model_set: str) -> None:
        """Bind the gallery to the model `identity` in `role`, or check it against the bound one.

        Args:
            model_set: name or TOML path of the set that the model comes from; replaces an older one.

        Raises:
            ModelMismatch: the gallery is bound to another model.
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
        """Return True if the file was indexed before with the same size and modification time.

        A file that could not be accessed in the last run counts as changed, so that it is tried again.
        """
        row = self.connection.execute(
            "select bytes, mtime_ns from files where path = ?1 "
            "and not exists (select 1 from skipped where path = ?1)",
            (encode_path(file.path),),
        ).fetchone()
        return row == (file.bytes, file.mtime_ns)

    def remember_skipped(self, file: FileRecord, reason: str) -> None:
        """Record that `file` cannot be indexed, and forget the photo that it held before.

        The file is tried again in the next run: a permission, a package or a version may have changed.

        Args:
            reason: short and lower case, such as "zero bytes".
        """
        with self.atomic():
            self.unlink(file.path)
            self.connection.execute(
                "insert or replace into skipped values (?, ?, ?, ?, ?)",
                (encode_path(file.path), reason, file.bytes, file.mtime_ns, current_time()),
            )

    def link_file(self, file: FileRecord, sha256: bytes) -> bool:
        """Record that `file` holds a photo that is already in the gallery: a copy, or a renamed file.

        Files of that photo that no longer exist on disk are forgotten; this completes a rename.

        Args:
            sha256: of the file's bytes, 32 bytes.

        Returns:
            False if the gallery holds no such photo, perhaps no longer; nothing is recorded then.
        """
        with self.atomic():
            photo_id = self.photo_with(sha256)
            if photo_id is None:
                return False
            self.link(file, photo_id)
            for path in self.paths(photo_id):
                if path != file.path and is_gone(path):
                    self.unlink(path)
            return True

    def link(self, file: FileRecord, photo_id: int) -> None:
        """Record that `file` holds this photo, whatever it held before, and raw files beside it, too.

        The metadata that is stored of the file is forgotten. The caller holds the transaction.
        """
        stored, joins = encode_path(file.path), is_beside_raw(file.path)
        row: Any = self.connection.execute("select photo_id from files where path = ?", (stored,)).fetchone()
        if row is not None and row[0] != photo_id:
            if joins:
                move_raw_files(self.connection, file.path, row[0], photo_id)
            self.unlink(file.path)
        self.connection.execute(
            "insert or replace into files values (?, ?, ?, ?)",
            (stored, photo_id, file.bytes, file.mtime_ns),
        )
        self.connection.execute("delete from skipped where path = ?", (stored,))
        if joins:
            join_raw_files(self.connection, file.path)

    def unlink(self, path: Path) -> bool:
        """Forget the file at `path`, and its photo if no other file holds it.

        The caller holds the transaction.

        Returns:
            True if the gallery knew the file, as a photo's file or as one that could not be indexed.
        """
        db, stored = self.connection, (encode_path(path),)
        skipped = db.execute("delete from skipped where path = ? returning 1", stored).fetchone()
        row: Any = db.execute("delete from files where path = ? returning photo_id", stored).fetchone()
        if row is not None:
            if is_beside_raw(path):
                leave_raw_files(db, path, row[0])
            db.execute(
                "delete from photos where id = ?1 and not exists (select 1 from files where photo_id = ?1)",
                row,
            )
        return skipped is not None or row is not None

    # Photos and regions

    def photo_with(self, sha256: bytes) -> int | None:
        """Return the id of the photo whose file has this SHA-256 (32 bytes), None if there is none."""
        row = self.connection.execute("select id from photos where sha256 = ?", (sha256,)).fetchone()
        return None if row is None else int(row[0])

    def holds(self, photo_id: int) -> bool:
        """Return True if there is a photo with this id."""
        return (
            self.connection.execute("select 1 from photos where id = ?", (photo_id,)).fetchone() is not None
        )

    def count_photos(self) -> int:
        """Return the number of photos."""
        # "where true": without, it is one step, which neither Ctrl-C nor the step limit can end.
        return int(self.connection.execute("select count(*) from photos where true").get)

    def add_photo(
        self,
        file: FileRecord,
        photo: PhotoRecord,
        regions: Sequence[Region],
        preview: bytes | None,
        notes: Iterable[Note] = (),
    ) -> tuple[int, list[int]]:
        """Write a photo with its first file, its regions, its preview and what could not be read of it.

        The caller holds the transaction and stores the regions' vectors.

        Args:
            regions: the whole photo first; masks and boxes in working pixels.
            preview: JPEG at working size, or None to store none.

        Returns:
            The photo's id and the ids of its regions, in order.
        """
        db = self.connection
        photo_id = int(
            db.execute(
                "insert into photos (sha256, width, height, mask_width, mask_height, orientation, "
                "taken_at, camera, latitude, longitude, added_at) "
                "values (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) returning id",
                (
                    *(photo.sha256, photo.width, photo.height, photo.mask_width, photo.mask_height),
                    *(photo.orientation, photo.taken_at, photo.camera, photo.latitude, photo.longitude),
                    current_time(),
                ),
            ).get
        )
        self.link(file, photo_id)
        if preview is not None:
            db.execute("insert into previews values (?, ?)", (photo_id, preview))
        store_notes(db, photo_id, notes)
        return photo_id, insert_regions(db, photo_id, photo, regions)

    def paths(self, photo_id: int) -> tuple[Path, ...]:
        """Return the files that hold the photo, in order of path, raw files that share it last."""
        rows = self.connection.execute("select path from files where photo_id = ? order by path", (photo_id,))
        try:
            return tuple(raw_last(decode_path(row[0]) for row in rows))
        except ValueError as error:
            raise errors.GalleryDamaged(self.path, f"photo {photo_id}: {error}") from error

    def photo(self, photo_id: int) -> StoredPhoto:
        """Return the photo with this id.

        Raises:
            PhotoUnknown: the gallery does not hold it, perhaps no longer.
            GalleryDamaged: a stored value is impossible, or no file holds the photo.
        """
        with self.snapshot():  # another process may remove the photo between the statements
            row = self.connection.execute(
                "select sha256, width, height, mask_width, mask_height, orientation, taken_at, camera, "
                "latitude, longitude from photos where id = ?",
                (photo_id,),
            ).fetchone()
            if row is None:
                raise errors.PhotoUnknown(self.path, str(photo_id))
            paths = self.paths(photo_id)
            try:
                record = check_photo(PhotoRecord(*row))
                metadata = photo_metadata(self.connection, photo_id)
            except ValueError as error:
                raise errors.GalleryDamaged(self.path, f"photo {photo_id}: {error}") from error
        if not paths:
            raise errors.GalleryDamaged(self.path, f"photo {photo_id}: no file holds it")
        return StoredPhoto(photo_id, paths, record, metadata)

    def preview(self, photo_id: int) -> bytes | None:
        """Return the photo's JPEG at working size, None if no preview is stored.

        Raises:
            GalleryDamaged: the stored preview is not a blob, or too large to be one.
        """
        select = "select iif(octet_length(jpeg) <= ?, jpeg, null) from previews where photo_id = ?"
        row = self.connection.execute(select, (LONGEST_PREVIEW, photo_id)).fetchone()
        if row is not None and not isinstance(row[0], bytes):
            raise errors.GalleryDamaged(self.path, f"photo {photo_id}: its preview is not an image")
        return None if row is None else row[0]

    def region(self, region_id: int) -> StoredRegion:
        """Return the region with this id.

        Raises:
            PhotoUnknown: the gallery does not hold it, perhaps no longer.
            GalleryDamaged: a stored value is impossible.
        """
        row = self.connection.execute(f"{SELECT_REGION} where regions.id = ?", (region_id,)).fetchone()
        if row is None:
            raise errors.PhotoUnknown(self.path, f"of region {region_id}")
        return self._read_region(row)

    def regions(self, photo_id: int) -> list[StoredRegion]:
        """Return all regions of a photo, the whole photo first.

        Raises:
            GalleryDamaged: a stored value is impossible.
        """
        rows = self.connection.execute(f"{SELECT_REGION} where photo_id = ? order by ordinal", (photo_id,))
        return [self._read_region(row) for row in rows]

    def _read_region(self, row: Any) -> StoredRegion:
        """Convert a row of `SELECT_REGION`, checking it."""
        try:
            return read_region(row)
        except (TypeError, ValueError) as error:
            raise errors.GalleryDamaged(self.path, f"region {row[0]}: {error}") from error

    def checked_id(self, value: object) -> int:
        """Return a stored id or count; GalleryDamaged if it is not an integer."""
        try:
            return check_id(value, "an id or a count")
        except ValueError as error:
            raise errors.GalleryDamaged(self.path, str(error)) from error

    def checked_text(self, value: object, name: str) -> str:
        """Return a stored text; GalleryDamaged, named `name`, if it is none, or too long."""
        try:
            return check_text(value, name)
        except ValueError as error:
            raise errors.GalleryDamaged(self.path, str(error)) from error


def current_time() -> str:
    """Return the current time: ISO 8601, UTC, whole seconds."""
    return datetime.now(UTC).isoformat(timespec="seconds")
