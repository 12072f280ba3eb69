"""Evolution with a surrogate: many cheap children, of which the promising ones are evaluated."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy.stats import kendalltau

from nasmvt.cost.feasible import FeasibleSet
from nasmvt.errors import UserError
from nasmvt.search.config import SearchConfig
from nasmvt.search.evolution import EvolutionSearcher
from nasmvt.search.strategies import register_searcher
from nasmvt.space import Arch, SearchSpace

FOLDS = 5
"""Parts into which the first generation is divided, to predict each from the others."""


@register_searcher("predictor")
class PredictorSearcher(EvolutionSearcher):
    """Evolution whose children a surrogate has ranked.

    For every generation after the first, `screening` times as many children as `evolution` breeds are bred. A
    regression for each term of the score (each task's metric), from the archs' encodings, learned from all that was
    told so far, ranks them. The best are proposed, and a part, `explored`, is drawn at random from the others. Where
    what was predicted of the last generation correlates too little with what was found, the next one is bred without.
    """

    def __init__(self, feasible: FeasibleSet, config: SearchConfig, seed: int) -> None:
        super().__init__(feasible, config, seed)
        self._regressor = _regressor()
        self._predicted: dict[int, np.ndarray] = {}  # by generation, in the order of proposal

    @property
    def kept(self) -> int | None:
        """All: it learns from every one."""
        return None

    def _plan(self) -> tuple[int, list[Arch]]:
        number, made = super()._plan()
        if number and made:
            self._predicted[number] = self._predict(self._told(), made)
        return number, made

    def _children(self, rng: np.random.Generator, times: int = 1) -> list[Arch]:
        count = self.config.mutants + self.config.crossovers
        if self._correlation(self._generations - 1) < self.config.least_correlation:
            return super()._children(rng)
        children = super()._children(rng, self.config.screening)
        ranked = np.argsort(-self._predict(self._told(), children), kind="stable")
        promising = min(count, len(ranked)) - round(self.config.explored * count)
        rest = rng.permutation(ranked[promising:])
        return [children[place] for place in [*ranked[:promising], *rest][:count]]

    def notes(self, generation: int) -> dict[str, float]:
        """Return the rank correlation of what was predicted of a generation with what was found."""
        return {"correlation": round(self._correlation(generation), 4)} if generation in self._predicted else {}

    def _correlation(self, generation: int) -> float:
        """Return Kendall's tau of what was predicted of a generation; of the first one, each part from the others."""
        archs = self._of(generation)
        predicted = self._predicted.get(generation)
        if predicted is None:
            parts = [archs[start::FOLDS] for start in range(FOLDS)]
            if not all(parts):
                return -1.0
            told = {id(part): [arch for other in parts if other is not part for arch in other] for part in parts}
            predicted = np.concatenate([self._predict(told[id(part)], part) for part in parts])
            archs = [arch for part in parts for arch in part]
        found = kendalltau(predicted, [self._records[arch].values[0] for arch in archs]).statistic
        return -1.0 if np.isnan(found) else float(found)

    def _of(self, generation: int) -> list[Arch]:
        return [arch for arch, record in self._records.items() if record.generation == generation]

    def _told(self) -> list[Arch]:
        told = [arch for arch, record in self._records.items() if record.values]
        return [*told, *(arch for arch in self._known if arch not in self._records)]

    def _predict(self, told: Sequence[Arch], archs: Sequence[Arch]) -> np.ndarray:
        """Return the scores of archs, learned from what was told of others.

        They are rounded: archs that differ in options of which nothing is known are equally good, on every machine.
        """
        terms_NT = np.array([(self._records.get(arch) or self._known[arch]).terms for arch in told])
        terms_NT = np.where(np.isfinite(terms_NT), terms_NT, 0.0)
        known_NF, asked_NF = encode(self.space, told), encode(self.space, archs)
        predicted = sum(
            (self._regressor.fit(known_NF, terms_N).predict(asked_NF) for terms_N in terms_NT.T),
            np.zeros(len(archs)),
        )
        return np.round(predicted, 6)


def encode(space: SearchSpace, archs: Sequence[Arch]) -> np.ndarray:
    """Return archs as features (N, F): of each slot which option it has, if any, and of each choice the mean place."""
    indices_NS = np.array([space.encode(arch) for arch in archs]).reshape(len(archs), len(space.slots))
    chosen = [indices_NS[:, [slot]] == np.arange(size) for slot, size in enumerate(space.slot_sizes)]
    names = np.array([name for name, _ in space.slots])
    masked_NS = np.ma.masked_less(indices_NS, 0)
    means = [masked_NS[:, names == name].mean(axis=1).filled(0)[:, None] for name in space.choices]
    return np.concatenate([*chosen, *means], axis=1).astype(np.float64)


def _regressor() -> Any:
    try:
        from sklearn.linear_model import BayesianRidge
    except ImportError:
        raise UserError(
            "--algorithm predictor needs scikit-learn: pip install scikit-learn, or search with --algorithm evolution"
        ) from None
    return BayesianRidge()
