"""What can be asked about the drawn world, and which objects of a picture fulfil it.

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
"""Part of a phrase to its words; "empty" stands before the kind instead."""

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
"""(subject kind, relation, object kind) never asked in training."""


@dataclass(frozen=True)
class Phrase:
    """A description of one object by itself."""

    kind: str
    colour: str | None = None
    texture: str | None = None
    size: str | None = None
    part: str | None = None
    """A key of `PARTS`, or "empty"."""
    not_colour: str | None = None

    @property
    def words(self) -> str:
        """The phrase as it is read, without an article."""
        before = (self.size, "empty" if self.part == "empty" else None, self.texture, self.colour, self.kind)
        text = " ".join(word for word in before if word)
        return f"{text} {self.suffix}" if self.suffix else text

    @property
    def suffix(self) -> str:
        """What follows the kind, or ""."""
        if self.not_colour:
            return f"that is not {self.not_colour}"
        return PARTS.get(self.part or "", "")


@dataclass(frozen=True)
class Query:
    """A description of an object, possibly by its relation to another."""

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
        """One of `GROUPS`: negated where it names an absence, else relational, attribute or plain."""
        phrases = [phrase for phrase in (self.subject, self.other) if phrase is not None]
        if any(p.part in ("no door", "no rope", "empty") or p.not_colour for p in phrases):
            return "negated"
        if self.relation is not None or self.subject.part in ("led", "rope"):
            return "relational"
        return "plain" if self.subject == Phrase(self.subject.kind) else "attribute"

    @property
    def held_out(self) -> bool:
        """It names a look or a relation that training never shows."""
        phrases = [phrase for phrase in (self.subject, self.other) if phrase is not None]
        if any((p.colour or "", p.kind) in HELD_OUT_LOOKS for p in phrases):
            return True
        return (
            self.other is not None
            and (self.subject.kind, self.relation, self.other.kind) in HELD_OUT_RELATIONS
        )


_PHRASE = re.compile(
    rf"(?:(?P<size>{'|'.join(ASKED_SIZES)}) )?(?P<empty>empty )?(?:(?P<texture>{'|'.join(TEXTURES)}) )?"
    rf"(?:(?P<colour>{'|'.join(COLOURS)}) )?(?P<kind>{'|'.join(KINDS)})"
    rf"(?: (?P<part>{'|'.join(PARTS.values())})| that is not (?P<not_colour>{'|'.join(COLOURS)}))?"
)
_RELATION = re.compile(rf",? (?P<relation>{'|'.join(RELATIONS)}) an? ")


def parse(text: str) -> Query:
    """The query that reads as `text`; raises ValueError when it is not in the grammar."""
    halves = _RELATION.split(text, maxsplit=1)
    if len(halves) == 1:
        return Query(_phrase(text))
    return Query(_phrase(halves[0]), halves[1], _phrase(halves[2]))


def _phrase(text: str) -> Phrase:
    found = _PHRASE.fullmatch(text)
    if found is None:
        raise ValueError(f"not in the grammar: {text!r}")
    part = next((name for name, words in PARTS.items() if words == found["part"]), None)
    return Phrase(
        found["kind"],
        found["colour"],
        found["texture"],
        found["size"],
        "empty" if found["empty"] else part,
        found["not_colour"],
    )


def fulfils(query: Query, picture: Picture) -> tuple[int, ...]:
    """Ids of the things in `picture` that `query` describes, ascending."""
    subjects = [thing.id for thing in picture.things if _is(query.subject, thing, picture)]
    if query.other is None or query.relation is None:
        return tuple(subjects)
    others = [thing.id for thing in picture.things if _is(query.other, thing, picture)]
    pairs = picture.relations[query.relation]
    return tuple(a for a in subjects if any(a != b and (a, b) in pairs for b in others))


def _is(phrase: Phrase, thing: Thing, picture: Picture) -> bool:
    return (
        thing.kind == phrase.kind
        and phrase.colour in (None, thing.colour)
        and phrase.texture in (None, thing.texture)
        and phrase.size in (None, thing.size)
        and phrase.not_colour != thing.colour
        and phrase.part in (None, part_of(thing, picture))
    )


def part_of(thing: Thing, picture: Picture) -> str | None:
    """What `Phrase.part` says of the thing: every house, dog, ball and car has one; a full ring none."""
    if thing.kind == "house":
        return "door" if thing.door else "no door"
    if thing.kind in TIED:
        tied = any(rope.tied == thing.id for rope in picture.ropes)
        return PARTS_OF_KIND[thing.kind][0] if tied else "no rope"
    if thing.kind == "ring":
        return None if any(b == thing.id for _, b in picture.relations["inside"]) else "empty"
    return None


def look(thing: Thing, rng: np.random.Generator, least: int = 0) -> Phrase:
    """A true phrase of colour, texture and size, each named half the time, at least `least` of them."""
    named = rng.random(3) < (0.6, 0.4, 0.25)
    while named.sum() < least:
        named[rng.integers(2)] = True
    size = thing.size if named[2] and thing.size in ASKED_SIZES and thing.kind != "ring" else None
    return Phrase(thing.kind, thing.colour if named[0] else None, thing.texture if named[1] else None, size)


def random_query(rng: np.random.Generator, group: str) -> Query:
    """Any query of the group, held-out ones included; it need not be true of anything."""
    while True:
        query = _throw(rng, group)
        if query.group == group:
            return query


def _throw(rng: np.random.Generator, group: str) -> Query:
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
    return Query(subject, *_relation(rng, kind))


def _relation(rng: np.random.Generator, kind: str) -> tuple[str, Phrase]:
    roll = rng.random()
    if roll < 0.25 and kind != "ring":
        return "inside", Phrase("ring", str(rng.choice(list(COLOURS))) if rng.random() < 0.3 else None)
    if roll < 0.5 and kind in TIED:
        return "tied to", Phrase(str(rng.choice(ANCHORS)))
    return str(rng.choice(SIDES)), Phrase(str(rng.choice(KINDS)))
