"""Ratings and keywords as people ask for them, and how keywords match."""

from __future__ import annotations

import re
from collections.abc import Callable

from matir_cli.photos.descriptive import HIGHEST, LEVEL, REJECTED, folded

_RATINGS = re.compile(r"\s*(?:(rejected)|([0-5])\s*(\+|-\s*([0-5]))?)\s*", re.ASCII | re.IGNORECASE)


def parse_rating(text: str) -> tuple[int, int]:
    """Parse ratings for `Filters`: 3, 3+, 2-4, 0 (unrated) or rejected; return the least and the greatest.

    Raises:
        ValueError: `text` is none of these; the message gives examples.
    """
    match = _RATINGS.fullmatch(text)
    if match is None:
        raise ValueError(f"{text!r} is no rating such as 3, 3+, 2-4, 0 (unrated) or rejected.")
    if match[1]:
        return REJECTED, REJECTED
    least = int(match[2])
    most = least if match[3] is None else HIGHEST if match[4] is None else int(match[4])
    if most < least:
        raise ValueError(f"{text!r} is no range of ratings: the lower one comes first, as in 2-4.")
    return least, most


def keyword_matcher(wanted: str) -> Callable[[str], bool]:
    """Return a function that tells if a keyword is the wanted one.

    Case and Unicode's form of composition do not count. A * stands for any characters. A hierarchical
    keyword, such as Places|France|Paris, is the wanted one as a whole or by one of its levels.
    """
    parts = (re.escape(part) for part in " ".join(folded(wanted).split()).split("*"))
    pattern = re.compile(".*".join(parts), re.DOTALL)

    def matches(keyword: str) -> bool:
        text = folded(keyword)
        levels = [text, *(level.strip() for level in text.split(LEVEL))] if LEVEL in text else [text]
        return any(pattern.fullmatch(level) for level in levels)

    return matches
