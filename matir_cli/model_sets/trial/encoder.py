"""Trial of the encoder: ranking of right over wrong texts, by the vectors of known objects."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations, pairwise

import numpy as np

from matir_cli.engines.protocols import RegionEncoder, TextEncoder
from matir_cli.model_sets.trial.findings import (
    TrialFinding,
    check_reference,
    check_share,
    nearer,
    one_of,
    with_reason,
)
from matir_cli.model_sets.trial.pictures import Expectations, TrialObject, TrialPicture, TrialWorld
from matir_cli.progress import ProgressObserver
from matir_cli.records import FloatArray

TOLERANCE = 0.002
"""Largest difference from the reference figures, which are cosines.

Measured with the tiny set: float16 differs by 0.0001, bfloat16 by 0.0005; GELU for QuickGELU in the visual
tower by 0.0035, SiLU by 0.04 (in the text tower by 0.015), another transform by 0.026 or more. GELU in the
text tower alone differs by 0.0007, and shows in the texts' own figures.
"""

TEXT_TOLERANCE = 0.0003
"""Largest difference from the reference figures of texts alone.

The text tower always computes in float32. Measured with the tiny set: GELU for QuickGELU in it differs by
0.0014, activations rounded to float16 by 0.00001, figures recorded with four decimals by 0.00003.
"""

REFERENCE_OBJECTS = 16
"""Objects whose cosines are the reference figures: each with its own text and with the object's before it."""

LEAST_MASK_EFFECT = 0.0005
"""Mean of 1 - cosine of two objects of one picture, below which masks count as having no effect.

Tiny set: 0.89; with zeroed alpha weights 0 (up to rounding); with random weights 0.0007 and more.
"""

LEAST_ALIKE = 0.75
"""`alike` of a working visual tower. Tiny set: 0.94; exchanged channels 0.94; random weights at most 0.54."""


@dataclass(frozen=True, slots=True)
class EncoderFigures:
    """What an encoder makes of the pictures and texts; shares are 0..1, and 0.5 by chance."""

    colours: float
    """Share of wrong colours whose text is farther from the object than the right text."""
    kinds: float
    """Share of wrong kinds whose text is farther from the object than the right text."""
    regions: float
    """Share of pairs of objects in a picture that lie nearer to their own texts than to each other's."""
    mask_effect: float
    """Mean of 1 - cosine of two objects of one picture; 0 if masks have no effect."""
    alike: float
    """Share of comparisons in which two objects of different pictures with a common colour or kind are nearer
    to each other than two with nothing in common; no texts are involved."""
    cosines: tuple[float, ...]
    """Cosines of the first objects with their own text, then with the text of the object before each."""
    between_texts: tuple[float, ...]
    """Cosines of the first texts, each with the next one."""


def try_encoder(
    world: TrialWorld,
    regions: RegionEncoder,
    texts: TextEncoder,
    reference: Sequence[float],
    progress: ProgressObserver,
) -> list[TrialFinding]:
    """Measure the encoder and compare it with what a working one gives in this world."""
    pictures, least = world.pictures(world.encoder_pictures), world.least
    figures = measure_encoder(world, pictures, regions, texts, progress)
    findings = [
        check_share("encoder", "colours", figures.colours, least.colours, "ranked right"),
        check_share("encoder", "kinds", figures.kinds, least.kinds, "ranked right"),
        check_share("encoder", "regions", figures.regions, least.regions, "ranked right"),
        check_figures(figures, reference),
    ]
    if not any(finding.failed for finding in findings):
        return findings
    exchanged = [picture.exchange_channels() for picture in pictures]
    figures_exchanged = measure_encoder(world, exchanged, regions, texts, progress)
    return with_reason(findings, explain_encoder(figures, figures_exchanged, least, reference))


def check_figures(figures: EncoderFigures, reference: Sequence[float]) -> TrialFinding:
    """Compare the cosines of objects and texts, and those of texts alone, with the recorded ones.

    Args:
        reference: cosines of objects and texts, then those of texts; empty, or without the latter, if they
            are not recorded.
    """
    count = len(figures.cosines)
    shown = check_reference("encoder", figures.cosines, reference[:count], TOLERANCE)
    texts = check_reference("encoder", figures.between_texts, reference[count:], TEXT_TOLERANCE)
    found = texts if texts.failed and not shown.failed else shown
    return replace(found, figures=(*figures.cosines, *figures.between_texts))


