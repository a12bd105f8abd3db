"""Parsed descriptions: an object, how it relates to others, and what it must not have."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class RelationKind(StrEnum):
    """Relations between two objects, each for all words that mean it."""

    LEFT_OF = "left of"
    RIGHT_OF = "right of"
    ABOVE = "above"
    BELOW = "below"
    INSIDE = "inside"
    AROUND = "around"
    NEAR = "near"
    """Near each other in the picture, in any direction; also "in front of" and "behind"."""
    ATTRIBUTE = "attribute"
    """A part, property or activity of the object: "with", "wearing", "led by". Boxes say nothing about it."""


@dataclass(frozen=True, slots=True)
class Relation:
    """A relation of an object to another one."""

    kind: RelationKind
    words: str
    """The words of the relation, such as "to the left of"."""
    other: Phrase
    """The other object."""


@dataclass(frozen=True, slots=True)
class Absence:
    """Something that an object must not have or be."""

    words: str
    """The words of the negation, such as "without" or "that is not"."""
    absent: str
    """What is denied: "a door", "red"."""
    counterpart: str
    """The object as it must not be, described without a negation: "house with a door", "red house"."""


@dataclass(frozen=True, slots=True)
class Phrase:
    """One object of a description."""

    text: str
    """The object in its own words: without article, number, negations and scored relations, but with its
    attributes, as in "purple dog led by rope"."""
    head: str
    """Its noun: the last word before any attribute."""
    modifiers: tuple[str, ...] = ()
    """The words before the noun."""
    count: str | None = None
    """A number or quantity, such as "two" or "several"; None if the phrase has none."""
    place: str | None = None
    """Its place in the photo, such as "on the left"; None if the phrase names none."""
    relations: tuple[Relation, ...] = ()
    absences: tuple[Absence, ...] = ()


@dataclass(frozen=True, slots=True)
class Description:
    """A parsed description."""

    text: str
    """The whole text, spaces normalised."""
    target: Phrase
    """The object that is looked for. If nothing was understood, its text is the whole text."""
    others: tuple[Phrase, ...] = ()
    """Further objects that must be in the photo: "a cat" in "a dog and a cat"."""

    @property
    def has_parts(self) -> bool:
        """True if there is more to score than the whole text: relations, negations or further objects."""
        return bool(self.others) or _has_parts(self.target)


def _has_parts(phrase: Phrase) -> bool:
    scored = (relation for relation in phrase.relations if relation.kind is not RelationKind.ATTRIBUTE)
    return bool(phrase.absences) or any(True for _ in scored)
