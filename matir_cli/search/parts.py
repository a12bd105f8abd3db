"""Stage 1 for a description with parts: objects, how they are placed, and what must not be there.

CLIP compares a vector of the whole phrase with one region at a time, so it does not tell "a dog left of a
tree" from "a tree left of a dog" (Yuksekgonul et al., "When and why vision-language models behave like
bags-of-words", ICLR 2023). But every region has a box, too. As in ReCLIP (Subramanian et al., ACL 2022), the
phrase is split, each noun phrase is compared on its own, and the boxes decide about the relation. Here this
is a score for ranking photos:

    S(photo)   =  max over regions i of  w(i) + min(h(i), r(i))
    r(i)       =  min over relations of  max over regions j of  o(j) - MISPLACED * [i is not so placed to j]

w, h and o are cosines with the whole phrase, the described object and the other object, each measured in
standard deviations from its mean over the gallery (as z-scores; Montague and Aslam, CIKM 2001). The least of
the parts counts, since all must be there. The region i of the maximum is the answer.

The score is given on the scale of a cosine: w and h together are the cosine with one vector (`PartQuery.
vectors`; with several examples, the best of one vector for each), and what the relations take away is
subtracted from it. So that cosine is an upper bound, and a search with it finds the photos that may be best.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from matir_cli.errors import GalleryDamaged
from matir_cli.gallery.union import GalleryReader, Share, share_photos
from matir_cli.records import Candidate, FloatArray
from matir_cli.search.dislike import Dislike
from matir_cli.search.filters import Filters, passing_regions
from matir_cli.search.geometry import BoxArray, relation_holds
from matir_cli.search.phrases.description import RelationKind
from matir_cli.search.rank import RankQuery, rank_queries
from matir_cli.search.vectors import score_regions

MISPLACED = 2.0
"""Standard deviations that another object loses where it is not placed as the relation says. The boxes only
say how things lie in the picture, so a much better match elsewhere in the photo still counts."""

PAIRS_AT_ONCE = 200_000
"""Pairs of regions whose relation is looked up at once: the arrays still fit a core's cache."""

LEAST_DEPTH = 200
"""Photos taken at least from the search for each object, since the parts may change their order. With 100, a
photo that has all parts, none of them among the best, is lost too often."""

Scores = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Role:
    """One object of a description."""

    vector: FloatArray
    """(d,) float32; its inner product with a region's unit vector, less `offset`, is the region's z-score."""
    offset: float
    relations: tuple[tuple[RelationKind | None, Role], ...] = ()
    """The objects that it has relations to; None as kind: anywhere in the same photo."""
    text: str = ""
    """The object in words."""

    def others(self) -> Iterator[Role]:
        """Yield all other objects, also those that others have relations to."""
        for _, other in self.relations:
            yield other
            yield from other.others()


@dataclass(frozen=True, slots=True)
class PartQuery:
    """A query that has parts."""

    vectors: FloatArray
    """(k, d) float32, the longest of unit length: the whole phrase and the described object together, with
    one of several examples in each row. The best row counts."""
    target: Role
    """The described object."""
    weight: float
    """Part of the score, on the scale of cosines, that one standard deviation of `target` makes."""
    handicap: float = 0.0
    """Amount that the whole photo loses as an answer."""
    unlike: Dislike | None = None
    """Bad examples, which lower the inner product with `vectors`."""


@dataclass(frozen=True, slots=True)
class _PhotoRegions:
    """All regions of the photos to score, photo by photo."""

    ids: NDArray[np.int64]
    """(n,)"""
    photos: NDArray[np.int64]
    """(n,) ids of their photos, ascending."""
    is_whole: NDArray[np.bool_]
    """(n,) True for the region that is the whole photo."""
    boxes: BoxArray
    """(n, 4)"""


@dataclass(frozen=True, slots=True)
class RelationReach:
    """What a relation of an object reaches in one photo, for one region as that object."""

    role: Role
    """The object that has the relation."""
    kind: RelationKind | None
    """None: anywhere in the same photo."""
    other: Role
    region_id: int
    """Id of the region that is the other object."""
    z_score: float
    """Of that region as the other object, with its own relations, less `MISPLACED` if it is not so placed."""
    is_placed: bool
    """True if that region is placed as the relation says."""
    lost: float = 0.0
    """Amount that it takes from the score, 0 or more: only the relation that reaches least takes any."""


def rank_by_parts(
    gallery: GalleryReader, query: PartQuery, limit: int, filters: Filters | None = None
) -> list[Candidate]:
    """Return the `limit` best photos for a query with parts, best first; ties go to the lower photo id.

    All regions of the photos that are best for one of the objects are scored; their
    codes are compared in one pass.

    Args:
        filters: photos that do not pass are left out. Regions that do not pass are no answer, but may be
            the other object.

    Raises:
        GalleryDamaged: vectors, boxes or blocks are malformed.
    """
    with gallery.snapshot():  # the searches and the regions must belong together
        found = rank_queries(gallery, object_queries(query, limit, filters))
        return rank_found(gallery, query, found, limit, filters)


