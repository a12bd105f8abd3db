"""Ratings and keywords, in the forms in which EXIF, IPTC and XMP hold them.

All of it is a stranger's: what is malformed counts as missing, and numbers and lengths are bounded.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Iterable, Mapping
from typing import Any

from matir_cli.photos.xmp_packet import DIGIKAM, DUBLIN_CORE, LIGHTROOM, MICROSOFT, XMP, XmpPacket

MOST_KEYWORDS = 500
"""Keywords of a file that are kept."""

LONGEST_KEYWORD = 250
"""Characters of a keyword that are kept; IPTC allows 64 bytes."""

REJECTED, HIGHEST = -1, 5
"""Least and greatest rating; 0 is unrated."""

LEVEL = "|"
"""Separates the levels of a hierarchical keyword, as in Lightroom: Places|France|Paris."""

EXIF_RATING, EXIF_PERCENT, EXIF_KEYWORDS = 0x4746, 0x4749, 0x9C9E
"""Tags of EXIF that Windows writes: Rating, RatingPercent, XPKeywords."""

_LISTS = (
    (f"{{{DUBLIN_CORE}}}subject", ""),
    (f"{{{LIGHTROOM}}}hierarchicalSubject", ""),
    (f"{{{DIGIKAM}}}TagsList", "/"),
    (f"{{{MICROSOFT}}}LastKeywordXMP", "/"),
    (f"{{{MICROSOFT[:-1]}}}LastKeywordXMP", "/"),
)
"""Lists of keywords in XMP, and what separates levels in them if it is not `LEVEL`."""

_RECORD = re.compile(rb"\x1c([\x01\x02])(.)(..)", re.DOTALL)
"""A data set of IPTC: marker, record, data set, length."""

_UTF8_MARK = b"\x1b%G"


def clean_keywords(keywords: Iterable[str]) -> tuple[str, ...]:
    """Return keywords without control characters, composed (NFC), each once ignoring case, bounded."""
    kept: dict[str, str] = {}
    for keyword in keywords:
        visible = "".join(
            " " if unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp") else c
            for c in keyword[: 4 * LONGEST_KEYWORD]
        )
        text = " ".join(unicodedata.normalize("NFC", visible).split())[:LONGEST_KEYWORD].rstrip()
        if text:
            kept.setdefault(folded(text), text)
        if len(kept) >= MOST_KEYWORDS:
            break
    return tuple(kept.values())


def folded(text: str) -> str:
    """Return a text in the form in which keywords are compared: composed and without case."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", text).casefold())


def exif_rating(exif: Mapping[int, Any]) -> int | None:
    """Return the rating in EXIF, 0..5: as a number, or else as a percentage; None if there is none."""
    rating = _number(exif.get(EXIF_RATING))
    return _stars(rating) if rating is not None else _stars_of_percent(_number(exif.get(EXIF_PERCENT)))


def xmp_rating(packet: XmpPacket) -> int | None:
    """Return the rating in XMP, -1 (rejected) to 5: xmp:Rating, or else MicrosoftPhoto:Rating in percent."""
    rating = _number(packet.texts.get(f"{{{XMP}}}Rating"))
    if rating is not None:
        return _stars(rating)
    names = (f"{{{space}}}Rating" for space in (MICROSOFT, MICROSOFT[:-1]))
    percents = (_number(packet.texts.get(name)) for name in names)
    return _stars_of_percent(next((percent for percent in percents if percent is not None), None))


def exif_keywords(exif: Mapping[int, Any]) -> list[str]:
    """Return the keywords that Windows writes to EXIF: UTF-16, separated by semicolons."""
    value = exif.get(EXIF_KEYWORDS)
    if isinstance(value, tuple) and all(isinstance(byte, int) and 0 <= byte < 256 for byte in value):
        value = bytes(value)
    if not isinstance(value, bytes):
        return []
    return value.decode("utf-16-le", "ignore").split("\0", 1)[0].split(";")


def iptc_keywords(content: bytes) -> list[str]:
    """Return the keywords of IPTC data sets (2:25).

    They are UTF-8 if data set 1:90 says so, or if they are valid as such; else Latin-1, as in exiftool.
    """
    keywords: list[bytes] = []
    is_utf8 = False
    place = 0
    while (match := _RECORD.match(content, place)) and len(keywords) < MOST_KEYWORDS:
        record, kind, length = match[1][0], match[2][0], int.from_bytes(match[3], "big")
        if length > 0x7FFF:  # an extended data set, which no keyword is
            break
        value = content[match.end() : match.end() + length]
        place = match.end() + length
        if (record, kind) == (1, 90):
            is_utf8 = value == _UTF8_MARK
        elif (record, kind) == (2, 25):
            keywords.append(value)
    return [_decoded(keyword, is_utf8) for keyword in keywords]


def xmp_keywords(packet: XmpPacket) -> list[str] | None:
    """Return the keywords in XMP; the levels of hierarchical ones are separated by `LEVEL`.

    None if the packet has no list of keywords; an empty list if it has an empty one.
    """
    found: list[str] | None = None
    for name, separator in _LISTS:
        listed = packet.lists.get(name)
        if listed is None and name in packet.texts:
            listed = (packet.texts[name],)
        if listed is not None:
            levelled = (each.replace(separator, LEVEL) if separator else each for each in listed)
            found = [*(found or ()), *levelled]
    return found


def _decoded(value: bytes, is_utf8: bool) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError:
        return value.decode("utf-8", "replace") if is_utf8 else value.decode("latin-1")


def _number(value: object) -> float | None:
    """Return a finite number from a number or a text; None if it is none."""
    if not isinstance(value, str | int | float):
        return None
    try:
        number = float(value if not isinstance(value, str) else value.strip()[:40])
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def _stars(rating: float) -> int | None:
    """Return a rating; decimals are cut off, as in darktable. None if it is out of range."""
    if rating < 0:
        return REJECTED
    return int(rating) if rating < HIGHEST + 1 else None


def _stars_of_percent(percent: float | None) -> int | None:
    """Return the rating that Windows shows for a percentage: it writes 1, 25, 50, 75 and 99."""
    if percent is None or not 0 <= percent <= 100:
        return None
    return 0 if percent == 0 else 1 + sum(percent >= least for least in (13, 38, 63, 88))
