"""Training questions about drawn pictures, balanced between true and false.

The words of a question must not give its answer away: with naive negatives, "on a rope" would nearly
always be false. So a false question is a true one with one element changed, and as many true as false
questions of each kind are kept, in pairs.
"""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias, TypeVar

import numpy as np

from matir_cli.models.tiny.grammar import (
    ANCHORS,
    ASKED_SIZES,
    PARTS_OF_KIND,
    Phrase,
    Query,
    describe_look,
    fulfils,
    part_of,
)
from matir_cli.models.tiny.shapes import COLOURS, KINDS, TEXTURES
from matir_cli.models.tiny.world import TIED, Picture, Thing

OPPOSITE = {"left of": "right of", "right of": "left of", "above": "below", "below": "above"}
FORMS = ("kind", "look", "part", "not", "side", "inside", "tied to")
"""Kinds of question, reported separately."""

Place: TypeAlias = tuple[int, int]
"""Position of a question: index of its picture, and its index among that picture's questions."""

Item = TypeVar("Item")


@dataclass(frozen=True)
class Question:
    """A query about a picture, and its answer."""

    query: Query
    form: str
    """One of `FORMS`."""
    things: tuple[int, ...]
    """Ids of the things that fulfil the query; empty if the answer is False."""


def ask(
    pictures: Sequence[Picture], count: int, forms: Mapping[str, float], seed: int, *, held_out: bool = False
) -> list[list[Question]]:
    """Draw up to `count` different questions about each picture.

    Args:
        forms: relative frequency with which each of `FORMS` is tried.
        held_out: include questions that are held out of training.
    """
    rng = np.random.default_rng((seed, 3))
    names, chances = list(forms), np.array(list(forms.values())) / sum(forms.values())
    drawn: list[list[Question]] = []
    for picture in pictures:
        by_text: dict[str, Question] = {}
        for form in rng.choice(names, p=chances, size=5 * count):
            thing = picture.things[int(rng.integers(len(picture.things)))]
            query = _TRUE[form](picture, thing, rng)
            if query is None:
                continue
            if rng.random() < 0.6:
                query = _alter(query, form, picture, rng)
            if held_out or not query.held_out:
                by_text[query.text] = Question(query, str(form), fulfils(query, picture))
        drawn.append(list(by_text.values()))
    return _balance(drawn, count, rng)


def _balance(drawn: list[list[Question]], count: int, rng: np.random.Generator) -> list[list[Question]]:
    """Keep as many true as false questions of each kind, and at most `count` per picture."""
    kinds: dict[str, tuple[list[Place], list[Place]]] = defaultdict(lambda: ([], []))
    for picture, questions in enumerate(drawn):
        for place, question in enumerate(questions):
            kinds[_kind_of(question)][bool(question.things)].append((picture, place))
    kept: list[list[Question]] = [[] for _ in drawn]
    pairs = [
        pair
        for false, true in kinds.values()
        for pair in zip(_shuffled(false, rng), _shuffled(true, rng), strict=False)
    ]
    for pair in _shuffled(pairs, rng):
        if all(len(kept[picture]) < count for picture, _ in pair):
            for picture, place in pair:
                kept[picture].append(drawn[picture][place])
    return kept


def _shuffled(items: list[Item], rng: np.random.Generator) -> list[Item]:
    """The items in random order."""
    return [items[i] for i in rng.permutation(len(items))]


def _kind_of(question: Question) -> str:
    """The words within which true and false are balanced: form, part or relation, kind of object."""
    subject, relation = question.query.subject, question.query.relation
    if question.form == "side":
        return f"side {relation} {subject.part}"
    return f"{question.form} {subject.kind} {subject.part} {relation}"


def _true_kind(_: Picture, thing: Thing, __: np.random.Generator) -> Query:
    return Query(Phrase(thing.kind))


def _true_look(_: Picture, thing: Thing, rng: np.random.Generator) -> Query:
    return Query(describe_look(thing, rng, least=1))


def _true_part(picture: Picture, thing: Thing, rng: np.random.Generator) -> Query | None:
    part = part_of(thing, picture)
    if part is None:
        return None
    return Query(Phrase(thing.kind, thing.colour if rng.random() < 0.4 else None, part=part))


def _true_not(_: Picture, thing: Thing, rng: np.random.Generator) -> Query:
    others = [colour for colour in COLOURS if colour != thing.colour]
    return Query(Phrase(thing.kind, not_colour=str(rng.choice(others))))


def _true_side(picture: Picture, thing: Thing, rng: np.random.Generator) -> Query | None:
    pairs = [(r, b) for r in OPPOSITE for a, b in sorted(picture.relations[r]) if a == thing.id]
    if not pairs:
        return None
    relation, other = pairs[int(rng.integers(len(pairs)))]
    return _related(picture, thing.id, relation, other, rng)


