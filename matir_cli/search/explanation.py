"""Explanations of search results: where a photo's score and its mask come from.

They are made to be shown: cosines, scores and logits are rounded to 6 digits, IoUs and shares to 4, boxes to
2.
`explainer` makes them.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

TermKind: TypeAlias = Literal["text", "object", "denied", "example", "mean", "not", "unlike"]
"""Kind of a part of a query: the whole text, the described object alone, what the text says that it must not
be, the nearest of the examples, their mean, an excluded text, a bad example."""

Corners: TypeAlias = tuple[float, float, float, float]
"""x0, y0, x1, y1, photo pixels."""


@dataclass(frozen=True, slots=True)
class ExplainedRegion:
    """A stored region of the photo."""

    ordinal: int
    """0 is the whole photo."""
    box: Corners
    """x0, y0, x1, y1, photo pixels."""
    share: float
    """Fraction of the photo that it covers, 0..1."""
    origin: str | None
    """Where it comes from, if not from the proposer: human, data set."""
    label: str | None
    """What it shows, in the words of its origin."""


@dataclass(frozen=True, slots=True)
class PromptCosine:
    """A sentence that a text is put into, compared with the best region."""

    text: str
    """The sentence."""
    cosine: float
    """-1..1."""


@dataclass(frozen=True, slots=True)
class ExampleCosine:
    """An example, compared with the best region."""

    path: Path
    """The photo of the example."""
    box: Corners
    """Around the object that is shown there: x0, y0, x1, y1, photo pixels."""
    cosine: float
    """-1..1."""


@dataclass(frozen=True, slots=True)
class ExplainedTerm:
    """A part of the query, compared with the best region."""

    kind: TermKind
    """text: the whole text. object: the described object alone. denied: what the text says that it must not
    be. example: an object that is shown, of several the nearest. mean: the mean of several examples. not: a
    text that is excluded. unlike: a bad example."""
    text: str | None
    """The text; left out for examples."""
    examples: tuple[ExampleCosine, ...] | None
    """The examples, the nearest to the region first; left out for a text."""
    cosine: float
    """Cosine with the best region, -1..1; of several examples the nearest one's, or that of their mean."""
    weight: float | None
    """What a cosine of 1 adds to the score; below 0 for what must not be found. Left out for bad examples."""
    contribution: float
    """What it adds to the score: weight times cosine. Of a bad example 0 or less: what it takes from a region
    that is nearer to it than to the query; of several, the one that takes most counts."""
    prompts: tuple[PromptCosine, ...] | None
    """The sentences whose mean the text is, if it is the whole text."""


@dataclass(frozen=True, slots=True)
class ExplainedRelation:
    """A relation to another object that the text names."""

    object: str
    """The object that has the relation."""
    kind: str
    """The relation, as `matir parse` names it; "and": anywhere in the same photo."""
    other: str
    """The other object."""
    region: ExplainedRegion
    """The region that is taken for the other object."""
    placed: bool
    """Whether that region is placed as the relation says."""
    z_score: float
    """Of that region as the other object, in standard deviations; 2 less if it is not placed so."""
    contribution: float
    """What it adds to the score, 0 or less: only the relation that reaches least counts."""


@dataclass(frozen=True, slots=True)
class ExplainedScore:
    """Where the score of stage 1 comes from."""

    score: float
    """The sum of all contributions."""
    region: ExplainedRegion
    """The photo's best region."""
    terms: tuple[ExplainedTerm, ...]
    """The parts of the query."""
    relations: tuple[ExplainedRelation, ...]
    """The relations of the described object, each followed by those of its other object."""
    whole_photo: float
    """What it costs that the best region is the whole photo, 0 or less: a contribution as well."""


@dataclass(frozen=True, slots=True)
class ExplainedVerdict:
    """What the judge says of the photo, and its rank by that."""

    z_true: float
    """Logit of True; with excluded texts, log p of the combined probability."""
    z_false: float
    """Logit of False; with excluded texts, log (1 - p)."""
    p_true: float
    """0..1."""
    fusion: float
    """Weight of the score of stage 1; 0: the judge alone ranks."""
    ranked_by: float
    """z_true - z_false + fusion * score of stage 1, by which judged photos are ranked."""


@dataclass(frozen=True, slots=True)
class ExplainedMatch:
    """A stored region that a box of the judge may stand for."""

    region: ExplainedRegion
    iou: float
    """IoU of its box and the judge's, 0..1."""
    predicted_iou: float
    """The proposer's estimate of the mask's quality, 0..1."""
    similarity: float | None
    """To the described object, in standard deviations up to a constant; left out if matched by IoU alone."""
    joint: float | None
    """Joint score, up to a constant; likewise."""
    chosen: bool
    """Whether it stands for the box."""


@dataclass(frozen=True, slots=True)
class ExplainedBox:
    """A box at which the judge pointed."""

    box: Corners
    """x0, y0, x1, y1, photo pixels."""
    matches: tuple[ExplainedMatch, ...]
    """The stored regions that fit best, and the one chosen."""


@dataclass(frozen=True, slots=True)
class Explanation:
    """Where the score and the mask of a result come from."""

    stage1: ExplainedScore
    """Stage 1."""
    verdict: ExplainedVerdict | None
    """The judge's verdict; left out if there is none."""
    boxes: tuple[ExplainedBox, ...]
    """The judge's boxes; empty if it was not asked or gave none."""
    min_iou: float | None
    """Least IoU for a stored region to stand for a box; left out if the judge was not asked for boxes."""
    mask: str
    """How the mask was found, or why there is none."""
