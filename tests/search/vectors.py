"""Made-up vectors: of unit length, and like CLIP's in a narrow cone with a few far larger dimensions."""

import numpy as np
from numpy.typing import NDArray

from matir_cli.records import FloatArray


def like_clip(count: int, dimensions: int, seed: int = 0) -> FloatArray:
    """(count, d) unit vectors in a narrow cone, a few dimensions of which tower over the rest."""
    rng = np.random.default_rng(seed)
    cone = np.random.default_rng(0).standard_normal(dimensions)
    cone[[1, dimensions // 2]] = -30, 40
    rows = cone / np.linalg.norm(cone) + 0.03 * rng.standard_normal((count, dimensions))
    return unit(rows)


def unit(rows: NDArray[np.floating]) -> FloatArray:
    """(..., d) float32: the rows at unit length."""
    return np.asarray(rows / np.linalg.norm(rows, axis=-1, keepdims=True), np.float32)