def _true_inside(picture: Picture, thing: Thing, rng: np.random.Generator) -> Query | None:
    pairs = sorted(picture.relations["inside"])
    if pairs:
        inner, ring = pairs[int(rng.integers(len(pairs)))]
        return _related(picture, inner, "inside", ring, rng)
    # Nothing is inside a ring: a question that is false.
    return None if thing.kind == "ring" else Query(Phrase(thing.kind), "inside", Phrase("ring"))


def _true_tied(picture: Picture, thing: Thing, rng: np.random.Generator) -> Query | None:
    pairs = sorted(picture.relations["tied to"])
    if pairs:
        tied, anchor = pairs[int(rng.integers(len(pairs)))]
        return _related(picture, tied, "tied to", anchor, rng)
    if thing.kind not in TIED:
        return None
    return Query(Phrase(thing.kind), "tied to", Phrase(_another(picture, ANCHORS, rng)))


def _related(picture: Picture, subject: int, relation: str, other: int, rng: np.random.Generator) -> Query:
    """The query about a relation that holds, with colours and parts named now and then."""
    thing, held = picture.things[subject], picture.things[other]
    phrase = Phrase(thing.kind, thing.colour if rng.random() < 0.35 else None)
    part = part_of(thing, picture)
    if part is not None and relation != "tied to" and rng.random() < 0.3:
        phrase = replace(phrase, part=part)
    return Query(phrase, relation, Phrase(held.kind, held.colour if rng.random() < 0.2 else None))


_TRUE: dict[str, Callable[[Picture, Thing, np.random.Generator], Query | None]] = {
    "kind": _true_kind,
    "look": _true_look,
    "part": _true_part,
    "not": _true_not,
    "side": _true_side,
    "inside": _true_inside,
    "tied to": _true_tied,
}
"""Makes a true question of each form about a thing, or None where there is none."""


def _alter(query: Query, form: str, picture: Picture, rng: np.random.Generator) -> Query:
    """The query with one element replaced by one as plausible; it may still be true."""
    if query.other is None or query.relation is None:
        return Query(_alter_phrase(query.subject, form, rng))
    roll = rng.random()
    if form == "side" and roll < 0.35:
        return Query(query.subject, OPPOSITE[query.relation], query.other)
    if roll < 0.75:
        kinds = (
            tuple(k for k in KINDS if k != "ring")
            if form == "inside"
            else TIED
            if form == "tied to"
            else KINDS
        )
        if query.subject.part is not None and rng.random() < 0.5:
            return Query(_other_part(query.subject), query.relation, query.other)
        if roll < 0.6 or form == "side":
            subject = _of_kind(query.subject, _another(picture, kinds, rng), rng)
        else:
            subject = replace(query.subject, colour=_colour(rng))
        return Query(subject, query.relation, query.other)
    if form == "inside":
        return Query(query.subject, query.relation, replace(query.other, colour=_colour(rng)))
    kinds = ANCHORS if form == "tied to" else KINDS
    return Query(query.subject, query.relation, replace(query.other, kind=_another(picture, kinds, rng)))


def _other_part(phrase: Phrase) -> Phrase:
    """The phrase with its kind's other part; a ring, which has only one, loses it."""
    others = [part for part in PARTS_OF_KIND[phrase.kind] if part != phrase.part]
    return replace(phrase, part=others[0] if others else None)


def _of_kind(phrase: Phrase, kind: str, rng: np.random.Generator) -> Phrase:
    """The phrase with another kind.

    It keeps having a part, if the new kind can have one: a part must not give the answer away.
    """
    parts = PARTS_OF_KIND.get(kind, ())
    part = str(rng.choice(parts)) if phrase.part is not None and parts else None
    return replace(phrase, kind=kind, part=part)


def _another(picture: Picture, kinds: tuple[str, ...], rng: np.random.Generator) -> str:
    """One of `kinds`; two times in three one that is in the picture, so that presence is no clue."""
    present = [thing.kind for thing in picture.things if thing.kind in kinds]
    return str(rng.choice(present if present and rng.random() < 0.67 else kinds))


def _colour(rng: np.random.Generator) -> str:
    """A random colour."""
    return str(rng.choice(list(COLOURS)))


def _alter_phrase(phrase: Phrase, form: str, rng: np.random.Generator) -> Phrase:
    """The phrase with its part, colour, texture, size or kind replaced, depending on `form`."""
    if form == "part":
        if len(PARTS_OF_KIND[phrase.kind]) == 2 and rng.random() < 0.75:
            return _other_part(phrase)
        return replace(phrase, colour=_colour(rng))
    if form == "not":
        return replace(phrase, not_colour=_colour(rng))
    named = [name for name in ("colour", "texture", "size") if getattr(phrase, name)]
    if not named or rng.random() < 0.2:
        kind = str(rng.choice(KINDS))
        return replace(phrase, kind=kind, size=None if kind == "ring" else phrase.size)
    name = str(rng.choice(named))
    values = {"colour": list(COLOURS), "texture": list(TEXTURES), "size": list(ASKED_SIZES)}[name]
    return replace(phrase, **{name: str(rng.choice(values))})
