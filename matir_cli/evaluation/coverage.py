"""How many of the annotated objects the proposer found at all: what it missed, no later step can find."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from matir_cli import masks
from matir_cli.evaluation import metrics
from matir_cli.evaluation.datasets.dataset import Dataset
from matir_cli.evaluation.methods import EvaluationSetup
from matir_cli.progress import ProgressObserver
from matir_cli.records import Rle

LEVELS = (0.5, 0.75)
"""The least IoU of mask and object."""


@dataclass(frozen=True, slots=True)
class Coverage:
    """Of annotated objects by stored regions."""

    objects: int
    covered: tuple[int, ...]
    """How many of them have a region of each of `LEVELS`."""


def annotated_objects(dataset: Dataset) -> dict[int, list[Rle]]:
    """Image id to the objects that any query asks for, each once."""
    found: dict[int, dict[Rle, None]] = {}
    for images in dataset.truth.values():
        for image, rles in images.items():
            found.setdefault(image, {}).update(dict.fromkeys(rles))
    return {image: list(rles) for image, rles in found.items()}


def measure_coverage(
    bench: EvaluationSetup, objects: Mapping[int, Sequence[Rle]], progress: ProgressObserver
) -> Coverage:
    """Hold the objects, by image id, against the regions of the gallery; the whole photo is none.

    An object in an image that could not be indexed is not covered.
    """
    count = 0
    covered = np.zeros(len(LEVELS), np.int64)
    with progress("coverage", len(objects), "photo") as advance:
        for image, rles in objects.items():
            count += len(rles)
            if (photo_id := bench.indexed.photos.get(image)) is not None:
                best = _best_ious(bench, image, photo_id, rles)
                covered += (best >= np.array(LEVELS)[:, np.newaxis]).sum(axis=1)
            advance()
    return Coverage(count, tuple(covered.tolist()))


def _best_ious(bench: EvaluationSetup, image: int, photo_id: int, rles: Sequence[Rle]) -> NDArray[np.float64]:
    """(len(rles),) the IoU of each object with the region that fits it best, at working size."""
    regions = [
        bench.indexed.framed(stored.region.rle, image)
        for stored in bench.gallery.regions(photo_id)
        if stored.ordinal > 0
    ]
    found = [rle for rle in regions if rle is not None]
    if not found:
        return np.zeros(len(rles))
    height, width = found[0].height, found[0].width
    same = [
        rle if (rle.height, rle.width) == (height, width) else metrics.scaled(rle, height, width)
        for rle in rles
    ]
    best: NDArray[np.float64] = masks.iou(same, found).max(axis=1)
    return best
