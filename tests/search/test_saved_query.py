"""Saved queries: what is written is read again, and nothing else is."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from matir_cli.records import Box, Point
from matir_cli.search.filters import Filters
from matir_cli.search.pipeline import SearchOptions
from matir_cli.search.query import ExampleRule
from matir_cli.search.saved_query import LONGEST_JSON, SavedExample, SavedQuery, read_saved_query

DIGEST = "0123456789abcdef" * 4

FULL = SavedQuery(
    "a red ball",
    (SavedExample(DIGEST, Box(1, 2.5, 30, 40)), SavedExample(DIGEST)),
    0.25,
    ("a cat", "a hat"),
    SearchOptions(
        limit=3,
        candidates=7,
        certainty=0.5,
        min_p=0.25,
        min_score=-0.5,
        match="joint",
        min_iou=0.5,
        refine=True,
        unique=True,
        budget=2.5,
        filters=Filters((Path("/photos/caf\udce9"),), "2024-05", "2025", "Pixel", 0.1, 0.5),
    ),
    (SavedExample(DIGEST, point=Point(3, 4)),),
    "mean",
)


def test_everything_is_read_again() -> None:
    text = FULL.to_json()
    assert text.isascii()
    assert read_saved_query(text) == FULL


def test_defaults_are_not_written() -> None:
    plain = SavedQuery("a ball", (), 0.5, (), SearchOptions())
    assert json.loads(plain.to_json()) == {"query": {"text": "a ball"}}
    assert read_saved_query('{"query": {"text": "a ball"}}') == plain


words = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=8).filter(
    lambda text: text.strip("\ufeff").strip() == text
)
share = st.floats(0, 1)
examples = st.builds(SavedExample, st.just(DIGEST), st.none(), st.none() | st.just(Point(3, 4)))


@given(
    st.none() | words.map(lambda text: f"a {text}"),
    st.lists(examples, min_size=1, max_size=3).map(tuple),
    share,
    st.lists(words.map(lambda text: f"a {text}"), max_size=2, unique=True).map(tuple),
    st.builds(
        SearchOptions, limit=st.integers(1, 1000), certainty=share, whole=st.booleans(), ground=st.booleans()
    ),
    st.lists(examples, max_size=2).map(tuple),
    st.sampled_from(["max", "mean"]),
)
@settings(max_examples=60, deadline=None, derandomize=True)
def test_any_query_is_read_again(
    text: str | None,
    shown: tuple[SavedExample, ...],
    weight: float,
    without: tuple[str, ...],
    options: SearchOptions,
    unlike: tuple[SavedExample, ...],
    rule: ExampleRule,
) -> None:
    saved = SavedQuery(text, shown, weight, without, options, unlike, rule)
    assert read_saved_query(saved.to_json()) == saved


PATHS: list[tuple[str | int, ...]] = [
    (),
    ("query",),
    ("query", "examples", 0),
    ("query", "examples", 0, "box"),
    ("query", "unlike", 0),
    ("filters",),
    ("options",),
]

ODD: list[Any] = [
    None,
    True,
    -1,
    10**30,
    1.5,
    "x" * 50,
    "\udcff",
    [],
    {},
    [1],
    {"a": 1},
    "../etc/passwd",
    "2024",
]


@given(st.sampled_from(PATHS), st.data())
@settings(max_examples=300, deadline=None, derandomize=True)
def test_a_changed_query_is_one_that_could_be_saved_or_is_refused(
    path: tuple[str | int, ...], data: st.DataObject
) -> None:
    saved = json.loads(FULL.to_json())
    place = saved
    for name in path:
        place = place[name]
    place[data.draw(st.sampled_from([*place, "masks", "models", "output", "path"]))] = data.draw(
        st.sampled_from(ODD)
    )
    try:
        read = read_saved_query(json.dumps(saved))
    except ValueError:
        return
    assert read_saved_query(read.to_json()) == read
    assert all(place.is_absolute() for place in (read.options.filters or Filters()).places)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        '{"query": {}}',
        '{"query": {"text": ""}}',
        '{"query": {"without": ["a"]}}',
        '{"query": {"text": "a \\udcff"}}',
        '{"query": {"text": "a"}, "options": {"limit": NaN}}',
        '{"query": {"text": "a"}, "options": {"limit": 1000000}}',
        '{"query": {"text": "a"}, "options": {"fresh": true}}',
        '{"query": {"text": "a"}, "options": {"filters": {}}}',
        '{"query": {"text": "a"}, "options": {"rerank": false, "min_p": 0.5}}',
        '{"query": {"text": "a"}, "output": {"masks": "/etc"}}',
        '{"query": {"text": "a"}, "filters": {"places": ["photos"]}}',
        '{"query": {"text": "a"}, "filters": {"places": ["/a\\u0000b"]}}',
        '{"query": {"text": "a"}, "filters": {"since": "yesterday"}}',
        '{"query": {"text": "a", "image": "/etc/passwd"}}',
        '{"query": {"examples": [{"photo": "/etc/passwd"}]}}',
        '{"query": {"examples": "a"}}',
        f'{{"query": {{"unlike": [{{"photo": "{DIGEST}"}}]}}}}',
        f'{{"query": {{"text": "a", "examples": {json.dumps([{"photo": DIGEST}] * 33)}}}}}',
        f'{{"query": {{"examples": [{{"photo": "{DIGEST}"}}], "rule": "least"}}}}',
        '{"query": {"examples": [{"photo": "DIGEST", "box": {"x0": 3, "y0": 1, "x1": 2, "y1": 2}}]}}'.replace(
            "DIGEST", DIGEST
        ),
        "[" * 5000,
        f'{{"query": {{"text": "{"a" * LONGEST_JSON}"}}}}',
    ],
)
def test_what_is_no_saved_query_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="saved search"):
        read_saved_query(text)
