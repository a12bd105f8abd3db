"""Queries as vectors: a text and its parts, examples, and what must not be found.

Texts and images share one space, but their cosines differ in scale: a region's cosines with texts are
small and close together, those with other regions are large and far apart ("Mind the gap", Liang et al.,
NeurIPS 2022). So each part of a query is measured in its own unit, the standard deviation of its cosines
with the gallery's regions, as in Montague and Aslam's scores of zero mean and unit variance ("Relevance
score normalization for metasearch", CIKM 2001). Excluded texts are subtracted as in Rocchio's feedback
("Relevance feedback in information retrieval", 1971), with less weight than the wanted parts:

    q  =  (1 - weight) t / s(t)  +  weight e / s(e)  -  AVERSION * mean of n / s(n)

with t the text, e the example, n each excluded text and s the standard deviation. Subtracting the means as
well would shift all scores by the same amount, so it is left out. The result q is a single vector, and is
searched like any other. Bad examples are no part of it: see `dislike`.

Of several examples, e is their mean, or a region is compared with the one that it is most like: the largest
cosine counts, and s(e) is its standard deviation. That is one vector q for each example, of which the best
counts; the index serves them in one pass (`rank.rank_queries`).

A text that names parts (`phrases`) is replaced by the mean of two: the whole text, and the described object
alone, less what the text says it must not be. "House that is not red" is "house", less "red house":

    t / s(t)   becomes   (t / s(t)  +  h / s(h)  -  NEGATION * mean of u / s(u)) / 2

with h the object and u its counterparts without the negation. This is still one vector. What the text says of
other objects is scored by `parts`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from matir_cli.engines.protocols import PromptVector, QueryVector
from matir_cli.errors import EngineFailed, GalleryDamaged, QueryContradicts
from matir_cli.gallery.union import GalleryReader
from matir_cli.records import FloatArray
from matir_cli.search.dislike import Dislike
from matir_cli.search.explanation import TermKind
from matir_cli.search.models import SearchModels
from matir_cli.search.parts import PartQuery, Role, Scores
from matir_cli.search.phrases.description import Description, Phrase, RelationKind
from matir_cli.search.phrases.parser import parse_phrase
from matir_cli.search.query import ExampleRule, Query, ResolvedExample, resolve_each
from matir_cli.search.sampling import sample_scores

AVERSION = 0.35
"""Weight of excluded texts. The best of 0.15 to 1 on the drawn world; more hides wanted objects as well."""

DISLIKE, MARGIN = 0.5, 0.0
"""Weight of bad examples beside good ones, and standard deviations by which a region may be nearer to them.
Chosen on the validation split of the drawn world, where the bad examples are what was found wrongly."""

DISLIKE_OF_TEXTS, MARGIN_OF_TEXTS = 0.25, 0.5
"""The same where the query is a text alone: a region is easily more like another one than like a text."""

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
    """None for examples."""
    examples: tuple[ResolvedExample, ...] = ()
    """Those whose vectors are the k ones; of the kind "mean", those whose mean the one vector is."""
    prompts: tuple[PromptVector, ...] = ()
    """Sentences that the text is put into."""


@dataclass(frozen=True, slots=True)
class EncodedQuery:
    """A query as stage 1 compares it with regions."""

    vectors: FloatArray
    """(k, d) float32 in the space of the region vectors, the longest of unit length. The best row counts:
    with several examples there is one for each."""
    truncated: bool
    """True if a text was longer than the encoder reads; its end was left out."""
    deviation: float = 0.0
    """Standard deviation of the scores over the gallery, on the scale of cosines; 0 in the method as
    published, which measures nothing by it."""
    parts: PartQuery | None = None
    """Objects that the text relates to the described one; None if there are none."""
    bad: tuple[ResolvedExample, ...] = ()
    """Bad examples."""
    unlike: Dislike | None = None
    """What they take from scores, in the same order; also in `parts`."""
    terms: tuple[QueryTerm, ...] = ()
    """The parts of `vectors`, whose best inner product with a region is the sum of what the parts add. At
    most one part has several vectors."""

    @property
    def handicap(self) -> float:
        """Amount that the whole photo loses as an answer, on the scale of cosines."""
        return WHOLE_PHOTO * self.deviation


@dataclass
class _Encoder:
    """Encodes a query's texts, each once."""

    gallery: GalleryReader
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
    """A weighted sum of terms, each in units of its spread over the gallery."""

    vectors: FloatArray
    """(k, d)"""
    samples: Scores
    """(k, n) inner products with the sample of the gallery."""
    terms: tuple[QueryTerm, ...]
    """What is summed; the weights are those in units of spreads."""

    @property
    def sample(self) -> Scores:
        """(n,) the best inner product of each region of the sample."""
        return np.asarray(self.samples.max(axis=0))

    @property
    def mean(self) -> float:
        return float(self.sample.mean()) if self.samples.size else 0.0

    def scaled(self, factor: float) -> tuple[QueryTerm, ...]:
        """Return the terms of the sum times a factor."""
        return tuple(replace(term, weight=term.weight * factor) for term in self.terms)


