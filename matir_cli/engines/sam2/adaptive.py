"""Choice of the points to ask SAM 2 about, round by round, from what earlier points have shown.

Neighbouring points of a dense grid mostly give the same masks. So a coarse grid is asked first, and then
only the points that promise something new: those that the masks found so far tell from all points asked,
and those where the encoded image resembles none of these. Nothing is drawn at random.
"""

from math import ceil

import numpy as np
from numpy.typing import NDArray

from matir_cli.records import FloatArray, MaskArray

SHARE = 1 / 3
"""Share of the grid's points that are asked at most."""

ROUNDS = 4
"""Rounds after the coarse grid at most."""

_MOST_MASKS = 3.0
"""Masks that contain only one of two points and add to their difference."""

_PER_STEP, _FAR = 0.1, 4.0
"""Novelty of each step of the grid between two points, and the steps beyond which it grows no more."""


class PointChooser:
    """Chooses among the points of a square grid over one photo; they are numbered row by row.

    The novelty of a point is its least difference to a point asked before. The difference of two points is
    the Euclidean distance of their features (unit vectors), plus up to 0.4 for their distance on the grid,
    plus the number of masks that contain only one of them, three at most.
    """

    def __init__(self, side: int, features: FloatArray) -> None:
        """Start with no point asked.

        Args:
            side: points along each side of the grid.
            features: (side * side, c) float32, the encoded image at each point.
        """
        centred = features - features.mean(axis=0)
        self._features = centred / np.maximum(np.linalg.norm(centred, axis=1, keepdims=True), 1e-9)
        self._side = side
        self._rows, self._columns = np.divmod(np.arange(side * side), side)
        self._asked: list[int] = []
        self._most = max(1, int(SHARE * side * side))
        self._per_round = 1

    @property
    def asked(self) -> int:
        """Number of points chosen so far."""
        return len(self._asked)

    def start(self) -> NDArray[np.intp]:
        """Return the points of the coarse grid: every second to fourth one of each row and column."""
        step = min(4, max(2, self._side // 4))
        along = np.arange(min(step // 2, self._side - 1), self._side, step)
        points = (along[:, None] * self._side + along).ravel()
        self._asked = points.tolist()
        self._per_round = max(1, ceil((self._most - len(points)) / ROUNDS))
        return points

    def next_round(self, masks: MaskArray) -> NDArray[np.intp]:
        """Return the most novel points, as many as a round has; none once `SHARE` of the grid is asked.

        Args:
            masks: (m, side * side) bool, True where one of the masks found so far contains a point.
        """
        count = min(self._per_round, self._most - len(self._asked))
        covered = masks.astype(np.float32)
        novelty = np.full(self._side**2, np.inf)
        for point in self._asked:
            self._lower(novelty, point, covered)
        chosen: list[int] = []
        for _ in range(count):
            chosen.append(int(novelty.argmax()))
            self._lower(novelty, chosen[-1], covered)
        self._asked += chosen
        return np.array(chosen, dtype=np.intp)

    def _lower(self, novelty: NDArray[np.float64], point: int, covered: FloatArray) -> None:
        """Lower the novelty of all points to their difference to `point`, now asked; its own to -1."""
        steps = np.hypot(self._rows - self._rows[point], self._columns - self._columns[point])
        difference = np.linalg.norm(self._features - self._features[point], axis=1)
        difference += _PER_STEP * np.minimum(steps, _FAR)
        only_one = np.abs(covered - covered[:, [point]]).sum(axis=0)
        difference += np.minimum(only_one, _MOST_MASKS)
        np.minimum(novelty, difference, out=novelty)
        novelty[point] = -1
