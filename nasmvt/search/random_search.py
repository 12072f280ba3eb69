"""Random search: the baseline."""

import numpy as np

from nasmvt.search.searcher import Searcher
from nasmvt.search.strategies import register_searcher
from nasmvt.space import Arch


@register_searcher("random")
class RandomSearcher(Searcher):
    """Archs drawn uniformly from the feasible ones, without repetition; all in generation 0."""

    @property
    def _all_planned(self) -> bool:
        return len(self._records) >= self.config.evaluations

    @property
    def kept(self) -> int | None:
        """The best one."""
        return 1

    def _plan(self) -> tuple[int, list[Arch]]:
        if self._exhausted or self._all_planned:
            return 0, []
        arch = self._sampler.random(self._records.keys(), np.random.default_rng((self.seed, len(self._records))))
        self._exhausted = arch is None
        return 0, [] if arch is None else [arch]
