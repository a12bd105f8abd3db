"""Near-copies: photos that are one picture saved anew, and photos of one burst.

Two photos are *copies* if the vectors of the whole photos are alike and their pixels are the same but for
what saving, scaling, cropping and toning change (`pixel_comparison`). They are of one *burst* if one camera
took them within seconds, and their vectors are alike. A false pair hides a photo, or has it deleted; a missed
one costs a glance. So every rule here is meant to be right rather than complete: photos whose pixels are not
available, or which one camera took at different times, are no copies.

Candidates are found by comparing all vectors block by block, on some of their dimensions first: stored
vectors are rotated, so that any of their dimensions are a random projection, whose distances are nearly the
true ones.
"""

from __future__ import annotations

import json
import math
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from matir_cli.errors import GalleryDamaged, PhotoUnreadable
from matir_cli.gallery.rows import LONGEST_VECTOR
from matir_cli.gallery.union import GalleryReader, Member, map_members, share_photos
from matir_cli.gallery.working_image import load_working_image
from matir_cli.progress import ProgressObserver, no_progress
from matir_cli.records import Candidate
from matir_cli.search.pixel_comparison import GreyPicture, grey_picture, same_picture
from matir_cli.search.quantisation import Int8Array
from matir_cli.search.vectors import VECTOR, to_vectors

COPY_COSINE = 0.92
"""Least cosine of the vectors of two copies. Of different real photos, one pair in 20,000 is as near; pixels
tell these apart."""

BURST_COSINE = 0.90
"""Least cosine of the vectors of two photos of a burst."""

BURST_SECONDS = 3.0
"""Time between two photos of a burst at most."""

MOST_STRETCHED = 1.2
"""Ratio of the aspect ratios of two copies at most: each side of one may be cropped."""

DIMENSIONS_FIRST = 128
"""Dimensions that are compared first."""

DEVIATIONS = 5.0
"""Standard deviations by which a distance in the first dimensions may exceed the true one: one pair in a
million exceeds that."""

ROWS_AT_ONCE, COLUMNS_AT_ONCE = 512, 8192
"""Photos whose vectors are compared in one step."""

BURST_NEIGHBOURS = 50
"""Photos after a photo, in order of time, that may belong to its burst: a clock that stands makes no more."""

PICTURES_KEPT = 16_384
"""Small grey pictures kept in memory, some 9 KB each."""


class Kinship(StrEnum):
    """How a photo relates to the one that stands for it."""

    COPY = "copy"
    """The same picture."""
    BURST = "burst"
    """The same scene, seconds earlier or later."""


class Traits(msgspec.Struct, frozen=True, array_like=True):
    """Facts by which photos are compared."""

    id: int
    sha256: bytes
    width: int
    """Photo pixels."""
    height: int
    file_bytes: int
    """Of its largest file."""
    taken_at: str | None
    camera: str | None

    @property
    def time(self) -> float | None:
        """Seconds since a day long ago; None without a time of the day, for which midnight often stands."""
        if self.taken_at is None:
            return None
        taken = datetime.fromisoformat(self.taken_at).replace(tzinfo=None)
        if taken.time().replace(microsecond=0) == datetime.min.time():
            return None
        return (taken - datetime.min).total_seconds()

    @property
    def size_order(self) -> tuple[int, int, bytes]:
        """Sort key: the photo with most pixels first, then the largest file; the content decides ties."""
        return -self.width * self.height, -self.file_bytes, self.sha256


@dataclass(frozen=True, slots=True)
class Relative:
    """A photo that another one stands for."""

    photo: Traits
    kinship: Kinship
    cosine: float
    """Of the two photos' vectors."""


def read_traits(gallery: GalleryReader, photo_ids: Sequence[int] | None = None) -> list[Traits]:
    """Return the facts of these photos, in their order; None: of all photos, by id.

    Photos that the gallery does not hold are left out.

    Raises:
        GalleryDamaged: a stored value is impossible.
    """
    if photo_ids is None:
        found = [each for traits in map_members(gallery, _all_traits) for each in traits]
        return sorted(found, key=lambda photo: photo.id)
    places: dict[int, Traits] = {}
    for share in share_photos(gallery, np.array([*photo_ids], np.int64)):
        with share.reading():
            rows: list[Any] = share.member.file.connection.execute(
                f"select key, {_TRAITS} from json_each(?) join photos on photos.id = value",  # noqa: S608 - constants
                (json.dumps(share.own_ids.tolist()),),
            ).fetchall()
        for key, *row in rows:
            places[int(share.places[key])] = _checked_traits(share.member, row)
    return [places[place] for place in sorted(places)]


