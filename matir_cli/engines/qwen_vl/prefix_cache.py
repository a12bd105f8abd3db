"""Photos that a judge has already encoded, kept in main memory for the next question."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from hashlib import blake2b
from typing import TypeAlias

from matir_cli.engines.llama_cpp.bindings import State
from matir_cli.engines.protocols import JudgePhoto
from matir_cli.records import Verdict

PhotoKey: TypeAlias = tuple[int, bytes]
"""The photo's own key and a digest of its size and pixels: a key given twice by mistake, or a
photo that changed, never gets another picture's answer."""


def photo_key(photo: JudgePhoto) -> PhotoKey:
    """What `photo` is kept under; about 1 ms a megapixel."""
    digest = blake2b(repr(photo.image.shape).encode(), digest_size=16)
    digest.update(photo.image.tobytes())
    return photo.key, digest.digest()


@dataclass(frozen=True, slots=True)
class _Kept:
    """One photo's prefix: system line, opening of the user's turn, image."""

    state: State
    position: int
    round: int
    margin: float

    @property
    def worth(self) -> tuple[int, float]:
        """What is given up first: older questions, then what was judged least likely."""
        return self.round, self.margin


class PrefixStore:
    """Encoded photos up to a number of bytes.

    A search reranks its candidates best first and then grounds those with the highest
    margins, so the longest unused is not what to give up: it may be the best of all. Given
    up is the lowest margin among the photos of this search, after all those of earlier ones.
    """

    def __init__(self, room: int) -> None:
        """`room` in bytes; 0 keeps nothing."""
        self._room = room
        self._kept: dict[PhotoKey, _Kept] = {}
        self._round = 0
        self._queries: tuple[str, ...] = ()

    def __contains__(self, key: PhotoKey) -> bool:
        return key in self._kept

    @property
    def size(self) -> int:
        """Bytes kept."""
        return sum(kept.state.size for kept in self._kept.values())

    @property
    def photos(self) -> frozenset[int]:
        """The photos' own keys."""
        return frozenset(number for number, _ in self._kept)

    def get(self, key: PhotoKey) -> tuple[State, int]:
        """State and next free position of a photo that is in the store."""
        kept = self._kept[key]
        return kept.state, kept.position

    def put(self, key: PhotoKey, state: State, position: int) -> None:
        """Keeps a photo just encoded, as the most wanted until `judged` says otherwise."""
        if state.size > self._room:
            return
        self._kept[key] = _Kept(state, position, self._round, float("inf"))
        while self.size > self._room:
            del self._kept[min(self._kept, key=lambda other: self._kept[other].worth)]

    def judged(self, key: PhotoKey, queries: Sequence[str], verdicts: Sequence[Verdict]) -> None:
        """Remembers how likely the photo is to be asked about again."""
        if tuple(queries) != self._queries:
            self._queries, self._round = tuple(queries), self._round + 1
        if key in self._kept:
            margin = max(verdict.margin for verdict in verdicts)
            self._kept[key] = replace(self._kept[key], round=self._round, margin=margin)

    def clear(self) -> None:
        """Forgets everything."""
        self._kept.clear()
