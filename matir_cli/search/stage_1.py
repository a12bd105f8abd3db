"""Stage 1 of encoded queries, with or without parts, one by one or several in one pass over the codes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from matir_cli.gallery.union import GalleryReader, members_of
from matir_cli.records import Candidate
from matir_cli.search.encoding import EncodedQuery
from matir_cli.search.filters import Filters
from matir_cli.search.parts import object_queries, rank_found
from matir_cli.search.rank import RankQuery, rank_queries
from matir_cli.search.upper_bounds import vectors_at_once


@dataclass(frozen=True, slots=True)
class Stage1Ranking:
    """What stage 1 found for a query, ahead of the rest of its search."""

    encoded: EncodedQuery
    ranked: list[Candidate]
    """Best first."""
    state: tuple[int, ...]
    """`file_state` when the photos were ranked, or before."""

    def is_current(self, gallery: GalleryReader) -> bool:
        """Return True unless another process has written to the gallery since."""
        return self.state == file_state(gallery)


def file_state(gallery: GalleryReader) -> tuple[int, ...]:
    """Return numbers that change with every commit of other connections to the gallery."""
    return tuple(int(member.file.connection.pragma("data_version")) for member in members_of(gallery))


def rank_encoded(
    gallery: GalleryReader, query: EncodedQuery, limit: int, filters: Filters | None = None
) -> list[Candidate]:
    """Return the `limit` best photos, best first; errors as in `rank.rank_photos`."""
    (ranked,) = rank_each(gallery, [query], limit, filters)
    return ranked


def rank_each(
    gallery: GalleryReader, queries: Iterable[EncodedQuery], limit: int, filters: Filters | None = None
) -> Iterator[list[Candidate]]:
    """Yield what `rank_encoded` returns for each of the queries.

    One pass over the codes serves as many of them as `upper_bounds.vectors_at_once` says. Each pass is one
    snapshot of the gallery, so that other processes need not wait for all.
    """
    group: list[_Searches] = []
    for query in queries:
        searches = _Searches.of(query, limit, filters)
        if group and sum(each.vectors for each in (*group, searches)) > vectors_at_once(gallery):
            yield from _rank_group(gallery, group)
            group = []
        group.append(searches)
    yield from _rank_group(gallery, group)


@dataclass(frozen=True, slots=True)
class _Searches:
    """A query and the searches of which its ranking is made."""

    query: EncodedQuery
    parts: Sequence[RankQuery]
    limit: int
    filters: Filters | None

    @classmethod
    def of(cls, query: EncodedQuery, limit: int, filters: Filters | None) -> _Searches:
        whole = RankQuery(query.vectors, limit, filters, query.handicap, query.unlike)
        parts = [whole] if query.parts is None else object_queries(query.parts, limit, filters)
        return cls(query, parts, limit, filters)

    @property
    def vectors(self) -> int:
        """Number of vectors to compare."""
        return sum(1 if part.vectors.ndim == 1 else len(part.vectors) for part in self.parts)

    def rank(self, gallery: GalleryReader, found: Sequence[list[Candidate]]) -> list[Candidate]:
        """Return the ranking, given those of `parts`."""
        if self.query.parts is None:
            return found[0]
        return rank_found(gallery, self.query.parts, found, self.limit, self.filters)


def _rank_group(gallery: GalleryReader, group: Sequence[_Searches]) -> list[list[Candidate]]:
    """Return the rankings of some queries, from one snapshot."""
    with gallery.snapshot():  # the searches and what is read of their photos must belong together
        found = iter(rank_queries(gallery, [part for each in group for part in each.parts]))
        return [each.rank(gallery, [next(found) for _ in each.parts]) for each in group]
