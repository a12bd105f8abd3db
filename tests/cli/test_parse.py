"""`matir parse` in the real process: text and JSON, without a gallery."""

import json

import pytest

from tests.support.process import matir


def test_the_parts_of_a_description_are_listed() -> None:
    done = matir("parse", "two dogs without a leash, to the left of a tree, and a cat")
    assert done.returncode == 0, done.stderr
    assert done.stdout.decode().splitlines() == [
        "dogs",
        "  count: two",
        "  to the left of (left of):",
        "    tree",
        "  without: a leash (not like: dogs with a leash)",
        "and in the same photo:",
        "  cat",
    ]


@pytest.mark.parametrize("text", ["dog", "either a cat or a dog", "the man on the left"])
def test_a_description_without_parts_says_so(text: str) -> None:
    done = matir("parse", text)
    assert done.returncode == 0
    assert done.stdout.decode().splitlines()[-1] == "no parts: the text is compared as a whole"


def test_json_has_everything_that_was_understood() -> None:
    record = json.loads(matir("parse", "house without a door, left of a red car", "--json").stdout)
    assert record["text"] == "house without a door, left of a red car"
    target = record["target"]
    assert (target["text"], target["head"]) == ("house", "house")
    (relation,) = target["relations"]
    assert (relation["kind"], relation["other"]["modifiers"]) == ("left of", ["red"])
    assert target["absences"] == [
        {"words": "without", "absent": "a door", "counterpart": "house with a door"}
    ]
    assert record["others"] == []


@pytest.mark.parametrize("text", ["", " ", b"a d\xffg"])
def test_a_text_without_words_is_refused(text: str | bytes) -> None:
    done = matir("parse", text)
    assert done.returncode == 2
    assert done.stdout == b""
    assert len(done.stderr.decode().splitlines()) <= 2
