"""Opening of several galleries as one: names, their models, and photos that are in more than one of them."""

from __future__ import annotations

import glob
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import TypeAlias

import apsw
import numpy as np

from matir_cli.errors import GalleryDamaged, GalleryError, GalleryMissing, ModelMismatch, NoGalleryLeft
from matir_cli.gallery.database import GalleryFile
from matir_cli.gallery.sqlite_errors import translated
from matir_cli.gallery.union import GalleryReader, GalleryUnion, IdArray, Member
from matir_cli.maintenance.merge import TakenOver, copy_photo
from matir_cli.maintenance.merge_source import source_models
from matir_cli.search.index import seal_index

PATTERN = "*.db"
"""Galleries in a folder."""

Skip = Callable[[GalleryError], object]
"""Function that is told why a gallery is left out."""


def expand_galleries(names: Iterable[Path], skip: Skip | None = None) -> list[Path]:
    """Return the galleries that names mean: a folder means those in it, a pattern the files that match it.

    They are in the order given, those of a folder or pattern in order of path; each file once.

    Args:
        skip: told of a folder or pattern without galleries; None: that is an error.

    Raises:
        GalleryMissing: a folder holds no gallery, or a pattern matches none.
    """
    found: list[Path] = []
    for name in names:
        if name.is_dir():
            paths = sorted(name.glob(PATTERN))
        elif not name.exists() and glob.has_magic(str(name)):
            paths = [Path(path) for path in sorted(glob.glob(str(name), recursive=True))]  # noqa: PTH207 - absolute ones
        else:
            paths = [name]
        if not paths:
            _leave_out(GalleryMissing(name), skip)
        found += paths
    unique: dict[str, Path] = {}
    for path in found:
        unique.setdefault(os.path.realpath(path), path)
    return [*unique.values()]


def open_galleries(paths: Sequence[Path], skip: Skip | None = None) -> GalleryReader:
    """Open galleries as the one that `matir merge` would make of them in this order; a single one as it is.

    Args:
        skip: told of each gallery that is missing or damaged, which is left out; None: that is an error.

    Raises:
        NoGalleryLeft: all galleries are left out, or none is given.
        ModelMismatch: the galleries were made with different models; the error names the first that differs.
        GalleryError: a gallery cannot be opened, as in `GalleryFile.open`.
    """
    files: list[GalleryFile] = []
    opened: GalleryReader
    with ExitStack() as stack:
        for path in paths:
            try:
                files.append(GalleryFile.open(path))
                stack.callback(files[-1].close)
            except GalleryError as error:
                _leave_out(error, skip)
        while len(files) > 1:
            try:
                opened = unite_galleries(files)
                break
            except ModelMismatch:
                raise
            except GalleryError as error:
                damaged = [file for file in files if file.path == error.path]
                if not damaged:
                    raise
                _leave_out(error, skip)
                for file in damaged:
                    file.connection.close()
                files = [file for file in files if file not in damaged]
        else:
            if not files:
                raise NoGalleryLeft(paths[0] if paths else Path())
            opened = files[0]
        stack.pop_all()
    return opened


def leave_out_damaged(gallery: GalleryReader, error: GalleryError) -> bool:
    """Leave the gallery that an error is about out of several; False if it is about none, or the only one."""
    if not isinstance(gallery, GalleryUnion):
        return False
    remaining = [file for file in gallery.files if file.path != error.path]
    if not remaining or len(remaining) == len(gallery.files):
        return False
    united = unite_galleries(remaining)
    for member in gallery.members:
        if member.file not in remaining:
            member.file.close()
    gallery.members, gallery.files = united.members, united.files
    return True


def _leave_out(error: GalleryError, skip: Skip | None) -> None:
    if skip is None:
        raise error
    skip(error)


def _check_models(files: Sequence[GalleryFile]) -> None:
    """Check that all galleries are bound to the same models, or to none."""
    first: dict[str, tuple[str, str]] = {}
    for file in files:
        for model in source_models(file):
            name, weight_hash = model.identity.name, model.identity.weight_hash
            known, known_hash = first.setdefault(model.role, (name, weight_hash))
            if known_hash != weight_hash:
                if known == name:  # other weights or settings: the hashes tell them apart
                    name, known = f"{name} ({weight_hash[:12]})", f"{known} ({known_hash[:12]})"
                raise ModelMismatch(file.path, model.role, name, known)


def unite_galleries(files: Sequence[GalleryFile]) -> GalleryUnion:
    """Unite open galleries, which the union closes.

    Photos are numbered as the merged gallery would number them. Those that are in several galleries are
    merged into a temporary file, without their previews: some 50 KB each.

    Raises:
        ModelMismatch: the galleries were made with different models; the error names the first that differs.
        GalleryDamaged: a value that is read is impossible.
    """
    _check_models(files)
    listings = [_Listing.of(file) for file in files]
    shared = [
        np.union1d(by_digest, by_stem)
        for by_digest, by_stem in zip(_by_digest(listings), _by_stem(files), strict=True)
    ]
    merged = _merge_shared(files, listings, shared)
    members: list[Member] = []
    places: dict[_Place, int] = {}
    end = 0
    for number, (file, listing, hidden) in enumerate(zip(files, listings, shared, strict=True)):
        taken = [own for at, own in merged.places.values() if at == number]
        kept = listing.ids[~np.isin(listing.ids, hidden) | np.isin(listing.ids, np.array(taken, np.int64))]
        in_union = np.arange(end + 1, end + 1 + kept.size)
        end += kept.size
        is_visible = ~np.isin(kept, hidden)
        members.append(Member(file, number, kept[is_visible], in_union[is_visible], hidden))
        moved = zip(kept[~is_visible].tolist(), in_union[~is_visible].tolist(), strict=True)
        places |= {(number, own): union_id for own, union_id in moved}
    if merged.file is not None:
        members.append(merged.member(members, places))
    return GalleryUnion(members, files)


