"""Cache of encoded photos in main memory, for further questions about them."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from hashlib import blake2b
from typing import TypeAlias

from matir_cli.engines.llama_cpp.bindings import SequenceState
from matir_cli.engines.protocols import JudgePhoto
from matir_cli.records import Verdict

PhotoKey: TypeAlias = tuple[int, bytes]
"""The photo's own key and a digest of its size and pixels: with it, neither a key given twice by
mistake nor a changed photo can return the encoding of another picture."""


def compute_photo_key(photo: JudgePhoto) -> PhotoKey:
    """Return the cache key of `photo`; takes about 1 ms per megapixel."""
    digest = blake2b(repr(photo.image.shape).encode(), digest_size=16)
    digest.update(photo.image.tobytes())
    return photo.key, digest.digest()


@dataclass(frozen=True, slots=True)
class CachedPrefix:
    """One photo's prefix: system line, opening of the user's turn, image."""

    state: SequenceState
    """The prefix as llama.cpp serialises it."""
    next_position: int
    """First free position after the prefix."""
    search: int
    """Number of the search, counted by the cache, that used the photo last."""
    margin: float
    """Highest margin of the photo's verdicts in that search; infinity before the first."""

    @property
    def priority(self) -> tuple[int, float]:
        """Sort key; the lowest is evicted first: photos of earlier searches, then the least likely."""
        return self.search, self.margin


class PrefixCache:
    """Encoded photos up to a number of bytes.

    A search first reranks its candidates, best first, and then grounds those with the highest margins. So
    the least recently used photo may be the best of all, and is not the one to evict. Evicted are first
    the photos of earlier searches, then those of the current one with the lowest margins.
    """

    def __init__(self, capacity: int) -> None:
        """Hold up to `capacity` bytes; 0 caches nothing."""
        self._capacity = capacity
        self._prefixes: dict[PhotoKey, CachedPrefix] = {}
        self._search = 0
        self._queries: tuple[str, ...] = ()

    def __contains__(self, key: PhotoKey) -> bool:
        return key in self._prefixes

    @property
    def size(self) -> int:
        """Bytes in the cache."""
        return sum(prefix.state.size for prefix in self._prefixes.values())

    @property
    def photos(self) -> frozenset[int]:
        """Keys, as in `JudgePhoto.key`, of the photos in the cache."""
        return frozenset(number for number, _ in self._prefixes)

    def get(self, key: PhotoKey) -> CachedPrefix:
        """Return the prefix of a photo; KeyError if it is not in the cache."""
        return self._prefixes[key]

    def put(self, key: PhotoKey, state: SequenceState, next_position: int) -> CachedPrefix:
        """Add a photo that was just encoded, with the highest priority until its verdicts are known.

        One that is larger than the cache is returned all the same.
        """
        prefix = CachedPrefix(state, next_position, self._search, float("inf"))
        if state.size <= self._capacity:
            self._prefixes[key] = prefix
        while self.size > self._capacity:
            del self._prefixes[min(self._prefixes, key=lambda other: self._prefixes[other].priority)]
        return prefix

    def record_verdicts(self, key: PhotoKey, queries: Sequence[str], verdicts: Sequence[Verdict]) -> None:
        """Set the priority of a photo from its verdicts; new `queries` begin a new search."""
        if tuple(queries) != self._queries:
            self._queries, self._search = tuple(queries), self._search + 1
        if key in self._prefixes:
            margin = max(verdict.margin for verdict in verdicts)
            self._prefixes[key] = replace(self._prefixes[key], search=self._search, margin=margin)

    def discard(self, key: PhotoKey) -> None:
        """Remove a photo, if it is in the cache."""
        self._prefixes.pop(key, None)

    def clear(self) -> None:
        """Remove everything."""
        self._prefixes.clear()
