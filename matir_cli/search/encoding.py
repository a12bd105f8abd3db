"""Queries as vectors: a text and its parts, an example and excluded texts.

Texts and images share one space, but their cosines differ in scale: a region's cosines with texts are
small and close together, those with other regions are large and far apart ("Mind the gap", Liang et al.,
NeurIPS 2022). So each part of a query is measured in its own unit, the standard deviation of its cosines
with the gallery's regions, as in Montague and Aslam's scores of zero mean and unit variance ("Relevance
score normalization for metasearch", CIKM 2001). Excluded texts are subtracted as in Rocchio's feedback
("Relevance feedback in information retrieval", 1971), with less weight than the wanted parts:

    q  =  (1 - weight) t / s(t)  +  weight e / s(e)  -  AVERSION * mean of n / s(n)

with t the text, e the example, n each excluded text and s the standard deviation. Subtracting the means
as well would shift all scores by the same amount, so it is left out. The result q is a single vector, and
is searched like any other.

A text that names parts (`phrases`) is replaced by the mean of two: the whole text, and the described object
alone, less what the text says it must not be. "House that is not red" is "house", less "red house":

    t / s(t)   becomes   (t / s(t)  +  h / s(h)  -  NEGATION * mean of u / s(u)) / 2

with h the object and u its counterparts without the negation. This is still one vector. What the text says of
other objects is scored by `parts`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from matir_cli.engines.protocols import PromptVector, QueryVector
from matir_cli.errors import GalleryDamaged, QueryContradicts
from matir_cli.gallery.database import GalleryFile
from matir_cli.records import FloatArray
from matir_cli.search.explanation import TermKind
from matir_cli.search.models import SearchModels
from matir_cli.search.parts import PartQuery, Role, Scores
from matir_cli.search.phrases.description import Description, Phrase, RelationKind
from matir_cli.search.phrases.parser import parse_phrase
from matir_cli.search.query import Example, Query, resolve_example
from matir_cli.search.rank import sample_scores

AVERSION = 0.35
"""Weight of excluded texts. The best of 0.15 to 1 on the drawn world; more hides wanted objects as well."""

NEGATION = 0.3
"""Weight of what the words of a text deny. The best of 0.15 to 0.7 on the validation split of the drawn
world."""

WHOLE_PHOTO = 0.5
"""Standard deviations that the whole photo loses as an answer: it stays the answer where no object comes
near, as for scenes. On the validation split of the drawn world, which has no scenes, more gains nothing."""

SAME_COSINE = 0.999
"""Two vectors with a higher cosine than this mean the same."""

LEAST_SPREAD = 1e-6
"""Least standard deviation of cosines that counts as one: below it there are only rounding errors."""


@dataclass(frozen=True, slots=True)
class QueryTerm:
    """A part of a query: what regions are compared with, and how much that counts."""

    kind: TermKind
    weight: float
    """Amount that a cosine of 1 adds to a region's score."""
    vectors: FloatArray
    """(k, d) float32 of unit length; the best of the cosines counts."""
    text: str | None = None
    """None for an example."""
    paths: tuple[Path, ...] = ()
    """Photos of the k examples."""
    prompts: tuple[PromptVector, ...] = ()
    """Sentences that the text is put into."""


@dataclass(frozen=True, slots=True)
class EncodedQuery:
    """A query as stage 1 compares it with regions."""

    vector: FloatArray
    """(d,) float32 of unit length, in the space of the region vectors."""
    truncated: bool
    """True if a text was longer than the encoder reads; its end was left out."""
    deviation: float = 0.0
    """Standard deviation of the scores over the gallery, on the scale of cosines; 0 in the method as
    published, which measures nothing by it."""
    parts: PartQuery | None = None
    """Objects that the text relates to the described one; None if there are none."""
    terms: tuple[QueryTerm, ...] = ()
    """The parts of `vector`: its cosine with a region is the sum of what they add."""

    @property
    def handicap(self) -> float:
        """Amount that the whole photo loses as an answer, on the scale of cosines."""
        return WHOLE_PHOTO * self.deviation


@dataclass
class _Terms:
    """Vectors of a query's texts, each encoded once."""

    gallery: GalleryFile
    models: SearchModels
    texts: dict[str, QueryVector] = field(default_factory=dict)
    truncated: bool = False

    def encode(self, kind: TermKind, text: str, weight: float) -> QueryTerm:
        """Return the term of a text."""
        if text not in self.texts:
            self.texts[text] = self.models.text_encoder.encode(text)
            self.truncated = self.truncated or self.texts[text].truncated
        encoded = self.texts[text]
        return QueryTerm(kind, weight, encoded.vector[np.newaxis], text, prompts=encoded.prompts)