def object_queries(query: PartQuery, limit: int, filters: Filters | None) -> list[RankQuery]:
    """Return the searches that `rank_by_parts` begins with: one for each object."""
    depth = max(limit, LEAST_DEPTH)
    anywhere = None if filters is None else replace(filters, min_size=None, max_size=None)
    others = [RankQuery(role.vector, depth, anywhere) for role in query.target.others()]
    return [RankQuery(query.vectors, depth, filters, query.handicap, query.unlike), *others]


def rank_found(
    gallery: GalleryReader,
    query: PartQuery,
    found: Sequence[Sequence[Candidate]],
    limit: int,
    filters: Filters | None,
) -> list[Candidate]:
    """Rank the photos that the searches of `object_queries` have found; see `rank_by_parts`."""
    with gallery.snapshot():
        regions = _read_regions(gallery, sorted({each.photo_id for ranked in found for each in ranked}))
        is_answer = np.ones(regions.ids.size, np.bool_)
        if filters is not None:
            is_answer = np.isin(regions.ids, passing_regions(gallery, filters, regions.ids))
        roles = [role.vector for role in (query.target, *query.target.others())]
        scores = score_regions(gallery, regions.ids, np.stack([*query.vectors, *roles]))
        count = len(query.vectors)
        flat = scores[:count].max(axis=0)
        if query.unlike is not None:
            flat = query.unlike.lower(gallery, regions.ids, flat)
        table = np.stack([flat, *scores[count:]])
    best = sorted(_best_regions(query, regions, table, is_answer), key=lambda c: (-c.score, c.photo_id))
    return best[:limit]


def reach_relations(
    gallery: GalleryReader, query: PartQuery, photo_id: int, region_id: int
) -> list[RelationReach]:
    """Return what each relation of a description reaches if a region of a photo is the described object.

    Relations of the described object come first, each followed by those of its other object.

    Raises:
        GalleryDamaged: the photo does not have the region, or vectors or boxes are malformed.
    """
    regions = _read_regions(gallery, [photo_id])
    roles = [query.target, *query.target.others()]
    table = score_regions(gallery, regions.ids, np.stack([role.vector for role in roles]))
    if region_id not in regions.ids:
        raise GalleryDamaged(gallery.path, f"the vector of region {region_id} belongs to another photo")
    index = int(np.flatnonzero(regions.ids == region_id)[0])
    columns = {id(role): row[np.newaxis] for role, row in zip(roles, table, strict=True)}
    reached = [*_reaches(query.target, index, regions, columns)]
    direct = [each for each in reached if each.role is query.target]
    least = min(direct, key=lambda each: each.z_score)
    own = float(columns[id(query.target)][0, index]) - query.target.offset
    lost = query.weight * max(0.0, own - least.z_score)
    return [replace(each, lost=lost) if each is least else each for each in reached]


def _reaches(
    role: Role, index: int, regions: _PhotoRegions, columns: dict[int, Scores]
) -> Iterator[RelationReach]:
    """Yield what the relations of an object reach if the region at `index` is that object.

    Args:
        regions: those of one photo.
        columns: (1, n) scores by the `id` of the role.
    """
    boxes = regions.boxes[np.newaxis]
    is_whole = regions.is_whole[np.newaxis] & (regions.ids.size > 1)
    for kind, other in role.relations:
        below = (columns[id(each)] for each in other.others())
        (theirs,) = _reached(other, columns[id(other)] - other.offset, below, boxes, is_whole)
        is_placed = ~is_whole[0]
        if kind is None:
            is_placed[index] = False  # one region is not two objects
        else:
            is_placed &= relation_holds(kind, boxes)[0, index]
        values = theirs - MISPLACED * ~is_placed
        best = int(values.argmax())
        yield RelationReach(
            role, kind, other, int(regions.ids[best]), float(values[best]), bool(is_placed[best])
        )
        yield from _reaches(other, best, regions, columns)


def _read_regions(gallery: GalleryReader, photos: list[int]) -> _PhotoRegions:
    """Read the regions of photos; GalleryDamaged if a box is impossible."""
    nothing = np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros((0, len(_COLUMNS)))
    shares = share_photos(gallery, np.array(photos, np.int64))
    found = [nothing, *(_read_share(share) for share in shares)]
    ids, photo_ids, columns = (np.concatenate(each) for each in zip(*found, strict=True))
    order = np.lexsort([columns[:, 0], photo_ids])
    ids, photo_ids, columns = ids[order], photo_ids[order], columns[order]
    boxes = columns[:, 1:5] / np.tile(columns[:, 5:], 2)
    return _PhotoRegions(ids, photo_ids, columns[:, 0] == 0, boxes)


