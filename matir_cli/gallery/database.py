"""The content of a gallery file: models, files, photos and regions."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from matir_cli import errors
from matir_cli.gallery.file_metadata import photo_metadata
from matir_cli.gallery.notes import store_notes
from matir_cli.gallery.open_gallery import OpenGallery
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
from matir_cli.photos.raw_pairs import is_beside_raw, raw_last
from matir_cli.records import FileRecord, ModelIdentity, Note, PhotoRecord, Region


class GalleryFile(OpenGallery):
    """An open gallery file, with what is in it."""

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