def encode_query(
    gallery: GalleryReader, models: SearchModels, query: Query, *, whole: bool = False
) -> EncodedQuery:
    """Encode all parts of a query.

    Args:
        whole: the method as published: the text is compared as a whole, and the whole photo is a region like
            any other.

    Raises:
        QueryEmpty, QueryNotText: see `Query.check`.
        QueryContradicts: an excluded text or example means the same as the text or an example.
        GalleryDamaged: an example's stored vector is impossible.
        EngineFailed: the vectors of the query cancel each other out.
        MatirError: as loading and running the models raise it.
    """
    query.check()
    good, bad = (resolve_each(gallery, models, examples) for examples in (query.examples, query.unlike))
    encoder = _Encoder(gallery, models)
    share = 1.0 if not good else 1.0 - query.weight
    wanted: list[QueryTerm] = []
    is_scene = False
    if query.text is not None:
        wanted.append(encoder.encode("text", query.text, share))
    if good:
        weight = 1.0 if query.text is None else query.weight
        wanted.append(_example_term(gallery, good, query.rule, weight))
        is_scene = all(example.share >= 1.0 for example in good)
    _check_lengths(gallery, [term.vectors for term in wanted])
    unwanted = [encoder.encode("not", text, -AVERSION / len(query.without)) for text in query.without]
    _check_unwanted(gallery, [*unwanted, *(_bad_term(each) for each in bad)], wanted)
    description = None if whole or query.text is None else parse_phrase(query.text)
    if description is None or not description.has_parts:
        encoded = _encode_whole(encoder, wanted + unwanted, handicapped=not (whole or is_scene))
    else:
        wanted[0] = replace(wanted[0], weight=share / 2)
        encoded = _encode_parts(encoder, wanted + unwanted, description, share / 2, handicapped=not is_scene)
    return _with_bad_examples(gallery, encoded, bad, is_text=not good) if bad else encoded


def match_directions(gallery: GalleryReader, encoded: EncodedQuery) -> FloatArray:
    """Return the (k, d) float32 directions in which regions are compared with the described object alone.

    The best inner product with a region's unit vector is, up to a constant, the region's similarity in
    standard deviations over the gallery. Of a text with other objects it is the described object's, otherwise
    the whole query's.
    """
    if encoded.parts is not None:
        return encoded.parts.target.vector[np.newaxis]
    lengths = np.linalg.norm(encoded.vectors, axis=1, keepdims=True)
    spread = _spread((sample_scores(gallery, encoded.vectors) * lengths).max(axis=0))
    # A single region, or regions that are all alike, have no spread to measure by.
    return np.asarray(encoded.vectors / (spread if spread > LEAST_SPREAD else 1.0), np.float32)


def _example_term(
    gallery: GalleryReader, examples: Sequence[ResolvedExample], rule: ExampleRule, weight: float
) -> QueryTerm:
    """Return the term of examples: with the unit vector of each, or with that of their mean."""
    vectors = [example.vector for example in examples]
    _check_lengths(gallery, vectors)
    if rule == "mean" and len(vectors) > 1:
        mean = _unit(np.mean(vectors, axis=0, keepdims=True))
        return QueryTerm("mean", weight, mean, examples=(*examples,))
    return QueryTerm("example", weight, np.stack(vectors), examples=(*examples,))


