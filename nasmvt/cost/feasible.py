"""The archs whose costs are within bounds: their number, the smallest, and exactly uniform samples.

The cost of an arch is a sum of table entries, and each entry depends on a few slots. So the slots are eliminated one by
one (see `elimination`), which gives, for all options of the few slots that are left (the *root*), the distinct sums of
the rest and in how many ways each comes about; drawing a sum in proportion to its ways, and then one option after the
other, samples uniformly from the archs, without rejection. Only where there are so many distinct sums that costs are
rounded down to a common unit, archs that miss a bound by less than a unit per entry are counted as well; they are
rejected when drawn.

Shapes: N archs, S slots (see `SearchSpace.slots`), V bounds.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from nasmvt.cost.elimination import Elimination, Given, Order, Ranges, joint
from nasmvt.cost.pairs import BoundedPairs
from nasmvt.cost.sums import SumSets, TooManyError
from nasmvt.cost.tables import Slots, Tables
from nasmvt.space import Arch, SearchSpace

NEAR = 0.95
"""The share of a bound from which on costs are near it."""
LARGEST_ROOT = 64
"""Combinations of options of the root; more slots are eliminated until it is as small."""
LIMIT = 4_000_000
"""Candidates for sums that are held in memory; above it costs are rounded."""
_ROUNDS = 1000
_NO_BOUND = 2**62
"""Above any cost."""


class FeasibleSet:
    """The archs of a space whose costs are within bounds.

    Args:
        tables: the costs, one column per bound.
        bounds: the largest cost allowed in each column; None: any.
        floors: the smallest cost allowed in each column; None: any. By default there are none.
    """

    def __init__(self, tables: Tables, bounds: Sequence[int | None], floors: Sequence[int | None] = ()) -> None:
        self.tables = tables
        self.space = tables.space
        self.bounds_V = _limits(bounds, _NO_BOUND)
        self.floors_V = _limits(floors or [None] * len(bounds), -_NO_BOUND)

    @classmethod
    def everything(cls, space: SearchSpace) -> "FeasibleSet":
        """Return the whole space: no bounds."""
        return cls(Tables(space, {(): np.zeros(0, dtype=np.int64)}), ())

    def __contains__(self, arch: object) -> bool:
        return isinstance(arch, Arch) and bool(self._fits(self.tables.of(arch)))

    @cached_property
    def size(self) -> float:
        """Number of feasible archs; exact up to 2**53, beyond it rounded as floats are."""
        return float(sum(case.pairs.ways for case in self._cases))

    @property
    def least_V(self) -> np.ndarray:
        """The smallest cost of any arch of the space, by column, whatever the bounds."""
        least_V: np.ndarray = self._range_2V[0]
        return least_V

    @property
    def most_V(self) -> np.ndarray:
        """The largest cost of any arch of the space, by column, whatever the bounds."""
        most_V: np.ndarray = self._range_2V[1]
        return most_V

    def near_bound(self) -> "FeasibleSet":
        """Return the archs whose first cost is at least `NEAR` of its bound, or of the largest cost where none binds.

        Without any bound all archs.
        """
        floors = self.floors_V.tolist()
        if floors:
            floors[0] = max(floors[0], int(NEAR * min(int(self.bounds_V[0]), int(self.most_V[0]))))
        return FeasibleSet(self.tables, self.bounds_V.tolist(), floors)

    def sample(self, count: int, rng: np.random.Generator) -> list[Arch]:
        """Draw feasible archs, independently and uniformly: every feasible arch has the same chance.

        Raises:
            ValueError: if nothing is feasible.
        """
        return [self.space.decode(indices_S) for indices_S in self.sample_indices(count, rng)]

    def sample_indices(self, count: int, rng: np.random.Generator) -> np.ndarray:
        """Draw as `sample` does, as option indices (N, S) with 0 in inactive slots."""
        if not self.size:
            raise ValueError("no arch is feasible: there is nothing to draw from")
        drawn_NS = np.zeros((count, len(self.space.slots)), dtype=np.int64)
        open_N = np.arange(count)
        for _ in range(_ROUNDS):  # one, unless costs were rounded (see `LIMIT`)
            drawn_NS[open_N] = self._draw(len(open_N), rng)
            open_N = open_N[~self._fits(self.tables(drawn_NS[open_N]))]
            if not len(open_N):
                return drawn_NS
        raise ValueError("no arch was found within the bounds: they are too tight for rounded costs")

    def repair(self, arch: Arch, rng: np.random.Generator) -> Arch:
        """Return a feasible arch near another one: choices go at random, one option at a time, until it fits.

        They go down, or up where the arch is below a bound. Where that leads past what is feasible (options need not be
        in the order of their costs), one is drawn.
        """
        start_S = self.space.encode(arch).clip(min=0)
        costs_V = self.tables(start_S[None])[0]
        up = not (costs_V > self.bounds_V).any() and bool((costs_V < self.floors_V).any())
        left_S = np.array(self.space.slot_sizes) - 1 - start_S if up else start_S
        steps = rng.permutation(np.repeat(np.arange(len(start_S)), left_S))
        path_NS = np.repeat(start_S[None], len(steps) + 1, axis=0)
        for number, slot in enumerate(steps, start=1):
            path_NS[number:, slot] += 1 if up else -1
        fits_N = self._fits(self.tables(path_NS))
        return self.space.decode(path_NS[fits_N.argmax()]) if fits_N.any() else self.sample(1, rng)[0]

    def _fits(self, costs_V: np.ndarray) -> np.ndarray:
        """Return whether costs (..., V) are within the bounds."""
        return np.all((self.floors_V <= costs_V) & (costs_V <= self.bounds_V), axis=-1)

    # -- counting ---------------------------------------------------------------------------------

    def _draw(self, count: int, rng: np.random.Generator) -> np.ndarray:
        weights = np.array([case.pairs.ways for case in self._cases])
        drawn_NS = np.zeros((count, len(self.space.slots)), dtype=np.int64)
        cases_N = rng.choice(len(weights), size=count, p=weights / weights.sum())
        for place in np.unique(cases_N):
            rows_N = np.flatnonzero(cases_N == place)
            for slot, option in self._cases[place].given.items():
                drawn_NS[rows_N, slot] = option
            self._cases[place].pairs.draw(rows_N, drawn_NS, rng)
        return drawn_NS

    @cached_property
    def _order(self) -> Order:
        return Order(self.space, list(self.tables.entries), LARGEST_ROOT)

    @cached_property
    def _range_2V(self) -> np.ndarray:
        """The smallest and the largest cost of any arch of the space, by column, whatever the bounds."""
        return _range(self.space, self._order, self.tables.entries)

    @cached_property
    def _cases(self) -> list["_Case"]:
        """The options of the root with which some archs are feasible; bounds that do not bind are not counted."""
        if (self.least_V > self.bounds_V).any() or (self.most_V < self.floors_V).any():
            return []
        binding = np.flatnonzero((self.most_V > self.bounds_V) | (self.least_V < self.floors_V))
        entries = {slots: values[..., binding] for slots, values in self.tables.entries.items()}
        unit = 1
        while True:
            try:
                return self._counted({slots: values // unit for slots, values in entries.items()}, binding, unit)
            except TooManyError:
                unit *= 4

    def _counted(self, entries: Mapping[Slots, np.ndarray], binding: np.ndarray, unit: int) -> list["_Case"]:
        lost = 0 if unit == 1 else len(entries)  # by rounding each entry of a sum, at most, in units
        bounds_V = np.minimum(self.bounds_V, self.most_V)[binding] // unit
        floors_V = self.floors_V[binding] // unit - lost
        least_V = _range(self.space, self._order, entries)[0]
        sets = SumSets(bounds_V - least_V, LIMIT)
        found = []
        for given, cost_V, messages in Elimination(self.space, self._order, entries, sets).cases():
            left, right = sets.halves(messages)
            if len(left) and len(right):
                found.append(_Case(given, BoundedPairs(left, right, bounds_V - cost_V, floors_V - cost_V)))
        return [case for case in found if case.pairs.ways]


@dataclass(frozen=True)
class _Case:
    """The feasible archs with certain options of the root."""

    given: Given
    pairs: BoundedPairs


def _limits(given: Sequence[int | None], otherwise: int) -> np.ndarray:
    return np.array([otherwise if limit is None else min(limit, _NO_BOUND) for limit in given], dtype=np.int64)


def _range(space: SearchSpace, order: Order, entries: Mapping[Slots, np.ndarray]) -> np.ndarray:
    """Return the smallest and the largest sum of table entries, (2, V) column by column."""
    columns = next(iter(entries.values())).shape[-1]
    ranges = Ranges(columns)
    cases = Elimination(space, order, entries, ranges).cases()
    return joint([ranges.together(messages) + cost_V for _, cost_V, messages in cases])
