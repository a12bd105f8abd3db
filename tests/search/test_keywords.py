"""Ratings and keywords as people ask for them."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from matir_cli.search.keywords import keyword_matcher, parse_rating


def test_ratings_as_people_write_them() -> None:
    texts = ("3", "3+", "2-4", "0", "0+", " 5 ", "1 - 1", "Rejected")
    expected = [(3, 3), (3, 5), (2, 4), (0, 0), (0, 5), (5, 5), (1, 1), (-1, -1)]
    assert [parse_rating(text) for text in texts] == expected
    for text in ("", "6", "-1", "3++", "+", "4-2", "3-6", "three", "٣", "3.0"):
        with pytest.raises(ValueError, match="rating"):
            parse_rating(text)


@pytest.mark.parametrize(
    ("wanted", "keyword", "expected"),
    [
        ("dog", "Dog", True),
        ("dog", "dogs", False),
        ("dog*", "dogs", True),
        ("*og", "DOG", True),
        ("*", "", True),
        ("d*g*e", "dog house", True),
        ("a.b", "axb", False),
        ("[ab]", "a", False),
        ("STRASSE", "Straße", True),
        ("e\u0301lan", "\xc9lan", True),
        ("france", "Places|France|Paris", True),
        ("Places|France|Paris", "places|france|paris", True),
        ("places|france", "Places|France|Paris", False),
        ("places|*", "Places|France|Paris", True),
        ("dog  on a lead ", "dog on a lead", True),
    ],
)
def test_keywords_match_as_a_whole_without_case(wanted: str, keyword: str, expected: bool) -> None:
    assert keyword_matcher(wanted)(keyword) is expected


@settings(derandomize=True, deadline=None)
@given(st.text(st.characters(exclude_characters="*|"), max_size=10), st.text(max_size=10))
def test_a_keyword_is_found_by_itself_and_by_its_parts(keyword: str, rest: str) -> None:
    stripped = " ".join(keyword.split())
    assert keyword_matcher(stripped)(stripped)
    assert keyword_matcher("*")(rest)
    assert keyword_matcher(f"{stripped}*")(stripped + "x")
