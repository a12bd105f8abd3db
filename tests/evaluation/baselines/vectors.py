"""Vectors for the tests of baselines."""

import numpy as np
from numpy.typing import NDArray

from matir_cli.records import FloatArray


def unit_rows(rows: NDArray[np.floating]) -> FloatArray:
    """The (n, d) rows scaled to unit length, float32."""
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), np.float32)
