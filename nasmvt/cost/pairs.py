"""Pairs of sums, one of each of two sets, that lie within bounds: counted and drawn without forming them.

Two sets of thousands of sums stand for one of millions.

Shapes: N draws, S slots of the space, V bounds, D distinct sums.
"""

import numpy as np

from nasmvt.cost.sums import Sums

_CHUNK = 10_000_000
"""Pairs of sums that are compared at once."""


class BoundedPairs:
    """All pairs of sums of two sets that add up to no more than some bounds, and to no less than others.

    Args:
        left: a set.
        right: another one, over other slots.
        room_V: the largest sum of a pair allowed.
        need_V: the smallest sum of a pair allowed.

    Attributes:
        ways: number of choices within the bounds, as a float (exact up to 2**53).
    """

    def __init__(self, left: Sums, right: Sums, room_V: np.ndarray, need_V: np.ndarray) -> None:
        self._left, self._right = left, right
        self._room_DV = room_V - left.values_DV
        self._need_DV = need_V - left.values_DV
        right_DV = right.values_DV
        above_V = right_DV.max(axis=0) > self._room_DV.min(axis=0)
        below_V = right_DV.min(axis=0) < self._need_DV.max(axis=0)
        self._divides = np.flatnonzero(above_V | below_V)
        self._sorted = len(self._divides) <= 1
        if self._sorted:
            values_D = right_DV[:, self._divides].sum(axis=1)  # zeros where no bound divides: all or nothing
            self._order = np.argsort(values_D, kind="stable")
            self._cumulated = np.concatenate([[0.0], np.cumsum(right.ways_D[self._order])])
            need_D, room_D = (limit_DV[:, self._divides].sum(axis=1) for limit_DV in (self._need_DV, self._room_DV))
            self._first_D = np.searchsorted(values_D[self._order], need_D, side="left")
            self._end_D = np.searchsorted(values_D[self._order], room_D, side="right")
            going_on_D = (self._cumulated[self._end_D] - self._cumulated[self._first_D]).clip(min=0)
        else:
            rows = max(_CHUNK // len(right_DV), 1)
            starts = range(0, len(self._room_DV), rows)
            going_on_D = np.concatenate([self._fits(slice(at, at + rows)) @ right.ways_D for at in starts])
        self._weights_D = left.ways_D * going_on_D
        self.ways = float(self._weights_D.sum())

    def draw(self, rows_N: np.ndarray, drawn_NS: np.ndarray, rng: np.random.Generator) -> None:
        """Write choices drawn uniformly into some rows of option indices (N, S)."""
        left_N = rng.choice(len(self._weights_D), size=len(rows_N), p=self._weights_D / self.ways)
        if self._sorted:
            first_N, end_N = self._first_D[left_N], self._end_D[left_N]
            low_N, high_N = self._cumulated[first_N], self._cumulated[end_N]
            reached_N = low_N + rng.random(len(rows_N)) * (high_N - low_N)  # may be rounded up to the end
            places_N = np.searchsorted(self._cumulated, reached_N, side="right") - 1
            right_N = self._order[places_N.clip(first_N, end_N - 1)]
        else:
            right_N = np.empty(len(rows_N), dtype=np.int64)
            for end in np.unique(left_N):
                same = np.flatnonzero(left_N == end)
                weights_D = self._fits(slice(end, end + 1))[0] * self._right.ways_D
                right_N[same] = rng.choice(len(weights_D), size=len(same), p=weights_D / weights_D.sum())
        self._left.draw(left_N, rows_N, drawn_NS, rng)
        self._right.draw(right_N, rows_N, drawn_NS, rng)

    def _fits(self, rows: slice) -> np.ndarray:
        """Return which sums of the right set go with some of the left one, (N, D)."""
        values_1DV = self._right.values_DV[None, :, self._divides]
        room_N1V, need_N1V = (limit_DV[rows, None, self._divides] for limit_DV in (self._room_DV, self._need_DV))
        fits: np.ndarray = ((need_N1V <= values_1DV) & (values_1DV <= room_N1V)).all(axis=2)
        return fits
