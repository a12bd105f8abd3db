"""Several gallery files read as one: the gallery that `matir merge` would make of them, in the order given.

Searches read galleries through the functions here, which take one file or a `GalleryUnion`. A union numbers
its photos as the merged gallery would, from 1 on, file by file, so that ties are decided alike. The regions'
ids are those of their files, with the number of the member in the high bits: within a photo they have the
same order as in the file.

Photos that are in several files, or in files that are in several galleries, are members of their own: a
temporary gallery, made by the code of `matir merge`, has them as the merged gallery would. The files' own
copies are hidden.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import TracebackType
from typing import TypeAlias, TypeVar

import apsw
import numpy as np
from numpy.typing import NDArray

from matir_cli.errors import GalleryDamaged, PhotoUnknown
from matir_cli.gallery.database import GalleryFile
from matir_cli.gallery.paths import encode_path
from matir_cli.gallery.rows import StoredPhoto, StoredRegion
from matir_cli.gallery.sqlite_errors import gallery_error, translated
from matir_cli.records import FileRecord, ModelIdentity

IdArray = NDArray[np.int64]

REGION_BITS = 40
"""Bits of a region's id in its file; the member's number stands above them."""

MOST_AT_ONCE = 8
"""Files that are read side by side."""

Result = TypeVar("Result")

_NONE: IdArray = np.zeros(0, np.int64)


@dataclass(frozen=True)
class Member:
    """A file of a union; a gallery file alone is the only member of itself."""

    file: GalleryFile
    number: int = 0
    """Position in the union."""
    own_ids: IdArray | None = None
    """(n,) ids in the file of the photos that belong to the union, ascending; None: all, with these ids."""
    union_ids: IdArray | None = None
    """(n,) their ids in the union, ascending."""
    hidden: IdArray = field(default_factory=lambda: _NONE)
    """(h,) ids in the file of photos that another member has, ascending."""
    origins: tuple[tuple[tuple[Member, int], ...], ...] = ()
    """For a temporary gallery: the members and ids there that each of its photos comes from, in order."""

    def to_union(self, photo_ids: IdArray) -> IdArray:
        """Return the ids in the union of (n,) photos of the file; -1: it does not belong to the union."""
        return _looked_up(photo_ids, self.own_ids, self.union_ids)

    def to_own(self, photo_ids: IdArray) -> IdArray:
        """Return the ids in the file of (n,) photos of the union; -1: another member has it."""
        return _looked_up(photo_ids, self.union_ids, self.own_ids)

    def regions_to_union(self, region_ids: IdArray) -> IdArray:
        """Return the ids in the union of (n,) regions of the file.

        Raises:
            GalleryDamaged: the file has a region with an id that no gallery gets to.
        """
        if self.own_ids is None:
            return region_ids
        if region_ids.size and not (region_ids.min() >= 0 and region_ids.max() >> REGION_BITS == 0):
            raise GalleryDamaged(self.file.path, "a region's id is impossible")
        return region_ids + (self.number << REGION_BITS)

    def photo_to_union(self, photo_id: int) -> int | None:
        """Return the id in the union of a photo of the file; None if it does not belong to the union."""
        if self.own_ids is None:
            return photo_id
        (number,) = self.to_union(np.array([photo_id], np.int64)).tolist()
        return None if number < 0 else int(number)

    def visible(self, photo_ids: IdArray | None) -> IdArray | None:
        """Return those of the photos of the file, None for all, that are not hidden; None if all are left."""
        if not self.hidden.size:
            return photo_ids
        return self.own_ids if photo_ids is None else np.setdiff1d(photo_ids, self.hidden)

    def photo(self, photo_id: int) -> StoredPhoto:
        """Return a photo of the file with its id in the union; errors as in `GalleryFile.photo`."""
        stored = self.file.photo(photo_id)
        return replace(stored, id=int(self.to_union(np.array([stored.id]))[0]))

    def region(self, region: StoredRegion) -> StoredRegion:
        """Return a region of the file with its ids in the union."""
        (region_id,) = self.regions_to_union(np.array([region.id])).tolist()
        (photo_id,) = self.to_union(np.array([region.photo_id])).tolist()
        return replace(region, id=region_id, photo_id=photo_id)


def _looked_up(ids: IdArray, known: IdArray | None, values: IdArray | None) -> IdArray:
    if known is None or values is None:
        return ids
    if not known.size:
        return np.full(ids.shape, -1, np.int64)
    at = np.minimum(np.searchsorted(known, ids), known.size - 1)
    return np.where(known[at] == ids, values[at], -1)


class GalleryUnion:
    """Gallery files that are read as one; `open_galleries` makes it.

    As a context manager it closes the files on leaving.
    """

    def __init__(self, members: Sequence[Member], files: Sequence[GalleryFile]) -> None:
        """Unite the members; `files` are those of the galleries, in their order."""
        self.members = tuple(members)
        self.files = tuple(files)

    @property
    def path(self) -> Path:
        """Path of the first gallery, which stands for all in messages."""
        return self.files[0].path

    def __enter__(self) -> GalleryUnion:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
        if isinstance(error, apsw.Error | UnicodeDecodeError):  # reads are translated where the file is known
            raise gallery_error(self.path, error) from error

    def close(self) -> None:
        """Close the files."""
        for member in self.members:
            member.file.close()

    def snapshot(self) -> AbstractContextManager[object]:
        """Let the block read one state of each file, as `GalleryFile.snapshot` does."""
        with ExitStack() as entered:
            for member in self.members:
                with translated(member.file.path):
                    entered.enter_context(member.file.snapshot())
            return entered.pop_all()

    # Models

    def model_set(self) -> str | None:
        """Return the model set of the first gallery that is bound to one; None if none is."""
        return self._first(GalleryFile.model_set)

    def model(self, role: str) -> ModelIdentity | None:
        """Return the model that the galleries are bound to in `role`; None if none is bound yet."""
        return self._first(lambda file: file.model(role))

    def check_model(self, role: str, identity: ModelIdentity) -> None:
        """Check each gallery as `GalleryFile.check_model` does; the error names the one that differs."""
        for file in self.files:
            with translated(file.path):
                file.check_model(role, identity)

    def _first(self, read: Callable[[GalleryFile], Result | None]) -> Result | None:
        """Return the first result that is not None; None if there is none."""
        for file in self.files:
            with translated(file.path):
                if (found := read(file)) is not None:
                    return found
        return None

    # Photos and regions

    def count_photos(self) -> int:
        """Return the number of photos."""
        return sum(0 if member.own_ids is None else member.own_ids.size for member in self.members)

    def photo_ids(self) -> IdArray:
        """Return the ids of all photos, (n,), ascending."""
        return np.sort(np.concatenate([m.union_ids for m in self.members if m.union_ids is not None]))

    def photo_with(self, sha256: bytes) -> int | None:
        """Return the id of the photo whose file has this SHA-256 (32 bytes), None if there is none."""
        for member in self.members:
            with translated(member.file.path):
                own = member.file.photo_with(sha256)
            if own is not None and (photo_id := member.photo_to_union(own)) is not None:
                return photo_id
        return None

    def holds(self, photo_id: int) -> bool:
        """Return True if there is a photo with this id."""
        return any(member.to_own(np.array([photo_id]))[0] >= 0 for member in self.members)

    def photo(self, photo_id: int) -> StoredPhoto:
        """Return the photo with this id; errors as in `GalleryFile.photo`."""
        with self.locate(photo_id) as (member, own):
            return member.photo(own)

    def paths(self, photo_id: int) -> tuple[Path, ...]:
        """Return the files that hold the photo, as `GalleryFile.paths` does."""
        with self.locate(photo_id) as (member, own):
            return member.file.paths(own)

    def preview(self, photo_id: int) -> bytes | None:
        """Return the photo's JPEG at working size, None if no preview is stored; errors as there."""
        with self.locate(photo_id) as (member, own):
            return preview_of(member, own)

    def region(self, region_id: int) -> StoredRegion:
        """Return the region with this id; errors as in `GalleryFile.region`."""
        number, own = region_id >> REGION_BITS, region_id & ((1 << REGION_BITS) - 1)
        if not 0 <= number < len(self.members):
            raise PhotoUnknown(self.path, f"of region {region_id}")
        member = self.members[number]
        with translated(member.file.path):
            return member.region(member.file.region(own))

    def regions(self, photo_id: int) -> list[StoredRegion]:
        """Return all regions of a photo, the whole photo first; errors as in `GalleryFile.regions`."""
        try:
            with self.locate(photo_id) as (member, own):
                return [member.region(region) for region in member.file.regions(own)]
        except PhotoUnknown:
            return []

    def is_unchanged(self, file: FileRecord) -> bool:
        """Return True if the file was indexed before with the same size and modification time."""
        for member in reversed(self.members):  # what is in several galleries is known to the last member
            with translated(member.file.path):
                select = "select 1 from files where path = ?"
                if member.file.connection.execute(select, (encode_path(file.path),)).fetchone() is not None:
                    return member.file.is_unchanged(file)
        return False

    @contextmanager
    def locate(self, photo_id: int) -> Iterator[tuple[Member, int]]:
        """Let the block read the member that has a photo, and yield it with the photo's id there.

        Raises:
            PhotoUnknown: no member has it.
        """
        for member in self.members:
            (own,) = member.to_own(np.array([photo_id])).tolist()
            if own >= 0:
                with translated(member.file.path):
                    yield member, own
                return
        raise PhotoUnknown(self.path, str(photo_id))