_Place: TypeAlias = tuple[int, int]
"""Number of a gallery, and id of a photo in it."""


@dataclass(frozen=True)
class _Listing:
    """The photos of a gallery."""

    ids: IdArray
    """(n,) ascending."""
    digests: bytes
    """(32 n,) their SHA-256."""

    @classmethod
    def of(cls, file: GalleryFile) -> _Listing:
        with translated(file.path):
            rows = file.connection.execute("select id, sha256 from photos order by id").fetchall()
        digests = [digest for _, digest in rows if isinstance(digest, bytes) and len(digest) == 32]
        if len(digests) != len(rows):
            raise GalleryDamaged(file.path, "the SHA-256 of a photo is invalid")
        ids = np.fromiter((file.checked_id(photo_id) for photo_id, _ in rows), np.int64)
        return cls(ids, b"".join(digests))

    def digest(self, photo_id: int) -> bytes:
        """Return the SHA-256 of a photo."""
        at = 32 * int(np.searchsorted(self.ids, photo_id))
        return self.digests[at : at + 32]


def _by_digest(listings: Sequence[_Listing]) -> list[IdArray]:
    """Return the photos of each gallery that another one has, by the first bytes of the SHA-256."""
    keys = [np.frombuffer(each.digests, "<u8").reshape(-1, 4)[:, 0] for each in listings]
    values, counts = np.unique(np.concatenate(keys), return_counts=True)
    several = values[counts > 1]
    return [each.ids[np.isin(own, several)] for each, own in zip(listings, keys, strict=True)]


def _by_stem(files: Sequence[GalleryFile]) -> list[IdArray]:
    """Return the photos of each gallery in files of which another one knows such with the same stem.

    It may be the same file with another content, or a raw file and the picture beside it.
    """
    listed: list[list[tuple[str | bytes, int]]] = [[] for _ in files]
    owners: dict[str | bytes, int] = {}
    shared = set[str | bytes]()
    if not _are_apart(files):
        for number, file in enumerate(files):
            with translated(file.path):
                rows = file.connection.execute("select path, photo_id from files").fetchall()
            listed[number] = [(_stem(path), file.checked_id(photo_id)) for path, photo_id in rows]
            for stem, _ in listed[number]:
                if owners.setdefault(stem, number) != number:
                    shared.add(stem)
    return [
        np.unique(np.array([photo_id for stem, photo_id in each if stem in shared], np.int64))
        for each in listed
    ]


def _stem(path: apsw.SQLiteValue) -> str | bytes:
    """Return a stored path without its suffix. Not by Path, which takes a second for 200,000 names."""
    if isinstance(path, bytes):
        return path.rpartition(b".")[0] or path
    return str(path).rpartition(".")[0] or str(path)


def _are_apart(files: Sequence[GalleryFile]) -> bool:
    """Return True if the paths of one gallery all come before those of the next one, in some order of them.

    Then no file is in two of them, and no raw file in another one than the picture beside it.
    """
    ends: list[tuple[str, str]] = []
    for file in files:
        with translated(file.path):
            row = file.connection.execute("select min(path), max(path) from files").fetchone()
        low, high = row or (None, None)
        if low is not None and not (isinstance(low, str) and isinstance(high, str)):
            return False
        if low is not None:
            ends.append((str(low), str(high)))
    ends.sort()
    # Paths of one stem are alike up to a dot, and so are all that lie between them.
    return all(
        last < first and last.partition(".")[0] != first.partition(".")[0]
        for (_, last), (first, _) in pairwise(ends)
    )


@dataclass
class _MergedPhotos:
    """A temporary gallery of the photos that are in several galleries, as `matir merge` makes them."""

    file: GalleryFile | None = None
    """None: there are none."""
    places: dict[bytes, _Place] = field(default_factory=dict)
    """By SHA-256: where the photo was first taken over from."""
    origins: dict[bytes, list[_Place]] = field(default_factory=dict)
    """By SHA-256: all galleries that have the photo."""

    def member(self, members: Sequence[Member], in_union: Mapping[_Place, int]) -> Member:
        """Return it as the last member of the union.

        Args:
            in_union: ids in the union of the photos that are shown where they were taken over.
        """
        assert self.file is not None
        listing = _Listing.of(self.file)
        digests = [listing.digest(own) for own in listing.ids.tolist()]
        union_ids = np.array([in_union[self.places[digest]] for digest in digests], np.int64)
        origins = tuple(
            tuple((members[number], own) for number, own in self.origins[digest]) for digest in digests
        )
        return Member(self.file, len(members), listing.ids, union_ids, origins=origins)


def _merge_shared(
    files: Sequence[GalleryFile], listings: Sequence[_Listing], shared: Sequence[IdArray]
) -> _MergedPhotos:
    """Merge the shared photos of each gallery, in their order, into a temporary one, without previews."""
    merged = _MergedPhotos()
    if not any(each.size for each in shared):
        return merged
    merged.file = GalleryFile.open_temporary(files[0].path)
    for number, (file, listing) in enumerate(zip(files, listings, strict=True)):
        with merged.file.atomic():
            for own in shared[number].tolist():
                digest = listing.digest(own)
                merged.origins.setdefault(digest, []).append((number, own))
                if isinstance(copy_photo(merged.file, file, own, preview=False), TakenOver):
                    merged.places[digest] = number, own
    digests = _Listing.of(merged.file)
    merged.places = {digests.digest(own): merged.places[digests.digest(own)] for own in digests.ids.tolist()}
    seal_index(merged.file)
    return merged