def _bad_term(example: ResolvedExample) -> QueryTerm:
    return QueryTerm("unlike", 0.0, example.vector[np.newaxis], examples=(example,))


def _check_unwanted(
    gallery: GalleryReader, unwanted: Sequence[QueryTerm], wanted: Sequence[QueryTerm]
) -> None:
    """Check what must not be found against the rest of the query; errors as in `encode_query`."""
    for term in unwanted:
        _check_lengths(gallery, [term.vectors, *(other.vectors for other in wanted)])
        if any(float((other.vectors @ term.vectors[0]).max()) > SAME_COSINE for other in wanted):
            raise QueryContradicts(str(term.examples[0].path) if term.text is None else term.text)


def _with_bad_examples(
    gallery: GalleryReader, encoded: EncodedQuery, bad: Sequence[ResolvedExample], *, is_text: bool
) -> EncodedQuery:
    """Return the query with bad examples, whose cosines are brought to the scale of its scores."""
    weight, margin = (DISLIKE_OF_TEXTS, MARGIN_OF_TEXTS) if is_text else (DISLIKE, MARGIN)
    vectors = np.stack([example.vector for example in bad])
    count = len(encoded.vectors)
    sample = sample_scores(gallery, np.concatenate([encoded.vectors, vectors]))
    lengths = np.linalg.norm(encoded.vectors, axis=1, keepdims=True)
    own, theirs = (sample[:count] * lengths).max(axis=0), sample[count:]
    factors, offsets = np.ones(len(bad)), np.zeros(len(bad))
    spreads = np.array([_spread(row) for row in theirs])
    # A single region, or regions that are all alike, have no spread to measure by.
    if min(_spread(own), *spreads) > LEAST_SPREAD:
        factors = _spread(own) / spreads
        offsets = own.mean() - margin * own.std() - factors * theirs.mean(axis=1)
    scaled = np.asarray(vectors * factors[:, np.newaxis], np.float32)
    unlike = Dislike(scaled, offsets, weight)
    parts = None if encoded.parts is None else replace(encoded.parts, unlike=unlike)
    return replace(encoded, bad=(*bad,), unlike=unlike, parts=parts)


def fusion_weight(encoded: EncodedQuery, models: SearchModels) -> float:
    """Return the weight of a photo's stage-1 score beside zTrue - zFalse.

    The judge errs in other photos than stage 1 does, once that knows the parts of a description: a photo that
    both find is likelier right. The set's weight is per standard deviation, since texts and encoders differ
    in the scale of their cosines.
    """
    return models.fusion / encoded.deviation if encoded.deviation > LEAST_SPREAD else 0.0


def _check_lengths(gallery: GalleryReader, vectors: Sequence[FloatArray]) -> None:
    """Check that an example's stored vector is as long as those of the encoder; GalleryDamaged if not."""
    if len({vector.shape[-1] for vector in vectors}) > 1:
        raise GalleryDamaged(gallery.path, "its vectors are not as long as those of its encoder")


def _encode_whole(encoder: _Encoder, terms: list[QueryTerm], *, handicapped: bool) -> EncodedQuery:
    """Encode a query without parts."""
    if len(terms) == 1 and not handicapped:
        (alone,) = terms
        length = _longest(alone.vectors)
        return EncodedQuery(
            _unit(alone.vectors), encoder.truncated, terms=(replace(alone, weight=1.0 / length),)
        )
    (total,) = _sums(encoder.gallery, [terms])
    length = _longest(total.vectors)
    deviation = _spread(total.sample) / length if handicapped else 0.0
    vectors = terms[0].vectors if len(terms) == 1 else total.vectors
    return EncodedQuery(_unit(vectors), encoder.truncated, deviation, terms=total.scaled(1.0 / length))


