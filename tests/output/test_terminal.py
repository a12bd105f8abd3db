"""The table of results, and text that is safe for a terminal."""

import re
from urllib.parse import unquote_to_bytes

import click
import pytest

from matir_cli.output.terminal import table_rows
from tests.output.odd_names import NAMES, make_result


@pytest.mark.parametrize("name", NAMES)
def test_the_table_shows_any_name_harmlessly(name: bytes) -> None:
    (line,) = table_rows(make_result(name), all_instances=False, link_host=None)
    shown = click.unstyle(line)
    shown.encode()  # no surrogates left either
    assert "\x1b" not in shown
    assert "\n" not in shown
    assert "\u202e" not in shown
    assert shown.split()[:3] == ["1", "0.250", "200,100,600,300"]


@pytest.mark.parametrize("name", NAMES)
def test_a_link_leads_to_the_file_whatever_it_is_called(name: bytes) -> None:
    (line,) = table_rows(make_result(name), all_instances=False, link_host="my host")
    before, url, shown, end, after = re.split(r"\x1b]8;;(.*?)\x1b\\", line)
    assert url.isascii()
    assert unquote_to_bytes(url) == b"file://my host/photos/" + name
    assert shown == table_rows(make_result(name), all_instances=False, link_host=None)[0][len(before) :]
    assert (end, after) == ("", "")


def test_further_objects_have_a_row_each() -> None:
    rows = table_rows(make_result(), all_instances=True, link_host=None)
    assert [row.split() for row in rows[1:]] == [["0,0,5,5"]]
