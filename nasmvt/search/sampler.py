"""Archs within the budget, without repetition."""

from collections.abc import Callable, Collection
from functools import cached_property

import numpy as np

from nasmvt.cost.feasible import FeasibleSet
from nasmvt.space import Arch

TRIES = 100
"""Consecutive mutants or children without a new arch after which a search gives up on them."""


class FreshSampler:
    """Draws feasible archs that were not seen yet."""

    def __init__(self, feasible: FeasibleSet) -> None:
        self._feasible = feasible

    def allows(self, arch: Arch) -> bool:
        """Return whether an arch is feasible."""
        return arch in self._feasible

    def fresh(self, draw: Callable[[], Arch], seen: Collection[Arch], rng: np.random.Generator) -> Arch | None:
        """Return an arch from `draw`, repaired to be feasible, that is not in `seen`; None after too many attempts."""
        for _ in range(TRIES):
            arch = self._feasible.repair(draw(), rng)
            if arch not in seen:
                return arch
        return None

    def near_bounds(self, seen: Collection[Arch], rng: np.random.Generator) -> Arch | None:
        """Return an arch drawn uniformly from those near the bound that are not in `seen`; None if none is left."""
        return _drawn(self._near, seen, sum(arch in self._near for arch in seen), rng)

    def random(self, seen: Collection[Arch], rng: np.random.Generator) -> Arch | None:
        """Return an arch drawn uniformly from the feasible ones that are not in `seen`; None if none is left.

        Args:
            seen: feasible archs.
            rng: source of randomness.
        """
        return _drawn(self._feasible, seen, len(seen), rng)

    @cached_property
    def _near(self) -> FeasibleSet:
        return self._feasible.near_bound()


def _drawn(archs: FeasibleSet, seen: Collection[Arch], among: int, rng: np.random.Generator) -> Arch | None:
    """Draw one of the archs that are not in `seen` uniformly, `among` of which are; None if none is left."""
    while among < archs.size:
        arch = archs.sample(1, rng)[0]
        if arch not in seen:
            return arch
    return None
