"""The order in which a list of results is returned: after the cut-offs, which go by score."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Literal, TypeAlias

from matir_cli.masks import area
from matir_cli.search.results import SearchResult

SortKey: TypeAlias = Literal["score", "taken", "path", "size"]
"""Score: best first. Taken: oldest first, photos without a date last. Path: by the bytes of the path. Size:
the object that covers most of its photo first, photos without an object last."""


def sort_results(results: Sequence[SearchResult], key: SortKey) -> list[SearchResult]:
    """Return results in another order; their ranks stay those of the score, which also decides ties."""
    orders: dict[SortKey, Callable[[SearchResult], tuple[object, ...]]] = {
        "score": lambda _: (),
        "taken": lambda each: (each.photo.record.taken_at is None, each.photo.record.taken_at or ""),
        "path": lambda each: (os.fsencode(each.path),),
        "size": lambda each: (-object_share(each),),
    }
    order = orders[key]
    return sorted(results, key=lambda each: (*order(each), each.rank))


def object_share(result: SearchResult) -> float:
    """Return the fraction of the photo that the first object covers, 0..1: its mask, or else its box.

    -1 if the judge pointed at nothing.
    """
    if not result.objects:
        return -1.0
    record, first = result.photo.record, result.objects[0]
    if first.mask is not None:
        return record.share(area(first.mask))
    return first.box.area / (record.width * record.height)