_TRAITS = (
    "photos.id, sha256, width, height, "
    "coalesce((select max(bytes) from files where photo_id = photos.id), 0), taken_at, camera"
)


def _all_traits(member: Member) -> list[Traits]:
    rows = member.file.connection.execute(f"select {_TRAITS} from photos order by id")  # noqa: S608 - constants
    return [each for row in rows if (each := _checked_traits(member, row)).id >= 0]


def _checked_traits(member: Member, row: Sequence[object]) -> Traits:
    """Convert a row of `_TRAITS`; the photo gets its id in the union, -1 if it does not belong to it."""
    try:
        traits = msgspec.convert(row, Traits)
        _ = traits.time
        if traits.width < 1 or traits.height < 1:
            raise ValueError("a photo's size is impossible")
    except ValueError as error:
        raise GalleryDamaged(member.file.path, f"a photo: {error}") from error
    return msgspec.structs.replace(traits, id=int(member.to_union(np.array([traits.id]))[0]))


class PhotoComparison:
    """Compares photos of a gallery by pair; keeps small pictures of those that it has looked at."""

    def __init__(self, gallery: GalleryReader) -> None:
        self._gallery = gallery
        self._pictures: OrderedDict[int, NDArray[np.uint8] | None] = OrderedDict()

    def kinship(self, first: Traits, second: Traits, cosine: float, *, bursts: bool = True) -> Kinship | None:
        """Return how two photos are related; None if they are not, or it cannot be told.

        Args:
            cosine: of their vectors.
            bursts: False: only copies count.
        """
        is_burst = bursts and cosine >= BURST_COSINE and _in_one_burst(first, second)
        if cosine >= COPY_COSINE and _may_be_copies(first, second):
            one, other = self._picture(first.id), self._picture(second.id)
            if one is not None and other is not None and same_picture(one, other):
                return Kinship.COPY
        return Kinship.BURST if is_burst else None

    def _picture(self, photo_id: int) -> GreyPicture | None:
        """Return the photo's small picture; None if its pixels are not available."""
        if photo_id in self._pictures:
            self._pictures.move_to_end(photo_id)
        else:
            try:
                image = load_working_image(self._gallery, photo_id)
            except PhotoUnreadable:
                image = None
            self._pictures[photo_id] = None if image is None else grey_picture(image).astype(np.uint8)
            if len(self._pictures) > PICTURES_KEPT:
                self._pictures.popitem(last=False)
        kept = self._pictures[photo_id]
        return None if kept is None else kept.astype(np.float32)


def _in_one_burst(first: Traits, second: Traits) -> bool:
    times = first.time, second.time
    if times[0] is None or times[1] is None or first.camera != second.camera:
        return False
    return abs(times[0] - times[1]) <= BURST_SECONDS


def _may_be_copies(first: Traits, second: Traits) -> bool:
    """Return False if shape, or camera and time, speak against it."""
    stretched = first.width * second.height / (first.height * second.width)
    if not 1 / MOST_STRETCHED <= stretched <= MOST_STRETCHED:
        return False
    known = None not in (first.time, second.time, first.camera, second.camera)
    return not known or _in_one_burst(first, second)


def group_near_copies(
    gallery: GalleryReader,
    photos: Sequence[Traits],
    comparison: PhotoComparison,
    *,
    bursts: bool = True,
    progress: ProgressObserver = no_progress,
) -> dict[int, list[Relative]]:
    """Let each photo stand for the later ones that are its near-copies.

    The first photo stands for its near-copies, then the next one that is left, and so on. So every photo is
    compared with the one that stands for it, and likeness is not handed on from copy to copy.

    Args:
        photos: in the order in which they may stand for others.
        bursts: False: only copies count.

    Returns:
        By index of each photo that stands for itself, in order: those that it stands for, perhaps none.

    Raises:
        GalleryDamaged: a stored value is impossible.
    """
    groups: dict[int, list[Relative]] = {}
    taken = np.zeros(len(photos), np.bool_)

    def examine(first: int, others: Sequence[tuple[int, float]]) -> None:
        if taken[first]:
            return
        relatives = groups.setdefault(first, [])
        for second, cosine in others:
            if taken[second]:
                continue
            kinship = comparison.kinship(photos[first], photos[second], cosine, bursts=bursts)
            if kinship is not None:
                taken[second] = True
                relatives.append(Relative(photos[second], kinship, cosine))

    _compare_all(gallery, photos, examine, bursts=bursts, progress=progress)
    return {index: groups.get(index, []) for index in range(len(photos)) if not taken[index]}


