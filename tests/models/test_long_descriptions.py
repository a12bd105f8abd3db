"""Long descriptions of the drawn world: words, groups and the objects that fulfil them."""

import re

import pytest

from matir_cli.models.tiny import world
from matir_cli.models.tiny.benchmark import WORLD_LONG
from matir_cli.models.tiny.grammar import Phrase, Query, fulfils
from matir_cli.models.tiny.long_descriptions import (
    MIN_PICTURES,
    Clause,
    LongDescription,
    draw_descriptions,
)


@pytest.fixture(scope="module")
def pictures() -> list[world.Picture]:
    return [world.picture(seed) for seed in WORLD_LONG.seeds("validation")[:120]]


def test_descriptions_are_fixed_different_and_true_of_several_pictures(pictures: list[world.Picture]) -> None:
    drawn = draw_descriptions("validation", pictures, 30)
    assert [each.text for each in drawn] == [
        each.text for each in draw_descriptions("validation", pictures, 30)
    ]
    assert len({each.text for each in drawn}) == 30
    assert [len(each.clauses) for each in drawn] == [2] * 15 + [3] * 15
    for each in drawn:
        assert sum(bool(each.things(picture)) for picture in pictures) >= MIN_PICTURES
        assert re.fullmatch(r"(an?|the) [a-z, ]+", each.text)
        assert each.look.kind in each.text
        assert each.group.startswith("two" if len(each.clauses) == 2 else "three")


def test_every_clause_is_in_the_words_and_holds(pictures: list[world.Picture]) -> None:
    for each in draw_descriptions("test", pictures, 20):
        for clause in each.clauses:
            assert clause.verb in each.text or (clause.adjunct and clause.adjunct in each.text)
            for picture in pictures:
                fulfilling = fulfils(clause.query, picture)
                assert all((thing in fulfilling) != clause.is_denied for thing in each.things(picture))


def test_a_denied_clause_excludes_and_others_require(pictures: list[world.Picture]) -> None:
    ball = Phrase("ball")
    inside = Query(ball, "inside", Phrase("ring"))
    loose = Query(Phrase("ball", part="no rope"))
    denied = LongDescription("", ball, (Clause(inside, "", "", is_denied=True), Clause(loose, "", "")))
    required = LongDescription("", ball, (Clause(inside, "", ""), Clause(loose, "", "")))
    assert (denied.group, required.group) == ("two clauses, negated", "two clauses, negated")
    for picture in pictures:
        without_rope, in_ring = set(fulfils(loose, picture)), set(fulfils(inside, picture))
        assert set(denied.things(picture)) == without_rope - in_ring
        assert set(required.things(picture)) == without_rope & in_ring
    assert any(denied.things(picture) for picture in pictures)
    assert any(required.things(picture) for picture in pictures)
