"""Grammar of queries about the drawn world, and the objects that fulfil them.

    query  = phrase [relation phrase]
    phrase = [size] ["empty"] [texture] [colour] kind [part | "that is not" colour]

Examples: "striped red house", "dog led by rope", "house without a door, left of a tree",
"small ball that is not red", "star inside a yellow ring".
"""

import re
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from matir_cli.models.tiny.shapes import COLOURS, KINDS, TEXTURES
from matir_cli.models.tiny.world import ANCHORS, HELD_OUT_LOOKS, TIED, Picture, Thing

RELATIONS = ("left of", "right of", "above", "below", "inside", "tied to")
SIDES = ("left of", "right of", "above", "below")
ASKED_SIZES = ("small", "large")
GROUPS = ("plain", "attribute", "relational", "negated")

PARTS = {
    "door": "with a door",
    "no door": "without a door",
    "led": "led by rope",
    "rope": "on a rope",
    "no rope": "without a rope",
}
"""Words of each part of a phrase; "empty" stands before the kind instead."""

PARTS_OF_KIND = {
    "house": ("door", "no door"),
    "dog": ("led", "no rope"),
    "ball": ("rope", "no rope"),
    "car": ("rope", "no rope"),
    "ring": ("empty",),
}

HELD_OUT_RELATIONS = frozenset(
    {
        ("dog", "tied to", "house"),
        ("star", "left of", "tree"),
        ("car", "above", "ball"),
        ("star", "inside", "ring"),
    }
)
"""(subject kind, relation, object kind) that training never asks about."""


@dataclass(frozen=True)
class Phrase:
    """A description of one object on its own."""

    kind: str
    colour: str | None = None
    texture: str | None = None
    size: str | None = None
    part: str | None = None
    """A key of `PARTS`, or "empty"."""
    not_colour: str | None = None

    @property
    def words(self) -> str:
        """The phrase in words, without an article."""
        before = (self.size, "empty" if self.part == "empty" else None, self.texture, self.colour, self.kind)
        text = " ".join(word for word in before if word)
        return f"{text} {self.suffix}" if self.suffix else text

    @property
    def suffix(self) -> str:
        """The words after the kind, or ""."""
        if self.not_colour:
            return f"that is not {self.not_colour}"
        return PARTS.get(self.part or "", "")


@dataclass(frozen=True)
class Query:
    """A description of an object, possibly by its relation to another object."""

    subject: Phrase
    relation: str | None = None
    other: Phrase | None = None

    @cached_property
    def text(self) -> str:
        """The query in words; `parse` reads it back."""
        if self.other is None:
            return self.subject.words
        comma = "," if self.subject.suffix else ""
        words = self.other.words
        return f"{self.subject.words}{comma} {self.relation} {'an' if words[0] in 'aeiou' else 'a'} {words}"

    @property
    def group(self) -> str:
        """One of `GROUPS`: "negated" if it names an absence, else "relational", "attribute" or "plain"."""
        phrases = [phrase for phrase in (self.subject, self.other) if phrase is not None]
        if any(p.part in ("no door", "no rope", "empty") or p.not_colour for p in phrases):
            return "negated"
        if self.relation is not None or self.subject.part in ("led", "rope"):
            return "relational"
        return "plain" if self.subject == Phrase(self.subject.kind) else "attribute"

    @property
    def held_out(self) -> bool:
        """True if the query names a look, a relation or a combination that training never asks about.

        In training, the two objects of a relation have a colour at most, and the subject a part.
        """
        phrases = [phrase for phrase in (self.subject, self.other) if phrase is not None]
        if any((p.colour or "", p.kind) in HELD_OUT_LOOKS for p in phrases):
            return True
        if self.other is None:
            return False
        return (
            (self.subject.kind, self.relation, self.other.kind) in HELD_OUT_RELATIONS
            or any(p.texture or p.size or p.not_colour for p in phrases)
            or self.other.part is not None
        )


_PHRASE = re.compile(
    rf"(?:(?P<size>{'|'.join(ASKED_SIZES)}) )?(?P<empty>empty )?(?:(?P<texture>{'|'.join(TEXTURES)}) )?"
    rf"(?:(?P<colour>{'|'.join(COLOURS)}) )?(?P<kind>{'|'.join(KINDS)})"
    rf"(?: (?P<part>{'|'.join(PARTS.values())})| that is not (?P<not_colour>{'|'.join(COLOURS)}))?"
)
_RELATION = re.compile(rf",? (?P<relation>{'|'.join(RELATIONS)}) an? ")


def parse(text: str) -> Query:
    """The query whose text is `text`.

    Raises:
        ValueError: `text` is not in the grammar.
    """
    halves = _RELATION.split(text, maxsplit=1)
    if len(halves) == 1:
        return Query(_phrase(text))
    return Query(_phrase(halves[0]), halves[1], _phrase(halves[2]))


def _phrase(text: str) -> Phrase:
    match = _PHRASE.fullmatch(text)
    if match is None:
        raise ValueError(f"not in the grammar: {text!r}")
    part = next((name for name, words in PARTS.items() if words == match["part"]), None)
    return Phrase(
        match["kind"],
        match["colour"],
        match["texture"],
        match["size"],
        "empty" if match["empty"] else part,
        match["not_colour"],
    )


