"""Long descriptions of objects in the drawn world, of two or three clauses, phrased as people would.

    description = article look ("that" verb {"," verb} "and" verb | adjunct {"," adjunct} "and" adjunct
                                | part "that" verb ["and" verb])

Examples: "a red house that has no door and stands left of a tree", "a dog without a rope that is not inside
a ring", "a striped ball on a rope, to the right of a car and above a dog". They are in the style of D3's
sentences; training never asks about any of them.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from matir_cli.models.tiny.grammar import Phrase, Query, describe_look, fulfils, part_of
from matir_cli.models.tiny.shapes import COLOURS
from matir_cli.models.tiny.world import SPLITS, Picture, Thing

COUNT = 300
"""Number of descriptions per split; half have two clauses, half three."""

MIN_PICTURES = 3
"""A description is kept if at least this many pictures fulfil it."""

_PARTS = {
    "door": (("has a door",), "with a door"),
    "no door": (("has no door", "does not have a door"), "without a door"),
    "led": (("is led by a rope", "is on a rope"), "on a rope"),
    "rope": (("hangs on a rope", "has a rope"), "on a rope"),
    "no rope": (("has no rope", "is not on a rope"), "without a rope"),
    "empty": (("is empty", "has nothing inside it"), "with nothing inside"),
}
"""Part of a phrase to its verb phrases and its adjunct."""

_RELATIONS = {
    "left of": (("stands left of", "is to the left of"), "to the left of"),
    "right of": (("is right of", "stands to the right of"), "to the right of"),
    "above": (("is above", "is higher than"), "above"),
    "below": (("is below", "is lower than"), "below"),
    "inside": (("is inside", "lies inside"), "inside"),
    "tied to": (("is tied to",), "tied to"),
}
"""Relation to its verb phrases and its adjunct."""


@dataclass(frozen=True)
class Clause:
    """A condition on the described object, and its words."""

    query: Query
    """A query about the kind of the object; the object fulfils it, or does not if `is_denied`."""
    verb: str
    """The words after "that"."""
    adjunct: str
    """The words without a verb; "" if there are none."""
    is_denied: bool = False

    @property
    def names_absence(self) -> bool:
        """True if the clause says what is not there."""
        return self.is_denied or self.query.group == "negated"


@dataclass(frozen=True)
class LongDescription:
    """A description of an object by its look and by two or three clauses."""

    text: str
    look: Phrase
    clauses: tuple[Clause, ...]

    @property
    def group(self) -> str:
        """The number of clauses, and whether one names an absence."""
        number = {2: "two", 3: "three"}[len(self.clauses)]
        return f"{number} clauses{', negated' if any(c.names_absence for c in self.clauses) else ''}"

    @property
    def held_out(self) -> bool:
        """False: no description is trained, so none stands out."""
        return False

    def things(self, picture: Picture) -> tuple[int, ...]:
        """Ids of the things in `picture` that are described, in ascending order."""
        found = set(fulfils(Query(self.look), picture))
        for clause in self.clauses:
            if not found:
                break
            fulfilling = set(fulfils(clause.query, picture))
            found = found - fulfilling if clause.is_denied else found & fulfilling
        return tuple(sorted(found))


def draw_descriptions(split: str, pictures: list[Picture], count: int = COUNT) -> list[LongDescription]:
    """Draw `count` different descriptions from one seed, each true of several of the pictures."""
    rng = np.random.default_rng((SPLITS[split].start, 7))
    kept: dict[str, LongDescription] = {}
    while len(kept) < count:
        clauses = 2 if len(kept) < count // 2 else 3
        description = _describe(pictures[int(rng.integers(len(pictures)))], clauses, rng)
        if description is None or description.text in kept:
            continue
        if sum(bool(description.things(each)) for each in pictures) >= MIN_PICTURES:
            kept[description.text] = description
    return list(kept.values())


def _describe(picture: Picture, count: int, rng: np.random.Generator) -> LongDescription | None:
    """A description of a random object of the picture; None if there is too little to say about it."""
    thing = picture.things[int(rng.integers(len(picture.things)))]
    by_subject: dict[str, Clause] = {}
    clauses = list(_clauses(picture, thing, rng))
    for place in rng.permutation(len(clauses)):
        subject, clause = clauses[place]
        by_subject.setdefault(subject, clause)  # one clause per relation, part and colour
    chosen = tuple(by_subject.values())[:count]
    if len(chosen) < count or all(clause.query.other is None for clause in chosen):
        return None
    look = describe_look(thing, rng)
    if any(clause.query.subject.not_colour for clause in chosen):
        look = replace(look, colour=None)
    return LongDescription(_words(look, chosen, rng), look, chosen)


def _clauses(picture: Picture, thing: Thing, rng: np.random.Generator) -> Iterator[tuple[str, Clause]]:
    """Everything that a clause may say about the thing, each with what it speaks of."""
    subject = Phrase(thing.kind)
    if (part := part_of(thing, picture)) is not None:
        verbs, adjunct = _PARTS[part]
        yield "part", Clause(Query(replace(subject, part=part)), _choose(verbs, rng), adjunct)
    if rng.random() < 0.15:
        colour = _choose([each for each in COLOURS if each != thing.colour], rng)
        yield "colour", Clause(Query(replace(subject, not_colour=colour)), f"is not {colour}", "")
    for relation, pairs in picture.relations.items():
        for _, held in sorted(pair for pair in pairs if pair[0] == thing.id):
            other = picture.things[held]
            phrase = Phrase(other.kind, other.colour if rng.random() < 0.25 else None)
            verbs, adjunct = _RELATIONS[relation]
            named = _with_article(phrase)
            clause = Clause(
                Query(subject, relation, phrase), f"{_choose(verbs, rng)} {named}", f"{adjunct} {named}"
            )
            yield "part" if relation == "tied to" else relation, clause  # a rope is named once
    if thing.kind != "ring" and rng.random() < 0.15:
        inside = Query(subject, "inside", Phrase("ring"))
        if thing.id not in fulfils(inside, picture):
            yield "inside", Clause(inside, "is not inside a ring", "", is_denied=True)


def _words(look: Phrase, clauses: tuple[Clause, ...], rng: np.random.Generator) -> str:
    """The description in words."""
    words = f"the {look.words}" if rng.random() < 0.2 else _with_article(look)
    clauses = tuple(sorted(clauses, key=lambda clause: clause.query.other is not None))
    adjuncts, verbs = [clause.adjunct for clause in clauses], [clause.verb for clause in clauses]
    roll = rng.random()
    if all(adjuncts) and roll < 0.35:
        return f"{words} {_listed(adjuncts)}"
    # After a relation, "that" would be read as the other object.
    if adjuncts[0] and clauses[0].query.other is None and roll < 0.6:
        return f"{words} {adjuncts[0]} that {_listed(verbs[1:])}"
    return f"{words} that {_listed(verbs)}"


def _listed(words: list[str]) -> str:
    """The words as an enumeration."""
    *first, last = words
    return f"{', '.join(first)} and {last}" if first else last


def _with_article(phrase: Phrase) -> str:
    return f"{'an' if phrase.words[0] in 'aeiou' else 'a'} {phrase.words}"


def _choose(words: tuple[str, ...] | list[str], rng: np.random.Generator) -> str:
    return words[int(rng.integers(len(words)))]
