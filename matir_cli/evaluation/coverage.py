"""Coverage: share of annotated objects that the proposer found.

An object without a matching region cannot be found by any later step.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from matir_cli import masks
from matir_cli.evaluation.datasets.dataset import Dataset
from matir_cli.evaluation.methods import EvaluationSetup
from matir_cli.progress import ProgressObserver
from matir_cli.records import Rle

IOU_LEVELS = (0.5, 0.75)
"""Least mask IoU at which a region covers an object."""


@dataclass(frozen=True, slots=True)
class Coverage:
    """Coverage of annotated objects by stored regions."""

    objects: int
    """Number of annotated objects."""
    covered: tuple[int, ...]
    """Number of objects covered, for each of `IOU_LEVELS`."""


def annotated_objects(dataset: Dataset) -> dict[int, list[Rle]]:
    """Image id to the distinct objects that are an instance of any query."""
    by_image: dict[int, dict[Rle, None]] = {}
    for images in dataset.truth.values():
        for image, rles in images.items():
            by_image.setdefault(image, {}).update(dict.fromkeys(rles))
    return {image: list(rles) for image, rles in by_image.items()}


def measure_coverage(
    setup: EvaluationSetup, objects: Mapping[int, Sequence[Rle]], progress: ProgressObserver
) -> Coverage:
    """Compare annotated objects with the stored regions of their images.

    The whole-photo region does not count. Objects in images that could not be indexed are not covered.

    Args:
        objects: by image id, at the image's size.
    """
    count = 0
    covered = np.zeros(len(IOU_LEVELS), np.int64)
    with progress("coverage", len(objects), "photo") as advance:
        for image, rles in objects.items():
            count += len(rles)
            if (photo_id := setup.image_index.photos.get(image)) is not None:
                best = _best_ious(setup, image, photo_id, rles)
                covered += (best >= np.array(IOU_LEVELS)[:, np.newaxis]).sum(axis=1)
            advance()
    return Coverage(count, tuple(covered.tolist()))


def _best_ious(setup: EvaluationSetup, image: int, photo_id: int, rles: Sequence[Rle]) -> NDArray[np.float64]:
    """(len(rles),) IoU of each object with the region that fits it best, at working size."""
    framed = [
        setup.image_index.to_annotation_frame(stored.region.rle, image)
        for stored in setup.gallery.regions(photo_id)
        if stored.ordinal > 0
    ]
    regions = [rle for rle in framed if rle is not None]
    if not regions:
        return np.zeros(len(rles))
    height, width = regions[0].height, regions[0].width
    scaled = [masks.scale(rle, height, width) for rle in rles]
    best: NDArray[np.float64] = masks.iou(scaled, regions).max(axis=1)
    return best