@dataclass(frozen=True, slots=True)
class _Sum:
    """A weighted sum of unit vectors, each in units of its spread over the gallery."""

    vector: FloatArray
    """(d,)"""
    sample: Scores
    """(n,) inner products with the sample of the gallery."""
    terms: tuple[QueryTerm, ...]
    """What is summed; the weights are those in units of spreads."""

    @property
    def mean(self) -> float:
        return float(self.sample.mean()) if self.sample.size else 0.0

    def scaled(self, factor: float) -> tuple[QueryTerm, ...]:
        """Return the terms of the sum times a factor."""
        return tuple(replace(term, weight=term.weight * factor) for term in self.terms)


def encode_query(
    gallery: GalleryFile, models: SearchModels, query: Query, *, whole: bool = False
) -> EncodedQuery:
    """Encode all parts of a query.

    Args:
        whole: the method as published: the text is compared as a whole, and the whole photo is a region like
            any other.

    Raises:
        QueryEmpty, QueryNotText: see `Query.check`.
        QueryContradicts: an excluded text means the same as the text or the example.
        GalleryDamaged: the example's stored vector is impossible.
        MatirError: as loading and running the models raise it.
    """
    query.check()
    terms = _Terms(gallery, models)
    share = 1.0 if query.example is None else 1.0 - query.weight
    wanted: list[QueryTerm] = []
    is_scene = False
    if query.text is not None:
        wanted.append(terms.encode("text", query.text, share))
    if query.example is not None:
        example = query.example
        if isinstance(example, Example):
            example = resolve_example(gallery, models, example)
        weight = 1.0 if query.text is None else query.weight
        wanted.append(QueryTerm("example", weight, example.vector[np.newaxis], paths=(example.path,)))
        is_scene = example.share >= 1.0
    _check_lengths(gallery, wanted)
    unwanted: list[QueryTerm] = []
    for text in query.without:
        term = terms.encode("not", text, -AVERSION / len(query.without))
        _check_lengths(gallery, [term, *wanted])
        if any(float((other.vectors @ term.vectors[0]).max()) > SAME_COSINE for other in wanted):
            raise QueryContradicts(text)
        unwanted.append(term)
    description = None if whole or query.text is None else parse_phrase(query.text)
    if description is None or not description.has_parts:
        return _encode_whole(terms, wanted + unwanted, handicapped=not (whole or is_scene))
    wanted[0] = replace(wanted[0], weight=share / 2)
    return _encode_parts(terms, wanted + unwanted, description, share / 2, handicapped=not is_scene)


def object_direction(gallery: GalleryFile, encoded: EncodedQuery) -> FloatArray:
    """Return the (d,) float32 direction in which regions are compared with the described object alone.

    Its inner product with a region's unit vector is, up to a constant, the region's similarity in standard
    deviations over the gallery. Of a text with other objects it is the described object's, otherwise the
    whole query's.
    """
    if encoded.parts is not None:
        return encoded.parts.target.vector
    spread = _spread(sample_scores(gallery, encoded.vector[np.newaxis])[0])
    # A single region, or regions that are all alike, have no spread to measure by.
    return np.asarray(encoded.vector / (spread if spread > LEAST_SPREAD else 1.0), np.float32)


def fusion_weight(encoded: EncodedQuery, models: SearchModels) -> float:
    """Return the weight of a photo's stage-1 score beside zTrue - zFalse.

    The judge errs in other photos than stage 1 does, once that knows the parts of a description: a photo that
    both find is likelier right. The set's weight is per standard deviation, since texts and encoders differ
    in the scale of their cosines.
    """
    return models.fusion / encoded.deviation if encoded.deviation > LEAST_SPREAD else 0.0


def _check_lengths(gallery: GalleryFile, terms: Sequence[QueryTerm]) -> None:
    """Check that an example's stored vector is as long as those of the encoder; GalleryDamaged if not."""
    if len({term.vectors.shape[1] for term in terms}) > 1:
        raise GalleryDamaged(gallery.path, "its vectors are not as long as those of its encoder")


