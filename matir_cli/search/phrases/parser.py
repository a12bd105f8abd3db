"""Parser of English object descriptions: from a text to a `Description`.

A recursive-descent parser over the closed-class words of `grammar`; all other words are taken as they are.

    description = [opener] phrase {conjunction phrase}
    phrase      = {determiner | count} words {[","] tail}
    tail        = ["and"] (place | [relative] [copula] (relation phrase | negation words | absence words))

Without "and" or a comma, a tail belongs to the nearest phrase before it, and to the described object where
that is an attribute ("a man with a hat left of a car"); after a comma it belongs to the object of the whole
description. After "and" it belongs to the phrase whose relative clause it continues ("a dog above a house
that has a door and is red"), or else to the object of the whole description ("a dog above a house and left
of a tree").
Text in quotes is one word. A text that does not fit, or has a word of `grammar.UNKNOWN`, is not understood:
its description then is the whole text, as if it had no structure.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from matir_cli.search.phrases import grammar
from matir_cli.search.phrases.description import Absence, Description, Phrase, Relation, RelationKind

MAX_WORDS = 60
"""Words; CLIP reads no more. A longer text is not parsed."""

MAX_DEPTH = 4
"""Phrases inside one another; a text with more is not understood."""

_TOKEN = re.compile(r"""["“][^"“”]*["”]|(?<!\w)'[^']*'(?!\w)|[,;]|[^\s,;"“”]+""")

_CONTRACTION = re.compile(r"\b(that|which|who)'s\b", re.IGNORECASE)

_COMMA = ","


class _NotUnderstood(Exception):
    """The text does not fit the grammar."""


class _WordTable:
    """Entries of several words, found by the words at a position."""

    def __init__(self, entries: Iterable[str]) -> None:
        self._by_first: dict[str, list[tuple[str, ...]]] = {}
        for entry in sorted(entries, key=lambda entry: -len(entry.split())):
            words = tuple(entry.split())
            self._by_first.setdefault(words[0], []).append(words)

    def match(self, words: tuple[str, ...], at: int) -> int:
        """Return the number of words of the longest entry at position `at`; 0 if there is none."""
        for entry in self._by_first.get(words[at], ()) if at < len(words) else ():
            if words[at : at + len(entry)] == entry:
                return len(entry)
        return 0


_KINDS: Mapping[str, RelationKind] = {
    entry: kind for kind, entries in grammar.RELATIONS.items() for entry in entries
}

_RELATIONS, _ABSENCES, _NEGATIONS = (
    _WordTable(entries) for entries in (_KINDS, grammar.ABSENCES, grammar.NEGATIONS)
)
_RELATIVES, _COPULAS, _DETERMINERS, _COUNTS = (
    _WordTable(entries)
    for entries in (grammar.RELATIVES, grammar.COPULAS, grammar.DETERMINERS, grammar.COUNTS)
)
_ACTIVITIES, _PLACES, _OF_THE_PHOTO, _OPENERS, _CONJUNCTIONS, _ALTERNATIVES, _NOBODY = (
    _WordTable(entries)
    for entries in (
        *(grammar.ACTIVITIES, grammar.PLACES, grammar.OF_THE_PHOTO, grammar.OPENERS),
        *(grammar.CONJUNCTIONS, grammar.ALTERNATIVES, grammar.NOBODY),
    )
)


def parse_phrase(text: str) -> Description:
    """Parse the description of an object; any text has a description."""
    whole = " ".join(text.split())
    plain = _CONTRACTION.sub(r"\1 is", whole.replace("’", "'")).rstrip(".!?")
    tokens = tuple(_COMMA if word == ";" else word for word in _TOKEN.findall(plain))
    if 0 < len(tokens) <= MAX_WORDS:
        try:
            return _Parser(tokens).description(whole)
        except _NotUnderstood:
            pass
    return Description(whole, Phrase(whole, whole))


@dataclass
class _Draft:
    """A phrase of which some words have been read."""

    words: list[str] = field(default_factory=list)
    """All words of its text."""
    noun_words: int = 0
    """Number of words before any attribute."""
    count: str | None = None
    has_determiner: bool = False
    has_clause: bool = False
    """True if a relative clause was read."""
    place: str | None = None
    relations: list[Relation] = field(default_factory=list)
    absences: list[Absence] = field(default_factory=list)

    @property
    def text(self) -> str:
        return _join(self.words)

    def finish(self) -> Phrase:
        nouns = [word for word in self.words[: self.noun_words] if word not in (_COMMA, "and")]
        return Phrase(
            *(self.text, nouns[-1], tuple(nouns[:-1]), self.count, self.place),
            *(tuple(self.relations), tuple(self.absences)),
        )


class _Parser:
    """Reads one text from the first token to the last."""

    def __init__(self, tokens: tuple[str, ...]) -> None:
        self._tokens = tokens
        # Words in quotes must not be found in any table, and no word may contain a space.
        self._lower = tuple(token.lower() if token[0] not in "\"“'" else "" for token in tokens)
        self._at = 0

    def description(self, whole: str) -> Description:
        while self._take(_OPENERS):
            pass
        target = self._phrase(0)
        others = []
        while self._begins_conjunct(target, commas=True):
            others.append(self._phrase(0).finish())
        if not self._at_end():
            raise _NotUnderstood
        return Description(whole, target.finish(), tuple(others))

    # Tokens

    def _at_end(self) -> bool:
        return self._at >= len(self._tokens)

    def _take(self, table: _WordTable) -> str | None:
        """Read the longest entry of `table` that stands here, in lower case; None if there is none."""
        count = table.match(self._lower, self._at)
        words = self._lower[self._at : self._at + count]
        self._at += count
        return " ".join(words) if count else None

    def _sees(self, *tables: _WordTable, after: int = 0) -> int:
        """Return the number of words of the longest entry of the tables that stands here."""
        return max(table.match(self._lower, self._at + after) for table in tables)

    # Noun phrases

    def _phrase(self, depth: int, *, tails: bool = True) -> _Draft:
        """Read a phrase.

        Args:
            tails: read what follows the noun, too.
        """
        if depth > MAX_DEPTH:
            raise _NotUnderstood
        draft = _Draft()
        while (words := self._take(_COUNTS)) or self._take(_DETERMINERS):
            draft.count = words or draft.count
            draft.has_determiner = True
        self._noun(draft)
        while tails and self._tail(draft, depth):
            pass
        return draft

    def _noun(self, draft: _Draft) -> None:
        """Read adjectives and nouns, up to the first word of a tail or another phrase."""
        while not self._at_end() and not self._is_boundary(draft):
            word = self._lower[self._at]
            if word in grammar.UNKNOWN:
                raise _NotUnderstood
            draft.words.append(self._tokens[self._at])
            self._at += 1
        if not draft.words or draft.words[-1] in (_COMMA, "and"):
            raise _NotUnderstood
        draft.noun_words = len(draft.words)
        while not self._leads_to_object() and (words := self._take(_ACTIVITIES)) is not None:
            draft.words += words.split()

    def _leads_to_object(self) -> bool:
        """Return True if the participle here has an object, as in "eating an apple" or "sitting on it"."""
        count = self._sees(_RELATIONS)
        after = self._at + count
        is_last = after >= len(self._lower) or self._lower[after] == _COMMA or self._begins_tail(after=count)
        return count > self._sees(_ACTIVITIES) or (count > 0 and not is_last)

    def _is_boundary(self, draft: _Draft) -> bool:
        """Return True if the noun phrase ends before this token."""
        word = self._lower[self._at]
        if word == _COMMA:
            joined = self._sees(_CONJUNCTIONS, after=1)
            return self._begins_tail(after=1) or bool(self._sees(_DETERMINERS, _COUNTS, after=1 + joined))
        if word == "and":
            return self._joins_phrases(draft) or self._joins_tails() > 0
        if not draft.words:
            # A participle in front of a noun is an adjective, as in "a walking stick".
            return not word.endswith("ing") and self._begins_tail()
        return (
            self._begins_tail()
            or bool(self._sees(_CONJUNCTIONS, _ACTIVITIES, _DETERMINERS))
            or word in grammar.UNKNOWN
        )

    def _begins_tail(self, after: int = 0) -> bool:
        tables = (_RELATIONS, _ABSENCES, _NEGATIONS, _NOBODY, _RELATIVES, _COPULAS, _PLACES)
        return bool(self._sees(*tables, after=after))

    # Objects that must both be there

    def _joins_phrases(self, draft: _Draft) -> bool:
        """Return True if the "and" here joins two objects, not two words of one phrase."""
        if self._sees(_ABSENCES, _NEGATIONS):
            return True
        count = self._sees(_CONJUNCTIONS)
        if self._sees(_DETERMINERS, _COUNTS, after=count):
            return True
        after = self._at + count
        is_bare = len(draft.words) == 1 and not draft.has_determiner and after == len(self._lower) - 1
        pair = {draft.words[0].lower() if draft.words else "", *self._lower[after:]}
        return is_bare and not pair & grammar.ADJECTIVES

    def _begins_conjunct(self, draft: _Draft, *, commas: bool = False) -> bool:
        """Read the conjunction before a further phrase; return False, with nothing read, if there is none.

        Args:
            commas: a comma separates phrases, too.
        """
        at = self._at
        if self._sees(_ABSENCES, _NEGATIONS):
            return False
        comma = commas and not self._at_end() and self._lower[self._at] == _COMMA
        self._at += comma
        before = self._at
        joined = self._take(_CONJUNCTIONS) is not None
        if joined and self._lower[before] == "and" and not comma:
            self._at = before
            joined = self._joins_phrases(draft)
            self._take(_CONJUNCTIONS)
        if joined or (comma and self._sees(_DETERMINERS, _COUNTS)):
            return True
        self._at = at
        return False

    # Tails

    def _joins_tails(self) -> int:
        """Return 1 if an "and" between two tails stands here, 0 if not."""
        if self._lower[self._at] != "and" or self._sees(_ABSENCES, _NEGATIONS):
            return 0
        return int(self._sees(_RELATIVES, _COPULAS, _ABSENCES, _NEGATIONS, _RELATIONS, after=1) > 0)

    def _tail(self, draft: _Draft, depth: int) -> bool:
        """Read one tail; return False, with nothing read, if there is none that belongs to this phrase."""
        start = self._at
        if not self._at_end() and self._lower[self._at] == _COMMA:
            if depth > 0 or not self._begins_tail(after=1):
                return False
            self._at += 1
        if not self._at_end() and self._joins_tails():
            if depth > 0 and not draft.has_clause:
                self._at = start
                return False
            self._at += 1
        words = self._take(_RELATIVES), self._take(_COPULAS)
        draft.has_clause = draft.has_clause or words[0] is not None
        intro = " ".join(word for word in words if word)
        if self._place(draft) or self._nobody(draft) or self._relation(draft, depth):
            return True
        if self._absence(draft, intro) or self._negation(draft, intro):
            return True
        if not intro:
            self._at = start
            return False
        draft.words += self._tokens[start : self._at]  # a clause such as "that says stop" is the phrase's own
        self._words_of_clause(draft)
        return True

    def _words_of_clause(self, draft: _Draft) -> None:
        """Read the words of a clause into the text of the phrase."""
        start = self._at
        while not self._at_end() and self._lower[self._at] != _COMMA:
            if self._begins_tail() or self._sees(_CONJUNCTIONS) or self._lower[self._at] in grammar.UNKNOWN:
                break
            self._at += 1
        if self._at == start:
            raise _NotUnderstood
        draft.words += self._tokens[start : self._at]

    def _place(self, draft: _Draft) -> bool:
        """Read a place in the photo."""
        count = self._sees(_PLACES)
        redundant = self._sees(_OF_THE_PHOTO, after=count) if count else 0
        # "on the left of a tree" is a relation, "on the left of the photo" is a place.
        if not count or (self._sees(_RELATIONS) > count and not redundant):
            return False
        draft.place = " ".join(self._lower[self._at : self._at + count])
        self._at += count + redundant
        return True

    def _relation(self, draft: _Draft, depth: int) -> bool:
        """Read a relation and the objects that it leads to."""
        start = self._at
        if self._sees(_ABSENCES, _NEGATIONS, _CONJUNCTIONS) >= self._sees(_RELATIONS):
            return False
        words = self._take(_RELATIONS)
        if words is None:
            return False
        kind = _KINDS[words]
        if kind is RelationKind.ATTRIBUTE:
            self._attribute(draft, words, start, depth)
            return True
        other = self._phrase(depth + 1)
        draft.relations.append(Relation(kind, words, other.finish()))
        while self._begins_conjunct(other):
            other = self._phrase(depth + 1)
            draft.relations.append(Relation(kind, words, other.finish()))
        return True

    def _attribute(self, draft: _Draft, words: str, start: int, depth: int) -> None:
        """Read the object of an attribute; all of it belongs to the text of the phrase."""
        if not self._at_end() and not self._begins_tail() and self._lower[self._at] != _COMMA:
            other = self._phrase(depth + 1, tails=False)
            draft.relations.append(Relation(RelationKind.ATTRIBUTE, words, other.finish()))
            while self._begins_conjunct(other):
                other = self._phrase(depth + 1, tails=False)
                draft.relations.append(Relation(RelationKind.ATTRIBUTE, words, other.finish()))
        draft.words += self._tokens[start : self._at]

    # Negations

    def _nobody(self, draft: _Draft) -> bool:
        """Read "with nobody" and what follows, such as "on it"."""
        words = self._take(_NOBODY)
        if words is None:
            return False
        rest = [] if self._at_end() or self._lower[self._at] == _COMMA else self._object_words()
        absent = " ".join([grammar.NOBODY[words], *rest])
        draft.absences.append(Absence(words, absent, f"{draft.text} with {absent}"))
        return True

    def _absence(self, draft: _Draft, intro: str) -> bool:
        """Read "without" and the like, and what is absent."""
        words = self._take(_ABSENCES)
        if words is None:
            return False
        words = " ".join(word for word in (intro, words) if word)
        text = draft.text
        for absent in self._alternatives():
            draft.absences.append(Absence(words, absent, f"{text} with {absent}"))
        return True

    def _negation(self, draft: _Draft, intro: str) -> bool:
        """Read "not" and the like, and the relation, the object or the property that is denied."""
        words = self._take(_NEGATIONS)
        if words is None:
            return False
        words = " ".join(word for word in (intro, words) if word)
        text = draft.text
        is_related = bool(self._sees(_RELATIONS, _PLACES, _ACTIVITIES))
        is_object = bool(self._sees(_DETERMINERS))
        for absent in self._alternatives():
            if is_related or (" " in absent and not is_object):
                counterpart = f"{text} {absent}"
            elif is_object:
                counterpart = absent.partition(" ")[2]
            else:
                counterpart = f"{absent} {text}"
            draft.absences.append(Absence(words, absent, counterpart))
        return True

    def _alternatives(self) -> list[str]:
        """Read what is denied: one or several things joined by "or" and the like."""
        denied = [_join(self._object_words())]
        while True:
            at = self._at
            if self._take(_ALTERNATIVES) is None or self._begins_tail() or self._at_end():
                self._at = at
                return denied
            denied.append(_join(self._object_words()))

    def _object_words(self) -> list[str]:
        """Read the words of something denied, with its attributes, up to a comma or another kind of tail."""
        start = self._at
        while not self._at_end() and self._lower[self._at] != _COMMA:
            relation = self._sees(_RELATIONS)
            words = " ".join(self._lower[self._at : self._at + relation])
            if relation and self._at > start and _KINDS[words] is not RelationKind.ATTRIBUTE:
                break
            if self._sees(_ABSENCES, _NEGATIONS, _ALTERNATIVES, _CONJUNCTIONS):
                break
            self._at += max(relation, 1)
        if self._at == start:
            raise _NotUnderstood
        return list(self._tokens[start : self._at])


def _join(words: Iterable[str]) -> str:
    return " ".join(words).replace(" ,", ",")
