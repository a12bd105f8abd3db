"""Dates as programs write them."""

from datetime import datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from matir_cli.photos.dates import EARLIEST_YEAR, parse_date


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("2024:05:06 07:08:09", "2024-05-06T07:08:09"),
        ("2024-05-06 07:08:09", "2024-05-06T07:08:09"),
        ("2024-05-06T07:08:09", "2024-05-06T07:08:09"),
        ("2024/05/06 07:08:09\0", "2024-05-06T07:08:09"),
        ("2024.05.06 07.08.09", "2024-05-06T07:08:09"),
        ("2024:05:06 07:08:09.123", "2024-05-06T07:08:09"),
        ("2024:05:06 07:08:09+02:00", "2024-05-06T07:08:09"),
        ("2024-05-06T07:08:09.5-0500", "2024-05-06T07:08:09"),
        ("2024-05-06T07:08:09Z", "2024-05-06T07:08:09"),
        ("2024-05-06T07:08+02:00", "2024-05-06T07:08:00"),
        ("2024:5:6 7:08:09", "2024-05-06T07:08:09"),
        ("20240506T070809", "2024-05-06T07:08:09"),
        ("20240506", "2024-05-06T00:00:00"),
        ("2024:05:06", "2024-05-06T00:00:00"),
        ("2024\x0005\x0006", "2024-05-06T00:00:00"),  # Casio's GPS date
        ("2024:05:06 24:00:00", "2024-05-06T00:00:00"),
        ("2024:05:06 07:08:60", "2024-05-06T07:08:59"),
        ("2024:05:06   :  :  ", "2024-05-06T00:00:00"),
        (b"2024:05:06 07:08:09\0", "2024-05-06T07:08:09"),
        ("0000:00:00 00:00:00", None),
        ("    :  :     :  :  ", None),
        ("\0" * 20, None),
        ("", None),
        ("yesterday", None),
        ("2024", None),
        ("2024-05", None),
        ("2024:13:01 00:00:00", None),
        ("2023:02:29 00:00:00", None),
        ("0001:01:01 00:00:00", None),
        ("١٩٩٩:٠١:٠١ 00:00:00", None),
        (None, None),
        (20240506, "2024-05-06T00:00:00"),
        ((1, 2), None),
    ],
)
def test_dates_are_read_leniently(written: object, expected: str | None) -> None:
    assert parse_date(written) == expected


@settings(derandomize=True, deadline=None)
@given(
    st.datetimes(min_value=datetime(EARLIEST_YEAR, 1, 1)),
    st.sampled_from("-:/."),
    st.sampled_from([" ", "T", "  "]),
    st.sampled_from(["", "Z", "+02:00", "-0330", ".25", ".25+01:00", "\0\0"]),
)
def test_every_form_gives_the_same_date(date: datetime, between: str, middle: str, behind: str) -> None:
    day = between.join((f"{date.year:04}", f"{date.month:02}", f"{date.day:02}"))
    written = f"{day}{middle}{date:%H:%M:%S}{behind}"
    assert parse_date(written) == date.replace(microsecond=0).isoformat()


@settings(derandomize=True, deadline=None)
@given(st.text(max_size=30) | st.binary(max_size=30) | st.from_regex(r"\A\d{4}[-:]\d\d?[-:]\d\d?.{0,12}\Z"))
def test_anything_gives_a_date_or_none(written: object) -> None:
    date = parse_date(written)
    assert date is None or datetime.fromisoformat(date).isoformat() == date
