"""Dates as cameras and programs write them, right and almost right, as ISO 8601."""

from __future__ import annotations

import re
from contextlib import suppress
from datetime import datetime

EARLIEST_YEAR = 1800
"""Earlier dates, such as the year 1 that some programs write for "unknown", are no dates of photos."""

_DATE = re.compile(
    r"(?P<year>\d{4})[-:/. \0](?P<month>\d{1,2})[-:/. \0](?P<day>\d{1,2})"
    r"(?:[T\s]+(?P<hour>\d{1,2})[:.](?P<minute>\d{1,2})(?:[:.](?P<second>\d{1,2}))?)?(?!\d)",
    re.ASCII,
)
_COMPACT = re.compile(
    r"(?P<year>\d{4})(?P<month>\d\d)(?P<day>\d\d)(?:T?(?P<hour>\d\d)(?P<minute>\d\d)(?P<second>\d\d)?)?(?!\d)",
    re.ASCII,
)


def parse_date(written: object) -> str | None:
    """Return a date and time as ISO 8601 to the second, without a zone; None if there is none.

    Read are EXIF's form (2024:05:06 07:08:09) and ISO 8601 (2024-05-06T07:08:09), with other separators,
    without seconds, and without a time, which is then midnight. A fraction of a second and a zone behind
    it are left out: the time is the local one of the camera. A time that does not exist counts as none, and
    so does a date before `EARLIEST_YEAR`.

    Args:
        written: text, or bytes where a program gave the field another type.
    """
    text = written.decode("latin-1") if isinstance(written, bytes) else str(written or "")
    text = text.strip("\0 \t\r\n")
    match = _DATE.match(text) or _COMPACT.match(text)
    if match is None:
        return None
    year, month, day = (int(match[name]) for name in ("year", "month", "day"))
    try:
        date = datetime(year, month, day)
    except ValueError:
        return None
    if year < EARLIEST_YEAR:
        return None
    hour, minute, second = (int(match[name] or 0) for name in ("hour", "minute", "second"))
    with suppress(ValueError):
        date = date.replace(hour=hour, minute=minute, second=59 if second == 60 else second)
    return date.isoformat()