GalleryReader: TypeAlias = GalleryFile | GalleryUnion
"""A gallery to search: one file, or several as one."""


def members_of(gallery: GalleryReader) -> tuple[Member, ...]:
    """Return the files that a gallery is made of."""
    return gallery.members if isinstance(gallery, GalleryUnion) else (Member(gallery),)


def files_of(gallery: GalleryReader) -> tuple[GalleryFile, ...]:
    """Return the gallery files, in their order."""
    return gallery.files if isinstance(gallery, GalleryUnion) else (gallery,)


def map_members(gallery: GalleryReader, work: Callable[[Member], Result]) -> list[Result]:
    """Call `work` with each member, with several side by side, and return the results in order.

    SQLite's errors about a member of several become errors about its file.
    """
    if isinstance(gallery, GalleryFile):
        return [work(Member(gallery))]

    def run(member: Member) -> Result:
        with translated(member.file.path):
            return work(member)

    with ThreadPoolExecutor(min(MOST_AT_ONCE, len(gallery.members))) as pool:
        return list(pool.map(run, gallery.members))


@dataclass(frozen=True, slots=True)
class Share:
    """The part of some ids that one member has."""

    member: Member
    places: IdArray
    """(m,) indices of the ids."""
    own_ids: IdArray
    """(m,) the ids in the member's file."""

    def reading(self) -> AbstractContextManager[None]:
        """Let the block read the file: SQLite's errors become those about it."""
        return translated(self.member.file.path)


