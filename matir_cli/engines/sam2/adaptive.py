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
        self._rows, self._columns = np.divmod(np.arange(side * side, dtype=np.float32), np.float32(side))
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
        novelty = self._differences(self._asked, covered).min(axis=1)
        novelty[self._asked] = -1
        chosen: list[int] = []
        for _ in range(count):
            point = int(novelty.argmax())
            np.minimum(novelty, self._differences([point], covered)[:, 0], out=novelty)
            novelty[point] = -1
            chosen.append(point)
        self._asked += chosen
        return np.array(chosen, dtype=np.intp)

    def _differences(self, points: list[int], covered: FloatArray) -> FloatArray:
        """Return (side * side, len(points)): how much every point differs from each of `points`."""
        likeness = self._features @ self._features[points].T
        lengths = (self._features**2).sum(axis=1)
        apart = np.sqrt(np.maximum(lengths[:, None] + lengths[points] - 2 * likeness, 0))
        rows = self._rows[:, None] - self._rows[points]
        columns = self._columns[:, None] - self._columns[points]
        steps = np.minimum(np.hypot(rows, columns), _FAR)
        containing = covered.sum(axis=0)
        only_one = containing[:, None] + containing[points] - 2 * (covered.T @ covered[:, points])
        difference: FloatArray = apart + np.float32(_PER_STEP) * steps + np.minimum(only_one, _MOST_MASKS)
        return difference