def link_near_copies(
    gallery: GalleryReader, photos: Sequence[Traits], comparison: PhotoComparison
) -> list[list[Traits]]:
    """Return groups of which no photo has a near-copy in another group, each sorted by SHA-256.

    Likeness is handed on here: the groups are the connected parts of the graph of near-copies. They do not
    depend on the order of the photos, and are sorted by their first SHA-256.
    """
    photos = sorted(photos, key=lambda photo: photo.sha256)
    parents = list(range(len(photos)))

    def root(index: int) -> int:
        while parents[index] != index:
            parents[index] = index = parents[parents[index]]
        return index

    def examine(first: int, others: Sequence[tuple[int, float]]) -> None:
        for second, cosine in others:
            one, other = root(first), root(second)
            if one != other and comparison.kinship(photos[first], photos[second], cosine) is not None:
                parents[max(one, other)] = min(one, other)

    _compare_all(gallery, photos, examine, bursts=True, progress=no_progress)
    groups: dict[int, list[Traits]] = {}
    for index, photo in enumerate(photos):
        groups.setdefault(root(index), []).append(photo)
    return [groups[first] for first in sorted(groups)]


def leave_out_near_copies(
    gallery: GalleryReader, ranked: Sequence[Candidate], comparison: PhotoComparison
) -> list[Candidate]:
    """Keep the candidates that no better one stands for, each with the number of those that it stands for.

    Args:
        ranked: best first.
    """
    photos = read_traits(gallery, [candidate.photo_id for candidate in ranked])
    groups = group_near_copies(gallery, photos, comparison)
    hidden = {photos[index].id: len(relatives) for index, relatives in groups.items()}
    left_out = {each.photo.id for relatives in groups.values() for each in relatives}
    return [
        replace(candidate, near_copies=hidden.get(candidate.photo_id, 0))
        for candidate in ranked
        if candidate.photo_id not in left_out
    ]


# Candidate pairs


def estimate_seconds(count: int, dimensions: int) -> float:
    """Estimate, by measuring one step, the time that comparing the vectors of `count` photos takes."""
    # Imported here: only a long comparison needs it.
    import time

    width = min(dimensions, DIMENSIONS_FIRST) + 2
    rows = np.ones((ROWS_AT_ONCE, width), np.float32)
    columns = np.ones((COLUMNS_AT_ONCE, width), np.float32)
    start = time.perf_counter()
    np.flatnonzero(rows @ columns.T < 0)
    return (time.perf_counter() - start) * count**2 / 2 / (ROWS_AT_ONCE * COLUMNS_AT_ONCE)


def _compare_all(
    gallery: GalleryReader,
    photos: Sequence[Traits],
    examine: Callable[[int, Sequence[tuple[int, float]]], None],
    *,
    bursts: bool,
    progress: ProgressObserver,
) -> None:
    """Call `examine` with each photo that may have near-copies after it, and with these: index and cosine.

    Memory: a vector in int8 and `DIMENSIONS_FIRST` values in float32 per photo, 1.3 KB with 768 dimensions.
    """
    vectors, known = _whole_photo_vectors(gallery, photos)
    neighbours = _burst_neighbours(photos) if bursts else {}
    with progress("comparing photos", len(photos), "photo") as advance:
        if len(known) > 1:
            at = {index: row for row, index in enumerate(known.tolist())}
            for row, near in _near_rows(vectors, COPY_COSINE, advance):
                index = int(known[row])
                soon = [at[other] for other in neighbours.get(index, ()) if other in at]
                later = np.union1d(near, np.array(soon, np.int64))
                if later.size:
                    cosines = _cosines(vectors, row, later)
                    examine(index, [*zip(known[later].tolist(), cosines.tolist(), strict=True)])


