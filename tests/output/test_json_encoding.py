"""Records as JSON lines."""

import json
import os
from dataclasses import dataclass
from pathlib import Path

import pytest

from matir_cli.output.json_encoding import to_json


@dataclass(frozen=True)
class Inner:
    number: int | None


@dataclass(frozen=True)
class Outer:
    path: Path
    inner: Inner
    other: object = None


def test_fields_without_a_value_are_left_out() -> None:
    assert json.loads(to_json(Outer(Path("/a"), Inner(None)))) == {"path": "/a", "inner": {}}


def test_a_line_is_ascii_and_keeps_every_byte_of_a_path() -> None:
    raw = b"/\xff\xe2\x82\xac\n.jpg"
    line = to_json(Outer(Path(os.fsdecode(raw)), Inner(1)))
    assert line.isascii()
    assert "\n" not in line
    assert os.fsencode(json.loads(line)["path"]) == raw


def test_other_values_are_refused() -> None:
    with pytest.raises(TypeError, match="set"):
        to_json(Outer(Path("/a"), Inner(1), {1}))