def measure_encoder(
    world: TrialWorld,
    pictures: Sequence[TrialPicture],
    regions: RegionEncoder,
    texts: TextEncoder,
    progress: ProgressObserver,
) -> EncoderFigures:
    """Encode all objects with their true masks, and all descriptions, and compare."""
    shown = [world.named_objects(picture) for picture in pictures]
    vectors = []
    with progress("encoding regions", len(pictures), "picture") as advance:
        for picture, objects in zip(pictures, shown, strict=True):
            vectors.append(regions.encode(picture.image, [each.rle for each in objects]))
            advance()
    combined = (f"{colour} {kind}" for colour in world.colours for kind in world.kinds)
    words = {text: texts.encode(text).vector for text in combined}
    flat, rows = [each for objects in shown for each in objects], np.concatenate(vectors)
    own = np.array([words[each.text] for each in flat])
    first = slice(0, REFERENCE_OBJECTS)
    scores = [(rows * own).sum(axis=1)[first], (rows * np.roll(own, 1, axis=0)).sum(axis=1)[first]]
    return EncoderFigures(
        colours=_ranked_right(flat, rows, words, world.other_colours),
        kinds=_ranked_right(flat, rows, words, world.other_kinds),
        regions=_matched_right(shown, vectors, words),
        mask_effect=float(np.mean([_mean_distance(of_picture) for of_picture in vectors])),
        alike=_alike_nearer(shown, vectors),
        cosines=tuple(np.concatenate(scores).tolist()),
        between_texts=_between_neighbours(list(words.values())[: REFERENCE_OBJECTS + 1]),
    )


def explain_encoder(
    figures: EncoderFigures, exchanged: EncoderFigures, least: Expectations, reference: Sequence[float]
) -> str:
    """Return the likely reason why an encoder failed.

    Args:
        figures: what it makes of the pictures.
        exchanged: what it makes of the pictures with red and blue exchanged.
        least: what a working one gives.
        reference: the recorded cosines; may be empty.
    """
    if not np.isfinite(figures.cosines).all():
        return one_of("the weights are damaged", 'half precision overflows (try precision = "float32")')
    if figures.mask_effect < LEAST_MASK_EFFECT:
        return "masks have no effect: the visual file has no trained alpha weights (a plain CLIP?)"
    if _works(exchanged, least) and nearer(
        exchanged.cosines, figures.cosines, reference[: len(figures.cosines)]
    ):
        return "the visual tower expects the colour channels in the other order (BGR instead of RGB)"
    if _works(figures, least):
        return one_of(
            "another checkpoint than that of the reference figures",
            "another activation function (GELU or QuickGELU)",
            "another transform, or other prompts, heads or text_heads",
            "a device that computes wrongly (compare --device cpu)",
        )
    if figures.alike >= LEAST_ALIKE:
        return one_of(
            "the vocabulary is not that of the text file",
            "the text file is of another CLIP, untrained or damaged",
            "the number of text_heads is wrong",
        )
    return one_of(
        "the visual file is of another model, untrained or damaged",
        "the number of heads or the transform is wrong",
        "another activation function (GELU or QuickGELU)",
        "a device that computes wrongly (compare --device cpu)",
    )


def _works(figures: EncoderFigures, least: Expectations) -> bool:
    """Return True if the shares are those of a working encoder."""
    return (
        figures.colours >= least.colours and figures.kinds >= least.kinds and figures.regions >= least.regions
    )


def _ranked_right(
    objects: Sequence[TrialObject],
    rows: FloatArray,
    words: Mapping[str, FloatArray],
    wrong: Callable[[TrialObject], Iterable[str]],
) -> float:
    """Return the share of wrong texts that lie farther from their object's row than the right text."""
    return float(
        np.mean(
            [
                row @ words[shown.text] > row @ words[text]
                for shown, row in zip(objects, rows, strict=True)
                for text in wrong(shown)
            ]
        )
    )


def _matched_right(
    shown: Sequence[Sequence[TrialObject]], vectors: Sequence[FloatArray], words: Mapping[str, FloatArray]
) -> float:
    """Return the share of pairs of objects in a picture that lie nearer to their own texts."""
    wins = []
    for objects, rows in zip(shown, vectors, strict=True):
        for a, b in combinations(range(len(objects)), 2):
            difference = words[objects[a].text] - words[objects[b].text]
            wins.append(float((rows[a] - rows[b]) @ difference) > 0)
    return float(np.mean(wins))


def _between_neighbours(vectors: Sequence[FloatArray]) -> tuple[float, ...]:
    """Return the cosine of each of the unit vectors with the next one."""
    return tuple(float(a @ b) for a, b in pairwise(vectors))


def _mean_distance(rows: FloatArray) -> float:
    """Return the mean of 1 - cosine over pairs of `rows`."""
    return float(np.mean([1 - rows[a] @ rows[b] for a, b in combinations(range(len(rows)), 2)]))


def _alike_nearer(shown: Sequence[Sequence[TrialObject]], vectors: Sequence[FloatArray]) -> float:
    """Return the share of comparisons that `EncoderFigures.alike` counts."""
    entries = [
        (picture, each, row)
        for picture, (objects, rows) in enumerate(zip(shown, vectors, strict=True))
        for each, row in zip(objects, rows, strict=True)
    ]
    alike: list[float] = []
    unlike: list[float] = []
    for (picture, a, row_a), (other, b, row_b) in combinations(entries, 2):
        if picture != other:
            common = a.colour == b.colour or a.kind == b.kind
            (alike if common else unlike).append(float(row_a @ row_b))
    return float(np.searchsorted(np.sort(unlike), alike).mean() / len(unlike))