def _encode_parts(
    encoder: _Encoder, terms: list[QueryTerm], description: Description, share: float, *, handicapped: bool
) -> EncodedQuery:
    """Encode a query whose text has parts.

    Args:
        terms: those for the region that answers, apart from the described object.
        share: weight of the described object.
    """
    phrases = [*_scored_phrases(description)]
    base, *roles = _sums(encoder.gallery, [terms, *(_phrase_terms(encoder, phrase) for phrase in phrases)])
    total = base.vectors + share * roles[0].vectors
    length = _longest(total)
    sample = (base.samples + share * roles[0].samples).max(axis=0)
    deviation = _spread(sample) / length if handicapped else 0.0
    target = _role(description.target, iter(roles), description.others)
    vectors = _unit(total)
    handicap = WHOLE_PHOTO * deviation
    parts = PartQuery(vectors, target, share / length, handicap) if target.relations else None
    together = (*base.scaled(1.0 / length), *roles[0].scaled(share / length))
    return EncodedQuery(vectors, encoder.truncated, deviation, parts, terms=together)


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


def _phrase_terms(encoder: _Encoder, phrase: Phrase) -> list[QueryTerm]:
    """Return the terms of a phrase and of what it denies."""
    weight = -NEGATION / max(1, len(phrase.absences))
    denied = [encoder.encode("denied", each.counterpart, weight) for each in phrase.absences]
    return [encoder.encode("object", phrase.text, 1.0), *denied]


def _role(phrase: Phrase, sums: Iterator[_Sum], joined: tuple[Phrase, ...] = ()) -> Role:
    """Make the role of a phrase from its sum and those of all others, in the order of `Role.others`.

    Args:
        joined: objects that must be anywhere in the same photo.
    """
    own = next(sums)
    scored = [each for each in phrase.relations if each.kind is not RelationKind.ATTRIBUTE]
    placed = [(each.kind, _role(each.other, sums)) for each in scored]
    anywhere = [(None, _role(other, sums)) for other in joined]
    return Role(own.vectors[0], own.mean, (*placed, *anywhere), phrase.text)


def _sums(gallery: GalleryReader, sums: list[list[QueryTerm]]) -> list[_Sum]:
    """Sum the terms of each list, all in units of their spreads over one sample of the gallery.

    At most one term of a list has several vectors, and the sum as many.
    """
    terms = [term for each in sums for term in each]
    sample = sample_scores(gallery, np.concatenate([term.vectors for term in terms]))
    ends = np.cumsum([len(term.vectors) for term in terms])[:-1]
    samples = np.split(sample, ends)
    spreads = [_spread(rows.max(axis=0)) for rows in samples]
    # A single region, or regions that are all alike, have no spread to measure by.
    is_measured = min(spreads) > LEAST_SPREAD
    scaled = iter(
        _Sum(
            np.multiply(factor, term.vectors, dtype=np.float64),
            factor * rows,
            (replace(term, weight=factor),),
        )
        for term, rows, spread in zip(terms, samples, spreads, strict=True)
        for factor in [term.weight / spread if is_measured else term.weight]
    )
    return [_add([next(scaled) for _ in each]) for each in sums]


def _add(parts: Sequence[_Sum]) -> _Sum:
    """Add sums, of which at most one has several vectors."""
    vectors, samples = parts[0].vectors, parts[0].samples
    for part in parts[1:]:
        vectors, samples = vectors + part.vectors, samples + part.samples
    terms = tuple(term for part in parts for term in part.terms)
    return _Sum(np.asarray(vectors, np.float32), samples, terms)


def _spread(scores: Scores) -> float:
    return float(scores.std()) if scores.size else 0.0


def _longest(vectors: FloatArray) -> float:
    """Return the length of the longest of (k, d) vectors; EngineFailed if it is none."""
    length = float(np.linalg.norm(vectors.astype(np.float64), axis=1).max())
    if not length > 0:
        raise EngineFailed("the vectors of the query cancel each other out")
    return length


def _unit(vectors: FloatArray) -> FloatArray:
    """Scale (k, d) vectors so that the longest has unit length."""
    return np.asarray(vectors.astype(np.float64) / _longest(vectors), np.float32)
