"""Trial of the proposer: IoU of its regions with the objects of the pictures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from matir_cli import masks
from matir_cli.engines.protocols import RegionProposer
from matir_cli.model_sets.trial.findings import (
    TrialFinding,
    check_reference,
    check_share,
    nearer,
    one_of,
    rms_difference,
    with_reason,
)
from matir_cli.model_sets.trial.pictures import Expectations, TrialPicture, TrialWorld
from matir_cli.progress import ProgressObserver

TOLERANCE = 0.03
"""Largest difference from the reference figures, which are predicted IoUs.

Measured with the tiny set: bfloat16 differs by 0.007, exchanged colour channels by 0.046, another input
size by 0.17 or more.
"""

REFERENCE_OBJECTS = 12
"""Objects whose predicted IoUs are the reference figures."""


@dataclass(frozen=True, slots=True)
class ProposerFigures:
    """What a proposer makes of the pictures."""

    covered: float
    """Mean IoU of an object and the best region found by the grid of points, 0..1."""
    boxed: float
    """Mean IoU of an object and the region found in its box, 0..1."""
    predicted: tuple[float, ...]
    """Predicted IoU of the regions found in the first objects' boxes; 0 where there is none."""


def try_proposer(
    world: TrialWorld, proposer: RegionProposer, reference: Sequence[float], progress: ProgressObserver
) -> list[TrialFinding]:
    """Measure the proposer and compare it with what a working one gives in this world."""
    pictures = world.pictures(world.grid_pictures)
    figures = measure_proposer(pictures, proposer, progress)
    findings = [
        check_share("proposer", "regions by points", figures.covered, world.least.covered, "mean IoU"),
        check_share("proposer", "regions by boxes", figures.boxed, world.least.boxed, "mean IoU"),
        check_reference("proposer", figures.predicted, reference, TOLERANCE),
    ]
    if not any(finding.failed for finding in findings):
        return findings
    exchanged = measure_proposer([each.exchange_channels() for each in pictures], proposer, progress)
    return with_reason(findings, explain_proposer(figures, exchanged, world.least, reference))


def measure_proposer(
    pictures: Sequence[TrialPicture], proposer: RegionProposer, progress: ProgressObserver
) -> ProposerFigures:
    """Search the pictures for regions, by the grid of points and in the objects' boxes."""
    covered: list[float] = []
    boxed: list[float] = []
    predicted: list[float] = []
    with progress("finding regions", len(pictures), "picture") as advance:
        for picture in pictures:
            wanted = [shown.rle for shown in picture.objects]
            found = [region.rle for region in proposer.propose(picture.image)]
            covered += masks.iou(found, wanted).max(axis=0).tolist() if found else [0.0] * len(wanted)
            refined = proposer.refine(picture.image, [shown.box for shown in picture.objects])
            for rle, region in zip(wanted, refined, strict=True):
                boxed.append(0.0 if region is None else float(masks.iou([region.rle], [rle])[0, 0]))
                predicted.append(0.0 if region is None else region.predicted_iou)
            advance()
    return ProposerFigures(
        float(np.mean(covered)), float(np.mean(boxed)), tuple(predicted[:REFERENCE_OBJECTS])
    )


def explain_proposer(
    figures: ProposerFigures, exchanged: ProposerFigures, least: Expectations, reference: Sequence[float]
) -> str:
    """Return the likely reason why a proposer failed.

    Args:
        figures: what it makes of the pictures.
        exchanged: what it makes of the pictures with red and blue exchanged.
        least: what a working one gives.
        reference: the recorded predicted IoUs; may be empty.
    """
    works, works_exchanged = (
        each.covered >= least.covered and each.boxed >= least.boxed for each in (figures, exchanged)
    )
    if works_exchanged and nearer(exchanged.predicted, figures.predicted, reference):
        return "the checkpoint expects the colour channels in the other order (BGR instead of RGB)"
    as_recorded = not reference or rms_difference(figures.predicted, reference) <= TOLERANCE
    if figures.boxed >= least.boxed and as_recorded:
        return (
            "regions are found in boxes but not kept by points: predicted_iou_threshold or "
            "stability_threshold is too high for this model, or points_per_side too small"
        )
    reasons = [
        "the checkpoint is of another model than `config`, untrained or damaged",
        "it was trained with other pixel values or another image_size",
    ]
    if works:
        reasons[0] = "the checkpoint is another one than that of the reference figures"
    return one_of(*reasons, "the device computes wrongly (compare --device cpu)")