def _whole_photo_vectors(
    gallery: GalleryReader, photos: Sequence[Traits]
) -> tuple[Int8Array, NDArray[np.int64]]:
    """Return (n, d) vectors of whole photos, and (n,) the indices of their photos, ascending."""
    found: list[tuple[int, Int8Array]] = []
    for share in share_photos(gallery, np.array([photo.id for photo in photos], np.int64)):
        with share.reading():
            rows: list[Any] = share.member.file.connection.execute(
                f"select key, {VECTOR} from json_each(?) "  # noqa: S608 - a constant
                "cross join regions on regions.photo_id = value and ordinal = 0 "
                "cross join vectors on region_id = regions.id",
                (LONGEST_VECTOR, json.dumps(share.own_ids.tolist())),
            ).fetchall()
        if rows:
            vectors = to_vectors(share.member.file, [blob for _, blob in rows])
            keys = share.places[[key for key, _ in rows]].tolist()
            found += zip(keys, vectors, strict=True)
    if not found:
        return np.zeros((0, 1), np.int8), np.zeros(0, np.int64)
    found.sort(key=lambda each: each[0])
    if len({vector.size for _, vector in found}) > 1:
        raise GalleryDamaged(gallery.path, "a stored vector has an impossible length")
    return np.stack([vector for _, vector in found]), np.array([key for key, _ in found], np.int64)


def _near_rows(
    vectors: Int8Array, least: float, advance: Callable[[int], object]
) -> Iterator[tuple[int, NDArray[np.int64]]]:
    """Yield each row of (n, d) vectors in order, with the later rows whose cosine may reach `least`."""
    count, dimensions = vectors.shape
    width = min(dimensions, DIMENSIONS_FIRST)
    slack = 1.0 if width == dimensions else 1.0 + DEVIATIONS * math.sqrt(2.0 / width)
    most = np.float32(2.0 * (1.0 - least) * slack + 1e-4)
    left = np.empty((count, width + 2), np.float32)
    for start in range(0, count, COLUMNS_AT_ONCE):
        part = vectors[start : start + COLUMNS_AT_ONCE].astype(np.float32)
        part = part[:, :width] * (math.sqrt(dimensions / width) / np.linalg.norm(part, axis=1, keepdims=True))
        left[start : start + len(part), :width] = part
        left[start : start + len(part), width] = (part**2).sum(axis=1)
    left[:, width + 1] = 1.0
    # The product of a row of `left` and one of `right` is the squared distance |a|^2 - 2 a b + |b|^2.
    right = np.concatenate([-2.0 * left[:, :width], left[:, width + 1 :], left[:, width : width + 1]], axis=1)
    for start in range(0, count, ROWS_AT_ONCE):
        rows = left[start : start + ROWS_AT_ONCE]
        found: list[NDArray[np.int64]] = []
        for first in range(start, count, COLUMNS_AT_ONCE):
            close = np.flatnonzero(rows @ right[first : first + COLUMNS_AT_ONCE].T <= most)
            columns = min(COLUMNS_AT_ONCE, count - first)
            found.append(np.stack([close // columns, close % columns + first]))
        pairs = np.concatenate(found, axis=1)
        pairs = pairs[:, pairs[1] > pairs[0] + start]
        pairs = pairs[:, np.lexsort(pairs[::-1])]
        ends = np.searchsorted(pairs[0], np.arange(len(rows) + 1))
        for row in range(len(rows)):
            near = pairs[1, ends[row] : ends[row + 1]]
            if near.size:
                near = near[_cosines(vectors, start + row, near) >= least]
            yield start + row, near
        advance(len(rows))


def _cosines(vectors: Int8Array, row: int, others: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the (m,) cosines of a row of (n, d) vectors and (m,) other rows; the same in either order."""
    chosen = vectors[others].astype(np.int64)
    wanted = vectors[row].astype(np.int64)
    products = chosen @ wanted
    return np.asarray(products / np.sqrt((chosen**2).sum(axis=1).astype(np.float64) * float(wanted @ wanted)))


def _burst_neighbours(photos: Sequence[Traits]) -> dict[int, list[int]]:
    """Return, by index, the indices above it of photos that the same camera took within `BURST_SECONDS`."""
    timed = [(photo.camera or "", photo.time, photo.sha256, index) for index, photo in enumerate(photos)]
    order = sorted((camera, time, digest, index) for camera, time, digest, index in timed if time is not None)
    neighbours: dict[int, list[int]] = {}
    for place, (camera, time, _, index) in enumerate(order):
        for other_camera, other_time, _, other in order[place + 1 : place + 1 + BURST_NEIGHBOURS]:
            if other_camera != camera or other_time - time > BURST_SECONDS:
                break
            neighbours.setdefault(min(index, other), []).append(max(index, other))
    return neighbours