def _read_share(share: Share) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
    """Return ids (n,) and photos (n,) of the regions of some photos, and their other columns, (n, 7)."""
    file = share.member.file
    try:
        with share.reading():
            rows = file.connection.execute(_REGIONS, (json.dumps(share.own_ids.tolist()),))
            found = np.fromiter(rows, _REGION)
    except (TypeError, ValueError, OverflowError) as error:
        raise GalleryDamaged(file.path, f"a region's box: {error}") from error
    columns = np.stack([found[name] for name in _COLUMNS], axis=1)
    if not np.isfinite(columns).all() or (columns[:, 5:] <= 0).any():
        raise GalleryDamaged(file.path, "a region's box or its photo's size is impossible")
    return share.member.regions_to_union(found["id"]), share.member.to_union(found["photo"]), columns


_COLUMNS = ("ordinal", "x0", "y0", "x1", "y1", "width", "height")

_REGION = np.dtype([("id", np.int64), ("photo", np.int64), *((name, np.float64) for name in _COLUMNS)])

_REGIONS = (
    "select regions.id, photo_id, ordinal, x0, y0, x1, y1, width, height "
    "from json_each(?) cross join photos on photos.id = value cross join regions on photo_id = photos.id"
)


def _best_regions(
    query: PartQuery, regions: _PhotoRegions, table: Scores, is_answer: NDArray[np.bool_]
) -> Iterator[Candidate]:
    """Yield the best region of each photo that has one.

    Args:
        table: (r, n) scores of `query.vectors`, the target and all others, in this order.
        is_answer: (n,) True for the regions that may be the answer.
    """
    for rows in _padded_rows(regions.photos):
        is_real = rows >= 0
        columns = iter(np.where(is_real, table[:, rows], -np.inf))
        flat, own = next(columns), next(columns) - query.target.offset
        # Where no other region was found, the whole photo is all there is, and loses nothing.
        is_whole = regions.is_whole[rows] & (is_real.sum(axis=1, keepdims=True) > 1)
        reached = _reached(query.target, own, columns, regions.boxes[rows], is_whole)
        lost = np.subtract(own, reached, out=np.zeros_like(own), where=is_real)
        scores = flat - query.weight * lost - query.handicap * is_whole
        scores[~is_answer[rows]] = -np.inf
        for row, values, best in zip(rows, scores, scores.argmax(axis=1), strict=True):
            if values[best] > -np.inf:
                yield Candidate(int(regions.photos[row[0]]), int(regions.ids[row[best]]), float(values[best]))


def _padded_rows(photos: NDArray[np.int64]) -> Iterator[NDArray[np.int64]]:
    """Yield the regions of some photos at once: (p, r) indices, one row per photo, filled up with -1.

    Args:
        photos: (n,) the photo of each region, ascending.
    """
    starts = np.flatnonzero(np.diff(photos, prepend=-1))
    counts = np.diff(starts, append=photos.size)
    order = np.argsort(counts, kind="stable")  # so that photos at once have similar numbers of regions
    at = 0
    while at < order.size:
        group = order[at : at + max(1, PAIRS_AT_ONCE // int(counts[order[at]]) ** 2)]
        group = group[: max(1, PAIRS_AT_ONCE // int(counts[group[-1]]) ** 2)]
        offsets = np.arange(counts[group].max())
        yield np.where(offsets < counts[group, np.newaxis], starts[group, np.newaxis] + offsets, -1)
        at += group.size


def _reached(
    role: Role, own: Scores, columns: Iterator[Scores], boxes: BoxArray, is_whole: NDArray[np.bool_]
) -> Scores:
    """Return (p, n): the least of each region's own z-score and what its relations reach.

    Args:
        own: (p, n) z-scores of the regions of p photos for the role itself.
        columns: scores of the roles that follow in the order of `Role.others`, each (p, n).
        boxes: (p, n, 4).
        is_whole: (p, n) True for the whole photo, which has no place in itself.
    """
    reached = own
    for kind, other in role.relations:
        theirs = _reached(other, next(columns) - other.offset, columns, boxes, is_whole)
        if kind is None:
            reached = np.minimum(reached, _best_of_others(theirs - MISPLACED * is_whole))
            continue
        anywhere = theirs.max(axis=1, keepdims=True) - MISPLACED
        is_placed = relation_holds(kind, boxes) & ~is_whole[:, np.newaxis]
        placed = np.where(is_placed, theirs[:, np.newaxis], -np.inf).max(axis=2)
        reached = np.minimum(reached, np.maximum(placed, anywhere))
    return reached


def _best_of_others(scores: Scores) -> Scores:
    """Return (p, n): the best score of a photo's other regions, or the region's own less `MISPLACED`."""
    best = scores.argmax(axis=1)
    rows = np.arange(best.size)
    others = np.repeat(scores[rows, best][:, np.newaxis], scores.shape[1], axis=1)
    rest = scores.copy()
    rest[rows, best] -= MISPLACED
    others[rows, best] = rest.max(axis=1)
    return others