def _encode_whole(terms: _Terms, weighted: list[QueryTerm], *, handicapped: bool) -> EncodedQuery:
    """Encode a query without parts."""
    if len(weighted) == 1 and not handicapped:
        alone = replace(weighted[0], weight=1.0)
        return EncodedQuery(_unit(alone.vectors[0]), terms.truncated, terms=(alone,))
    (total,) = _sums(terms.gallery, [weighted])
    length = float(np.linalg.norm(total.vector))
    deviation = _spread(total.sample) / length if handicapped else 0.0
    vector = weighted[0].vectors[0] if len(weighted) == 1 else total.vector
    return EncodedQuery(_unit(vector), terms.truncated, deviation, terms=total.scaled(1.0 / length))


def _encode_parts(
    terms: _Terms,
    weighted: list[QueryTerm],
    description: Description,
    share: float,
    *,
    handicapped: bool,
) -> EncodedQuery:
    """Encode a query whose text has parts.

    Args:
        weighted: terms for the region that answers, apart from the described object.
        share: weight of the described object.
    """
    phrases = [*_scored_phrases(description)]
    base, *roles = _sums(terms.gallery, [weighted, *(_phrase_terms(terms, phrase) for phrase in phrases)])
    total = base.vector + share * roles[0].vector
    length = float(np.linalg.norm(total))
    sample = base.sample + share * roles[0].sample
    deviation = _spread(sample) / length if handicapped else 0.0
    target = _role(description.target, iter(roles), description.others)
    vector = _unit(total)
    handicap = WHOLE_PHOTO * deviation
    parts = PartQuery(vector, target, share / length, handicap) if target.relations else None
    together = (*base.scaled(1.0 / length), *roles[0].scaled(share / length))
    return EncodedQuery(vector, terms.truncated, deviation, parts, together)


def _scored_phrases(description: Description) -> Iterator[Phrase]:
    """Yield the phrases that are scored on their own: the target, then the others as `Role.others` does."""
    for phrase in (description.target, *description.others):
        yield phrase
        yield from _others(phrase)


def _others(phrase: Phrase) -> Iterator[Phrase]:
    for relation in phrase.relations:
        if relation.kind is not RelationKind.ATTRIBUTE:
            yield relation.other
            yield from _others(relation.other)


def _phrase_terms(terms: _Terms, phrase: Phrase) -> list[QueryTerm]:
    """Return the terms of a phrase and of what it denies."""
    weight = -NEGATION / max(1, len(phrase.absences))
    denied = [terms.encode("denied", each.counterpart, weight) for each in phrase.absences]
    return [terms.encode("object", phrase.text, 1.0), *denied]


def _role(phrase: Phrase, sums: Iterator[_Sum], joined: tuple[Phrase, ...] = ()) -> Role:
    """Make the role of a phrase from its sum and those of all others, in the order of `Role.others`.

    Args:
        joined: objects that must be anywhere in the same photo.
    """
    own = next(sums)
    scored = [each for each in phrase.relations if each.kind is not RelationKind.ATTRIBUTE]
    placed = [(each.kind, _role(each.other, sums)) for each in scored]
    anywhere = [(None, _role(other, sums)) for other in joined]
    return Role(own.vector, own.mean, (*placed, *anywhere), phrase.text)


def _sums(gallery: GalleryFile, weighted: list[list[QueryTerm]]) -> list[_Sum]:
    """Sum each list of terms, all in units of their spreads over one sample of the gallery."""
    weights = np.array([term.weight for terms in weighted for term in terms])
    vectors = np.concatenate([term.vectors for terms in weighted for term in terms])
    sample = sample_scores(gallery, vectors)
    spreads = np.array([_spread(row) for row in sample])
    # A single region, or regions that are all alike, have no spread to measure by.
    if spreads.min() > LEAST_SPREAD:
        weights = weights / spreads
    sums = []
    start = 0
    for terms in weighted:
        part = slice(start, start + len(terms))
        total = np.asarray(weights[part] @ vectors[part], np.float32)
        scaled = [replace(each, weight=float(w)) for each, w in zip(terms, weights[part], strict=True)]
        sums.append(_Sum(total, weights[part] @ sample[part], tuple(scaled)))
        start += len(terms)
    return sums


def _spread(scores: Scores) -> float:
    return float(scores.std()) if scores.size else 0.0


def _unit(vector: FloatArray) -> FloatArray:
    exact = vector.astype(np.float64)
    return np.asarray(exact / np.linalg.norm(exact), np.float32)
