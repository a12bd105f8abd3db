"""Comparison of photos by their pixels: are they one picture, saved, scaled, cropped or toned anew?

Copies of a picture differ by what a file format loses, by a cut at the edges and by a tone curve. Two
exposures of one scene differ in places: someone has moved. Both are compared as small grey pictures. The crop
is found by trying how much each side may have lost; the tone curve is fitted as a cubic polynomial; and what
remains must be small everywhere, not only on average.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from matir_cli.records import ImageArray

SIDE = 96
"""Pixels: width and height of the small grey picture, whatever the photo's shape."""

CELLS = 48
"""Width and height at which two pictures are compared."""

MOST_CROPPED = 0.08
"""Fraction of the width or height that a crop may have taken at each side."""

CROP_STEP = 0.01
"""Step in which crops are tried."""

LEAST_CONTRAST = 3.0
"""Grey levels, standard deviation: flatter pictures have nothing to be compared by."""

LEAST_CORRELATION = 0.6
"""Correlation of uncropped pictures below which they are not looked at any further."""

MOST_RESIDUAL = 0.12
"""Root mean square of what remains, in standard deviations of the picture, at which two are one still."""

MOST_LOCAL_RESIDUAL = 0.5
"""The same at the worst place, over 4 x 4 cells."""

GreyPicture = NDArray[np.float32]
"""A small grey picture: (`SIDE`, `SIDE`) float32, 0..255."""


def grey_picture(image: ImageArray) -> GreyPicture:
    """Scale a photo, (height, width, 3) uint8 RGB, to a small grey picture."""
    # Imported here: most searches and listings compare no pixels.
    from PIL import Image

    small = Image.fromarray(image).convert("L").resize((SIDE, SIDE), Image.Resampling.BOX)
    return np.asarray(small, np.float32)


@dataclass(frozen=True, slots=True)
class Difference:
    """What remains of the difference of two pictures after crop and tone curve, in standard deviations."""

    everywhere: float
    """Root mean square."""
    at_worst: float
    """Root mean square over the 4 x 4 cells where it is largest."""

    @property
    def is_small(self) -> bool:
        """True if both pictures are the same."""
        return self.everywhere <= MOST_RESIDUAL and self.at_worst <= MOST_LOCAL_RESIDUAL


def compare(first: GreyPicture, second: GreyPicture) -> Difference | None:
    """Compare two pictures, of which one may be a crop of the other; None if they have nothing in common."""
    if min(first.std(), second.std()) < LEAST_CONTRAST:
        return None
    if _correlation(_shrink(first), _shrink(second)) < LEAST_CORRELATION:
        return None
    uncropped = _crops()[0]
    found = _difference(*(uncropped @ picture @ uncropped.T for picture in (first, second)))
    if found.is_small:
        return found
    pairs = (_aligned(first, second), _aligned(second, first))
    return min((found, *(_difference(*pair) for pair in pairs)), key=lambda each: each.everywhere)


def same_picture(first: GreyPicture, second: GreyPicture) -> bool:
    """Return True if two photos are one picture, saved, scaled, cropped or toned anew."""
    found = compare(first, second)
    return found is not None and found.is_small


def _shrink(picture: GreyPicture) -> NDArray[np.float32]:
    return np.asarray(picture.reshape(16, SIDE // 16, 16, SIDE // 16).mean(axis=(1, 3)))


def _correlation(first: NDArray[np.float32], second: NDArray[np.float32]) -> float:
    return float(np.corrcoef(first.ravel(), second.ravel())[0, 1])


@cache
def _crops() -> NDArray[np.float32]:
    """Return (n, `CELLS`, `SIDE`): weights that crop a line at both ends and scale the rest.

    The first is no crop at all.
    """
    cuts = np.arange(0, MOST_CROPPED + CROP_STEP / 2, CROP_STEP)
    starts, ends = (grid.ravel() for grid in np.meshgrid(cuts, 1 - cuts, indexing="ij"))
    edges = starts[:, np.newaxis] + (ends - starts)[:, np.newaxis] * np.linspace(0, 1, CELLS + 1)
    low, high = edges[:, :-1, np.newaxis] * SIDE, edges[:, 1:, np.newaxis] * SIDE
    pixels = np.arange(SIDE)
    overlap = np.clip(np.minimum(high, pixels + 1) - np.maximum(low, pixels), 0, None)
    return np.asarray(overlap / overlap.sum(axis=2, keepdims=True), np.float32)


def _aligned(whole: GreyPicture, part: GreyPicture) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Crop `whole` so that it fits `part` best; return both at `CELLS`."""
    crops = _crops()
    uncropped = crops[0]
    wanted = uncropped @ part @ uncropped.T
    centred = wanted - wanted.mean()
    rows = columns = uncropped
    for _ in range(2):
        rows = crops[_best(crops @ (whole @ columns.T), centred)]
        columns = crops[_best(np.swapaxes(crops @ (rows @ whole).T, 1, 2), centred)]
    return rows @ whole @ columns.T, wanted


def _best(tried: NDArray[np.float32], centred: NDArray[np.float32]) -> int:
    """Return which of (n, CELLS, CELLS) pictures correlates best with one whose mean is 0."""
    products = np.einsum("nij,ij->n", tried, centred)
    return int(np.argmax(products / (tried.std(axis=(1, 2)) + 1e-6)))


def _difference(picture: NDArray[np.float32], wanted: NDArray[np.float32]) -> Difference:
    """Fit a tone curve to `picture`, and return what then remains."""
    levels = (picture.ravel() - picture.mean()) / (picture.std() + 1e-6)
    powers = np.stack([np.ones_like(levels), levels, levels**2, levels**3], axis=1).astype(np.float64)
    target = wanted.ravel().astype(np.float64)
    curve, *_ = np.linalg.lstsq(powers, target, rcond=None)
    squares = (((powers @ curve - target) / (target.std() + 1e-6)) ** 2).reshape(CELLS, CELLS)
    sums = np.pad(squares.cumsum(0).cumsum(1), ((1, 0), (1, 0)))
    windows = (sums[4:, 4:] - sums[:-4, 4:] - sums[4:, :-4] + sums[:-4, :-4]) / 16
    return Difference(float(np.sqrt(squares.mean())), float(np.sqrt(max(windows.max(), 0.0))))
