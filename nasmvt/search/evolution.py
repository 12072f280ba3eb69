"""Evolution as in AutoFormer (Chen et al., ICCV 2021, section 3.4), which ViT-MVT's search follows."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from nasmvt.cost.feasible import FeasibleSet
from nasmvt.search.config import SearchConfig
from nasmvt.search.pareto import select
from nasmvt.search.searcher import Record, Searcher
from nasmvt.search.strategies import register_searcher
from nasmvt.space import Arch


@register_searcher("evolution")
class EvolutionSearcher(Searcher):
    """Generations of mutants and crossovers of the best archs so far.

    Generation 0 begins with the named archs of the space and its largest, as far as they are feasible; a part of the
    others is drawn close to the bound (`near_bounds`), the rest anywhere within it. Every later one makes `mutants` and
    `crossovers` from the best `parents` of all archs so far, and adds random archs if these are fewer than
    `population`. It is planned as a whole once the previous one has all its scores, so the order of the scores has no
    influence. Mutants and children beyond the budget are reduced until they fit.
    """

    several_objectives = False

    def __init__(self, feasible: FeasibleSet, config: SearchConfig, seed: int) -> None:
        super().__init__(feasible, config, seed)
        self._known: dict[Arch, Record] = {}

    @property
    def _all_planned(self) -> bool:
        return self._generations == self.config.generations

    @property
    def kept(self) -> int | None:
        """The parents."""
        return self.config.parents

    @property
    def _generations(self) -> int:
        """Number of generations planned."""
        return 1 + next(reversed(self._records.values())).generation if self._records else 0

    def _plan(self) -> tuple[int, list[Arch]]:
        number = self._generations
        if self._open or self._exhausted or self._all_planned:
            return number, []
        rng = np.random.default_rng((self.seed, number))
        made = self._children(rng) if number else self._ancestors(rng)
        while len(made) < (self.config.per_generation if number else self.config.population):
            arch = self._sampler.random(self._records.keys() | made, rng)
            if arch is None:
                self._exhausted = True
                break
            made.append(arch)
        return number, made

    def know(self, found: Mapping[Arch, Sequence[float]], terms: Mapping[Arch, Sequence[float]]) -> None:
        """Take in what another search found: the first generation begins with the best of it."""
        self._known = {arch: Record(-1, tuple(values), tuple(terms[arch])) for arch, values in found.items()}

    def _ancestors(self, rng: np.random.Generator) -> list[Arch]:
        """Return what the first generation begins with, as many as it has at most.

        What another search found, if there is something; else those that any search has to beat.
        """
        population = self.config.population
        feasible = [arch for arch in self._known if self._sampler.allows(arch)]
        if feasible:
            values_NM = np.array([self._known[arch].values for arch in feasible])
            return [feasible[place] for place in select(values_NM, population)]
        made = [arch for arch in dict.fromkeys(self._given()) if self._sampler.allows(arch)][:population]
        for _ in range(round(self._near_bounds * (population - len(made)))):
            arch = self._sampler.near_bounds(made, rng)
            if arch is None:
                break
            made.append(arch)
        return made

    def _given(self) -> list[Arch]:
        """Return archs that need not be drawn, as every space has them."""
        return [*map(self.space.named, self.space.archs), self.space.largest]

    @property
    def _near_bounds(self) -> float:
        """The part of the first generation that is drawn near the bound."""
        return self.config.near_bounds

    def _children(self, rng: np.random.Generator, times: int = 1) -> list[Arch]:
        """Return the next generation's mutants, then its crossovers; `times` as many as the settings say."""
        made: list[Arch] = []
        parents = self._parents()
        self._breed(made, times * self.config.mutants, lambda: self._mutant(parents, rng), rng)
        self._breed(made, times * self.config.crossovers, lambda: self._crossover(parents, rng), rng)
        return made

    def _breed(self, made: list[Arch], count: int, draw: Callable[[], Arch], rng: np.random.Generator) -> None:
        """Add `count` new archs to `made`, or as many as there are."""
        for _ in range(count):
            arch = self._sampler.fresh(draw, self._records.keys() | made, rng)
            if arch is None:
                return
            made.append(arch)

    def _parents(self) -> list[Arch]:
        """Return what the next generation may descend from, best first."""
        return [arch for arch, _ in self.best(self.config.parents)]

    def _pick(self, parents: list[Arch], count: int, rng: np.random.Generator) -> list[Arch]:
        """Draw parents, different ones if there are as many."""
        places = rng.choice(len(parents), size=count, replace=count == 1 or len(parents) < count)
        return [parents[place] for place in places]

    def _mutant(self, parents: list[Arch], rng: np.random.Generator) -> Arch:
        (parent,) = self._pick(parents, 1, rng)
        config = self.config
        return self.space.mutate(parent, rng, config.mutation_probability, config.global_mutation_probability)

    def _crossover(self, parents: list[Arch], rng: np.random.Generator) -> Arch:
        first, second = self._pick(parents, 2, rng)
        return self.space.crossover(first, second, rng)
