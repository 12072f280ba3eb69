"""Distinct sums of independent parts under bounds, the ways in which each comes about, and uniform draws.

Shapes: N draws, V bounds, P parts, O options of a part, D distinct sums.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

LIMIT = 4_000_000
"""Sums that one step may form; above it costs are rounded (see `BoundedSums`)."""
_CHUNK = 10_000_000
"""Pairs of sums that are compared at once."""


class BoundedSums:
    """All ways to choose one option of every part so that the costs add up to no more than the bounds.

    The parts are added up from both ends towards the middle, the end with fewer sums first, since sums of like
    parts coincide: two chains of thousands of sums where a single one would have millions.

    Args:
        parts: the costs of the options of every part, each (O, V), int64.
        bounds_V: the largest sum allowed.

    Attributes:
        ways: number of choices within the bounds, as a float (exact up to 2**53). Where there are more distinct
            sums than `LIMIT`, costs are rounded down to a common unit, and choices that pass a bound by less than a
            unit per part are counted and drawn as well.
    """

    def __init__(self, parts: Sequence[np.ndarray], bounds_V: np.ndarray) -> None:
        unit = 1
        while True:
            try:
                self._left, self._right = _two_chains([costs // unit for costs in parts], bounds_V // unit)
                break
            except _TooManyError:
                unit *= 4
        self._room_DV = bounds_V // unit - self._left.sums_DV
        self._bind()

    def _bind(self) -> None:
        """Count, for every sum of the left chain, the ways to go on in the right one."""
        right_DV = self._right.sums_DV
        divides: Any = right_DV.max(axis=0) > self._room_DV.min(axis=0) if len(right_DV) and len(self._room_DV) else []
        self._divides = np.flatnonzero(divides)
        self._sorted = len(self._divides) <= 1
        if self._sorted:
            column = self._divides[0] if len(self._divides) else 0
            self._order = np.argsort(right_DV[:, column], kind="stable")
            self._cumulated = np.concatenate([[0.0], np.cumsum(self._right.ways_D[self._order])])
            self._reach = np.searchsorted(right_DV[self._order, column], self._room_DV[:, column], side="right")
            going_on_D = self._cumulated[self._reach]
        else:
            rows = max(_CHUNK // max(len(right_DV), 1), 1)
            starts = range(0, len(self._room_DV), rows)
            going_on_D = np.concatenate(
                [self._fits(self._room_DV[at : at + rows]) @ self._right.ways_D for at in starts]
            )
        self._weights_D = self._left.ways_D * going_on_D
        self.ways = float(self._weights_D.sum())

    def _fits(self, room_NV: np.ndarray) -> np.ndarray:
        """Return which sums of the right chain fit into some rooms, (N, D)."""
        columns = self._divides
        fits: np.ndarray = np.all(self._right.sums_DV[None, :, columns] <= room_NV[:, None, columns], axis=2)
        return fits

    def sample(self, count: int, rng: np.random.Generator) -> np.ndarray:
        """Draw uniformly among the ways: the options (N, P) of the parts."""
        left_N = rng.choice(len(self._weights_D), size=count, p=self._weights_D / self.ways)
        if self._sorted:
            drawn_N = rng.random(count) * self._cumulated[self._reach[left_N]]
            places_N = np.searchsorted(self._cumulated, drawn_N, side="right") - 1
            right_N = self._order[places_N]
        else:
            right_N = np.empty(count, dtype=np.int64)
            for end in np.unique(left_N):
                rows = np.flatnonzero(left_N == end)
                weights_D = self._fits(self._room_DV[end : end + 1])[0] * self._right.ways_D
                right_N[rows] = rng.choice(len(weights_D), size=len(rows), p=weights_D / weights_D.sum())
        left_NP, right_NP = self._left.sample(left_N, rng), self._right.sample(right_N, rng)
        return np.concatenate([left_NP, right_NP[:, ::-1]], axis=1)


class _Chain:
    """Parts added one after the other: the distinct sums, and from which sum and option each came."""

    def __init__(self, bounds: int) -> None:
        self.sums_DV = np.zeros((1, bounds), dtype=np.int64)
        self.ways_D: np.ndarray = np.ones(1)
        self._least_V = np.zeros(bounds, dtype=np.int64)
        self._steps: list[tuple[np.ndarray, np.ndarray]] = []

    def extend(self, costs_OV: np.ndarray, slack_V: np.ndarray) -> None:
        """Add a part; sums that pass the chain's least sum by more than the slack are dropped."""
        self._least_V = self._least_V + costs_OV.min(axis=0)
        bounds_V = self._least_V + slack_V
        count, options = len(self.sums_DV), len(costs_OV)
        if count > 1 and count * options > LIMIT:  # a single sum can't be rounded away
            raise _TooManyError
        sums = (self.sums_DV[:, None] + costs_OV[None]).reshape(count * options, len(bounds_V))
        kept = np.flatnonzero((sums <= bounds_V).all(axis=1))
        if len(bounds_V) == 1:
            numbers, inverse = np.unique(sums[kept, 0], return_inverse=True)
            values = numbers[:, None]
        else:
            values, inverse = np.unique(sums[kept], axis=0, return_inverse=True)
        before, option = kept // options, kept % options
        inverse = inverse.reshape(-1)
        origin_DO = np.full((len(values), options), -1, dtype=np.int64)
        origin_DO[inverse, option] = before
        self._steps.append((origin_DO, self.ways_D))
        self.ways_D = np.bincount(inverse, weights=self.ways_D[before], minlength=len(values))
        self.sums_DV = values

    def sample(self, ends_N: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Draw, for given final sums, the options (N, P) that lead there, each way with the same chance."""
        chosen = []
        for origin_DO, ways_D in reversed(self._steps):
            before_NO = origin_DO[ends_N]
            cumulated_NO = np.cumsum(np.where(before_NO >= 0, ways_D[before_NO], 0.0), axis=1)
            drawn_N1 = rng.random((len(ends_N), 1)) * cumulated_NO[:, -1:]
            option_N = (cumulated_NO <= drawn_N1).sum(axis=1)
            chosen.append(option_N)
            ends_N = before_NO[np.arange(len(ends_N)), option_N]
        return np.stack(chosen[::-1], axis=1) if chosen else np.zeros((len(ends_N), 0), dtype=np.int64)


class _TooManyError(Exception):
    """There are more distinct sums than memory should hold."""


def _two_chains(parts: Sequence[np.ndarray], bounds_V: np.ndarray) -> tuple[_Chain, _Chain]:
    """Add up the parts from both ends, the shorter chain first, until all of them are in one of the two."""
    slack_V = bounds_V - sum((costs.min(axis=0) for costs in parts), np.zeros_like(bounds_V))
    left, right = _Chain(len(bounds_V)), _Chain(len(bounds_V))
    first, last = 0, len(parts) - 1
    while first <= last:
        if len(left.sums_DV) <= len(right.sums_DV):
            left.extend(parts[first], slack_V)
            first += 1
        else:
            right.extend(parts[last], slack_V)
            last -= 1
    return left, right