def fulfils(query: Query, picture: Picture) -> tuple[int, ...]:
    """Ids of the things in `picture` that `query` describes, in ascending order."""
    subjects = [thing.id for thing in picture.things if _describes(query.subject, thing, picture)]
    if query.other is None or query.relation is None:
        return tuple(subjects)
    others = [thing.id for thing in picture.things if _describes(query.other, thing, picture)]
    pairs = picture.relations[query.relation]
    return tuple(a for a in subjects if any(a != b and (a, b) in pairs for b in others))


def _describes(phrase: Phrase, thing: Thing, picture: Picture) -> bool:
    """True if `phrase` is true of `thing`."""
    return (
        thing.kind == phrase.kind
        and phrase.colour in (None, thing.colour)
        and phrase.texture in (None, thing.texture)
        and phrase.size in (None, thing.size)
        and phrase.not_colour != thing.colour
        and phrase.part in (None, part_of(thing, picture))
    )


def part_of(thing: Thing, picture: Picture) -> str | None:
    """The `Phrase.part` that is true of the thing.

    Every house, dog, ball and car has one; a ring has one ("empty") only if nothing is inside it.
    """
    if thing.kind == "house":
        return "door" if thing.door else "no door"
    if thing.kind in TIED:
        tied = any(rope.tied == thing.id for rope in picture.ropes)
        return PARTS_OF_KIND[thing.kind][0] if tied else "no rope"
    if thing.kind == "ring":
        return None if any(b == thing.id for _, b in picture.relations["inside"]) else "empty"
    return None


def describe_look(thing: Thing, rng: np.random.Generator, least: int = 0) -> Phrase:
    """A true phrase that names colour, texture and size at random, at least `least` of them."""
    named = rng.random(3) < (0.6, 0.4, 0.25)
    while named.sum() < least:
        named[rng.integers(2)] = True
    size = thing.size if named[2] and thing.size in ASKED_SIZES and thing.kind != "ring" else None
    return Phrase(thing.kind, thing.colour if named[0] else None, thing.texture if named[1] else None, size)


def random_query(rng: np.random.Generator, group: str) -> Query:
    """A random query of the group, possibly a held-out one; it need not be true of any picture."""
    while True:
        query = _draw_query(rng, group)
        if query.group == group:
            return query


def random_held_out(rng: np.random.Generator, group: str) -> Query:
    """A random held-out query of a group other than "plain"; it need not be true of any picture."""
    while True:
        query = random_query(rng, group)
        if rng.random() < 0.5:
            query = _combine(query, rng)
        if query.held_out and query.group == group:
            return query


def _combine(query: Query, rng: np.random.Generator) -> Query:
    """The query with a relation or a size, or with a texture or a size of one of its two objects."""
    if query.group == "attribute":
        return Query(replace(query.subject, size=str(rng.choice(ASKED_SIZES))))
    if query.other is None:
        query = Query(query.subject, *_draw_relation(rng, query.subject.kind))
        if query.subject.not_colour:
            return query
    if rng.random() < 0.5:
        return replace(query, subject=_with_look(query.subject, rng))
    return replace(query, other=query.other and _with_look(query.other, rng))


def _with_look(phrase: Phrase, rng: np.random.Generator) -> Phrase:
    """The phrase with a texture or, if its kind has any, a size."""
    if phrase.kind == "ring" or rng.random() < 0.5:
        return replace(phrase, texture=str(rng.choice(TEXTURES)))
    return replace(phrase, size=str(rng.choice(ASKED_SIZES)))


def _draw_query(rng: np.random.Generator, group: str) -> Query:
    """A random query that is meant for the group; a few belong to another."""
    kind = str(rng.choice(KINDS))
    subject = Phrase(kind)
    if group == "plain":
        return Query(subject)
    if rng.random() < (1.0 if group == "attribute" else 0.35):
        subject = replace(subject, colour=str(rng.choice(list(COLOURS))))
    if group == "attribute":
        if rng.random() < 0.5:
            subject = replace(subject, texture=str(rng.choice(TEXTURES)))
        elif rng.random() < 0.4 and kind != "ring":
            subject = replace(subject, size=str(rng.choice(ASKED_SIZES)))
        return Query(subject)
    parts = PARTS_OF_KIND.get(kind, ())
    if group == "negated" and rng.random() < 0.3 and subject.colour is None:
        return Query(replace(subject, not_colour=str(rng.choice(list(COLOURS)))))
    if parts and rng.random() < 0.55:
        subject = replace(subject, part=str(rng.choice(parts)))
        if group == "relational" or rng.random() < 0.5:
            return Query(subject)
    return Query(subject, *_draw_relation(rng, kind))


def _draw_relation(rng: np.random.Generator, kind: str) -> tuple[str, Phrase]:
    """A random relation that a subject of `kind` can have, and the other object's phrase."""
    roll = rng.random()
    if roll < 0.25 and kind != "ring":
        return "inside", Phrase("ring", str(rng.choice(list(COLOURS))) if rng.random() < 0.3 else None)
    if roll < 0.5 and kind in TIED:
        return "tied to", Phrase(str(rng.choice(ANCHORS)))
    return str(rng.choice(SIDES)), Phrase(str(rng.choice(KINDS)))
