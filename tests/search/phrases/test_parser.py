"""The parser of descriptions, on a table of descriptions with the expected parse, and on random texts."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from matir_cli.search.phrases import grammar
from matir_cli.search.phrases.description import Description, Phrase, RelationKind
from matir_cli.search.phrases.parser import MAX_DEPTH, MAX_WORDS, parse_phrase

TABLE = Path(__file__).parent / "descriptions.txt"

ARROW = " => "


def notation(description: Description) -> str:
    """A description in the notation of the table."""
    return " & ".join(_phrase(phrase) for phrase in (description.target, *description.others))


def _phrase(phrase: Phrase) -> str:
    parts = [phrase.text]
    if phrase.head != phrase.text:
        parts.append("{" + phrase.head + "}")
    if phrase.count is not None:
        parts.append(f"#{phrase.count}")
    if phrase.place is not None:
        parts.append(f"@{phrase.place}")
    for relation in phrase.relations:
        parts.append(f"[{relation.kind.value} | {relation.words} | {_phrase(relation.other)}]")
    for absence in phrase.absences:
        parts.append(f"[NOT | {absence.words} | {absence.absent} | {absence.counterpart}]")
    return " ".join(parts)


def table() -> Iterator[tuple[str, str]]:
    """Description and expected notation of each line of the table."""
    for line in TABLE.read_text(encoding="utf-8").splitlines():
        if line and not line.startswith("#"):
            description, expected = line.split(ARROW)
            yield description, expected


@pytest.mark.parametrize(("text", "expected"), [*table()])
def test_a_description_is_understood_as_in_the_table(text: str, expected: str) -> None:
    assert notation(parse_phrase(text)) == expected


def test_the_table_is_long_and_covers_every_relation() -> None:
    parsed = [parse_phrase(text) for text, _ in table()]
    assert len(parsed) >= 150
    kinds = {relation.kind for each in parsed for relation in each.target.relations}
    assert kinds == set(RelationKind)
    assert sum(each.has_parts for each in parsed) > 80
    assert sum(not each.has_parts for each in parsed) > 50


@pytest.mark.parametrize(
    ("kind", "words"), [(kind, words) for kind, entries in grammar.RELATIONS.items() for words in entries]
)
def test_every_relation_of_the_grammar_is_understood_between_two_objects(
    kind: RelationKind, words: str
) -> None:
    target = parse_phrase(f"a red box {words} a small table").target
    (relation,) = target.relations
    assert (relation.kind, relation.words, relation.other.text) == (kind, words, "small table")
    is_attribute = kind is RelationKind.ATTRIBUTE
    assert target.text == (f"red box {words} a small table" if is_attribute else "red box")


@pytest.mark.parametrize("words", grammar.ABSENCES)
def test_every_absence_has_a_counterpart_with_the_thing(words: str) -> None:
    (absence,) = parse_phrase(f"a red box {words} lid").target.absences
    assert (absence.words, absence.absent, absence.counterpart) == (words, "lid", "red box with lid")


@pytest.mark.parametrize("words", grammar.NEGATIONS)
def test_every_negation_has_a_counterpart_that_is_so(words: str) -> None:
    (absence,) = parse_phrase(f"a box, {words} red").target.absences
    assert (absence.words, absence.counterpart) == (words, "red box")


@pytest.mark.parametrize("place", grammar.PLACES)
def test_a_place_in_the_photo_is_no_relation(place: str) -> None:
    for text in (f"red box {place}", f"red box {place} of the photo"):
        target = parse_phrase(text).target
        assert (target.text, target.place, target.relations) == ("red box", place, ())


def phrases(description: Description) -> Iterator[Phrase]:
    waiting = [description.target, *description.others]
    while waiting:
        phrase = waiting.pop()
        yield phrase
        waiting += [relation.other for relation in phrase.relations]


WORDS = sorted(
    {
        word
        for entries in (
            *grammar.RELATIONS.values(),
            *(grammar.ABSENCES, grammar.NEGATIONS, grammar.NOBODY, grammar.RELATIVES, grammar.COPULAS),
            *(grammar.DETERMINERS, grammar.COUNTS, grammar.ACTIVITIES, grammar.PLACES, grammar.OPENERS),
            *(grammar.CONJUNCTIONS, grammar.UNKNOWN, (",", ";", '"', "'", "dog", "Haus", "red", "’s", ".")),
        )
        for entry in entries
        for word in entry.split()
    }
)


@settings(max_examples=400, deadline=None, derandomize=True)
@given(st.lists(st.sampled_from(WORDS), max_size=MAX_WORDS + 5).map(" ".join) | st.text())
def test_any_text_has_a_description_of_its_own_words(text: str) -> None:
    description = parse_phrase(text)
    assert description.text == " ".join(text.split())
    known = set(text.lower().replace("’", "'").replace("'s", " is").split())
    for phrase in phrases(description):
        assert phrase.text or not description.text
        if phrase.text != description.text:
            words = phrase.text.lower().replace("'s", " is").replace(",", " ").split()
            assert all(any(word in given for given in known) for word in words)


def test_a_text_of_any_length_or_depth_is_safe() -> None:
    deep = "a dog left of " * 50 + "a cat"
    for text in (deep, "a " * 100_000, "dog " * 100_000, '"' * 10_000, "not " * (MAX_WORDS - 1) + "red"):
        description = parse_phrase(text)
        assert not description.has_parts
        assert description.target.text == description.text
    nested = "a dog" + " left of a dog" * MAX_DEPTH
    assert parse_phrase(nested).has_parts
    assert not parse_phrase(f"{nested} left of a dog").has_parts