def share_photos(gallery: GalleryReader, photo_ids: IdArray) -> list[Share]:
    """Distribute (n,) ids of photos among the members that have them; unknown ones are left out."""
    shares = []
    for member in members_of(gallery):
        own = member.to_own(photo_ids)
        places = np.flatnonzero(own >= 0) if member.own_ids is not None else np.arange(own.size)
        if places.size or isinstance(gallery, GalleryFile):
            shares.append(Share(member, places, own[places]))
    return shares


def share_regions(gallery: GalleryReader, region_ids: IdArray) -> list[Share]:
    """Distribute (n,) ids of regions among the members that have them."""
    if isinstance(gallery, GalleryFile):
        return [Share(Member(gallery), np.arange(region_ids.size), region_ids)]
    numbers = region_ids >> REGION_BITS
    own = region_ids & ((1 << REGION_BITS) - 1)
    shares = []
    for member in gallery.members:
        places = np.flatnonzero(numbers == member.number)
        if places.size:
            shares.append(Share(member, places, own[places]))
    return shares


def preview_of(member: Member, photo_id: int) -> bytes | None:
    """Return the preview of a photo of a member, by its id there; None if none is stored.

    Those of photos that are in several galleries are not copied: the first one found in a file is used.
    """
    if not member.origins:
        return member.file.preview(photo_id)
    assert member.own_ids is not None
    for origin, own in member.origins[int(np.searchsorted(member.own_ids, photo_id))]:
        with translated(origin.file.path):
            if (preview := origin.file.preview(own)) is not None:
                return preview
    return None


def in_one_transaction(gallery: GalleryReader) -> AbstractContextManager[object]:
    """Let the block write in one transaction if that is possible: to one file that can be written."""
    if isinstance(gallery, GalleryUnion) or gallery.connection.readonly("main"):
        return nullcontext()
    return gallery.atomic()


def path_of(gallery: GalleryReader, photo_id: int) -> Path:
    """Return the path of the gallery file that has a photo, for errors."""
    for share in share_photos(gallery, np.array([photo_id], np.int64)):
        return share.member.file.path
    return gallery.path


def own_region_id(gallery: GalleryReader, region_id: int) -> int | None:
    """Return the id that a region has in its gallery file; None if the photo is in several galleries."""
    (share,) = share_regions(gallery, np.array([region_id], np.int64))
    return None if share.member.origins else int(share.own_ids[0])
