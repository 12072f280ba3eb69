"""The archs whose costs are within bounds: their number, the smallest, and exactly uniform samples.

Given the options of a few slots (the widths, the depth: the *cut*), the rest of an arch falls into parts whose costs
simply add up (each block's heads, say). So for every combination of options of the cut, dynamic programming over the
parts gives the distinct sums and in how many ways each comes about; drawing a sum in proportion to its ways, and
then one option after the other, samples uniformly from the archs, without rejection.

Shapes: N archs, S slots (see `SearchSpace.slots`), V bounds, P parts, O options of a part.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations, product
from math import prod

import numpy as np

from nasmvt.cost.sums import BoundedSums
from nasmvt.cost.tables import Slots, Tables, spread
from nasmvt.space import Arch, SearchSpace

LARGEST_PART = 64
"""Combinations of options of a part; larger parts are cut."""
_ROUNDS = 1000


class FeasibleSet:
    """The archs of a space whose costs are within bounds.

    Args:
        tables: the costs, one column per bound.
        bounds: the largest cost allowed in each column.
    """

    def __init__(self, tables: Tables, bounds: Sequence[int]) -> None:
        self.tables = tables
        self.space = tables.space
        self.bounds_V = np.array(bounds, dtype=np.int64)

    @classmethod
    def everything(cls, space: SearchSpace) -> "FeasibleSet":
        """Return the whole space: no bounds."""
        return cls(Tables(space, {(): np.zeros(0, dtype=np.int64)}), ())

    def __contains__(self, arch: object) -> bool:
        return isinstance(arch, Arch) and bool((self.tables.of(arch) <= self.bounds_V).all())

    @cached_property
    def size(self) -> float:
        """Number of feasible archs; exact up to 2**53, beyond it rounded as floats are."""
        return float(sum(self._ways))

    @cached_property
    def least_V(self) -> np.ndarray:
        """The smallest cost of any arch of the space, by column, whatever the bounds."""
        least_V: np.ndarray = np.min([case.least_V for case in self._cases], axis=0)
        return least_V

    @cached_property
    def most_V(self) -> np.ndarray:
        """The largest cost of any arch of the space, by column, whatever the bounds."""
        most_V: np.ndarray = np.max([case.most_V for case in self._cases], axis=0)
        return most_V

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
        for _ in range(_ROUNDS):  # one, unless costs were rounded (see `BoundedSums`)
            drawn_NS[open_N] = self._draw(len(open_N), rng)
            open_N = open_N[(self.tables(drawn_NS[open_N]) > self.bounds_V).any(axis=1)]
            if not len(open_N):
                return drawn_NS
        raise ValueError("no arch was found within the bounds: they are too tight for rounded costs")

    def repair(self, arch: Arch, rng: np.random.Generator) -> Arch:
        """Return a feasible arch near another one: choices go down at random, one option at a time, until it fits.

        Where not even the lowest options fit (options need not be in the order of their costs), one is drawn.
        """
        start_S = self.space.encode(arch).clip(min=0)
        steps = rng.permutation(np.repeat(np.arange(len(start_S)), start_S))
        lowered_NS = np.repeat(start_S[None], len(steps) + 1, axis=0)
        for number, slot in enumerate(steps, start=1):
            lowered_NS[number:, slot] -= 1
        fits_N = (self.tables(lowered_NS) <= self.bounds_V).all(axis=1)
        return self.space.decode(lowered_NS[fits_N.argmax()]) if fits_N.any() else self.sample(1, rng)[0]

    # -- counting ---------------------------------------------------------------------------------

    def _draw(self, count: int, rng: np.random.Generator) -> np.ndarray:
        weights = np.array(self._ways)
        drawn_NS = np.zeros((count, len(self.space.slots)), dtype=np.int64)
        cases = rng.choice(len(weights), size=count, p=weights / weights.sum())
        for place in np.unique(cases):
            rows = np.flatnonzero(cases == place)
            case, sums = self._cases[place], self._sums[place]
            for slot, index in case.given.items():
                drawn_NS[rows, slot] = index
            if sums is None:
                chosen = [rng.integers(len(part.costs_OV), size=len(rows)) for part in case.parts]
            else:
                chosen = list(sums.sample(len(rows), rng).T)
            for part, options_N in zip(case.parts, chosen, strict=True):
                drawn_NS[np.ix_(rows, part.slots)] = part.indices_OS[options_N]
        return drawn_NS

    @cached_property
    def _ways(self) -> list[float]:
        """Feasible archs of every case."""
        every = [float(case.size if (case.most_V <= self.bounds_V).all() else 0) for case in self._cases]
        return [every_one if sums is None else sums.ways for every_one, sums in zip(every, self._sums, strict=True)]

    @cached_property
    def _sums(self) -> list[BoundedSums | None]:
        """The sums of every case that the bounds divide; None where all of it is feasible, or nothing."""
        return [
            BoundedSums([part.costs_OV for part in case.parts], self.bounds_V - case.base_V)
            if (case.least_V <= self.bounds_V).all() and (case.most_V > self.bounds_V).any()
            else None
            for case in self._cases
        ]

    @cached_property
    def _cases(self) -> list["_Case"]:
        cut, groups = _cut(self.tables)
        given = (dict(zip(cut, options, strict=True)) for options in product(*map(range, _sizes(self.space, cut))))
        return [_Case.of(self.tables, case, groups) for case in given if self.space.is_canonical(case)]


@dataclass(frozen=True, kw_only=True)
class _Part:
    """Slots whose costs depend on the cut and on each other alone."""

    slots: Slots
    indices_OS: np.ndarray
    """The combinations of their options."""
    costs_OV: np.ndarray
    """The costs of each of them."""


@dataclass(frozen=True, kw_only=True)
class _Case:
    """The archs with certain options in the slots of the cut."""

    given: Mapping[int, int]
    base_V: np.ndarray
    """The costs that they share."""
    parts: tuple[_Part, ...]

    @classmethod
    def of(cls, tables: Tables, given: Mapping[int, int], groups: Sequence[Slots]) -> "_Case":
        space = tables.space
        fixed = {slot: 0 for slot in range(len(space.slots)) if not space.is_active(slot, given)} | dict(given)
        active = [tuple(slot for slot in group if slot not in fixed) for group in groups]
        active = [slots for slots in active if slots]
        home = {slot: place for place, slots in enumerate(active) for slot in slots}
        base_V = np.zeros(tables.columns, dtype=np.int64)
        costs = [np.zeros((*_sizes(space, slots), tables.columns), dtype=np.int64) for slots in active]
        for slots, values in tables.entries.items():
            part = values[tuple(fixed.get(slot, slice(None)) for slot in slots)]
            free = tuple(slot for slot in slots if slot not in fixed)
            if free:
                costs[home[free[0]]] += spread(free, part, active[home[free[0]]])
            else:
                base_V += part
        parts = tuple(
            _Part(
                slots=slots,
                indices_OS=np.array(list(product(*map(range, _sizes(space, slots))))),
                costs_OV=values.reshape(prod(_sizes(space, slots)), tables.columns),
            )
            for slots, values in zip(active, costs, strict=True)
        )
        return cls(given=given, base_V=base_V, parts=parts)

    @cached_property
    def least_V(self) -> np.ndarray:
        return self.base_V + sum(part.costs_OV.min(axis=0) for part in self.parts)

    @cached_property
    def most_V(self) -> np.ndarray:
        return self.base_V + sum(part.costs_OV.max(axis=0) for part in self.parts)

    @property
    def size(self) -> int:
        return prod(len(part.costs_OV) for part in self.parts)


def _cut(tables: Tables) -> tuple[Slots, list[Slots]]:
    """Return the slots to go through one by one, and the small groups into which the others then fall.

    The cut holds the slots that count blocks, and as many of those that most tables have in common as it takes.
    """
    space = tables.space
    neighbours: dict[int, set[int]] = {slot: set() for slot in range(len(space.slots))}
    for slots in tables.entries:
        for first, second in combinations(slots, 2):
            neighbours[first].add(second)
            neighbours[second].add(first)
    counts = {choice.per for choice in space.choices.values() if choice.per is not None}
    cut = {slot for slot, (name, _) in enumerate(space.slots) if name in counts}
    while True:
        groups = _groups(neighbours, cut)
        large = [
            slot for group in groups if prod(_sizes(space, group)) > LARGEST_PART and len(group) > 1 for slot in group
        ]
        if not large:
            return tuple(sorted(cut)), groups
        cut.add(max(large, key=lambda slot: (len(neighbours[slot] - cut), -slot)))


def _groups(neighbours: Mapping[int, set[int]], cut: set[int]) -> list[Slots]:
    """Return the connected groups of slots outside of the cut, in the order of their first slots."""
    groups, seen = [], set(cut)
    for start in neighbours:
        if start in seen:
            continue
        group, reached = [], [start]
        seen.add(start)
        while reached:
            slot = reached.pop()
            group.append(slot)
            new = neighbours[slot] - seen
            seen |= new
            reached += sorted(new)
        groups.append(tuple(sorted(group)))
    return groups


def _sizes(space: SearchSpace, slots: Slots) -> list[int]:
    return [space.slot_sizes[slot] for slot in slots]
