"""Archs within the budget, without repetition."""

from collections.abc import Callable, Collection

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

    def random(self, seen: Collection[Arch], rng: np.random.Generator) -> Arch | None:
        """Return an arch drawn uniformly from the feasible ones that are not in `seen`; None if none is left.

        Args:
            seen: feasible archs.
            rng: source of randomness.
        """
        while len(seen) < self._feasible.size:
            arch = self._feasible.sample(1, rng)[0]
            if arch not in seen:
                return arch
        return None
