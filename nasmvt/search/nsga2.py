"""Evolution towards a front of several objectives (NSGA-II, Deb et al., 2002)."""

import numpy as np

from nasmvt.search.evolution import EvolutionSearcher
from nasmvt.search.pareto import select
from nasmvt.search.strategies import register_searcher
from nasmvt.space import Arch


@register_searcher("nsga2")
class NSGA2Searcher(EvolutionSearcher):
    """Generations of mutants and crossovers of archs that no other is better than, and that lie far apart.

    From one generation to the next, `population` archs survive of the survivors before and the new ones together: by
    non-dominated rank, and within a rank the less crowded ones. A parent is the better one of two survivors drawn. The
    first generation begins with both ends of the space, and the others are drawn anywhere within the bounds.
    """

    several_objectives = True

    @property
    def kept(self) -> int | None:
        """All: who survives depends on how crowded they are."""
        return None

    def _given(self) -> list[Arch]:
        return [*super()._given(), self.space.smallest]

    @property
    def _near_bounds(self) -> float:
        """None: a front has all sizes."""
        return 0.0

    def _parents(self) -> list[Arch]:
        survivors: list[Arch] = []
        for number in range(self._generations):
            pool = survivors + [arch for arch, record in self._records.items() if record.generation == number]
            values_NM = np.array([self._records[arch].values for arch in pool])
            survivors = [pool[place] for place in select(values_NM, self.config.population)]
        return survivors

    def _pick(self, parents: list[Arch], count: int, rng: np.random.Generator) -> list[Arch]:
        drawn = rng.integers(len(parents), size=(count, 2)).min(axis=1)  # the better one comes first
        return [parents[place] for place in drawn]
