import pytest

from matir_cli.cli.text import count_of, list_some, readable_size


def test_a_count_goes_with_its_noun() -> None:
    assert count_of(1, "photo") == "1 photo"
    assert count_of(0, "photo") == "0 photos"
    assert count_of(12_345, "query", "queries") == "12,345 queries"
    assert count_of(1, "query", "queries") == "1 query"


def test_a_long_list_names_the_first() -> None:
    assert list_some(["a", "b"]) == "a, b"
    assert list_some(list("abcdefg")) == "a, b, c, d, e and 2 more"


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1_000, "1 kB"),
        (999_499, "999 kB"),
        (999_500, "1 MB"),
        (1_234_567, "1.23 MB"),
        (9_860_000_000, "9.86 GB"),
        (1_234_000_000_000, "1234.00 GB"),
    ],
)
def test_a_size_has_about_three_digits(count: int, text: str) -> None:
    assert readable_size(count) == text
