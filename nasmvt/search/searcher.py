"""Ask and tell: what to evaluate next, as a function of the seed and what was told alone. No torch, no Ray."""

import math
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from nasmvt.cost.feasible import FeasibleSet
from nasmvt.errors import UserError
from nasmvt.search.config import SearchConfig
from nasmvt.search.sampler import FreshSampler
from nasmvt.space import Arch


@dataclass
class Record:
    """What is known of an arch."""

    generation: int
    values: tuple[float, ...] = ()  # empty: not told yet
    terms: tuple[float, ...] = ()  # what the first value is the sum of


class Searcher(ABC):
    """Proposes archs and learns what they are worth.

    No arch is proposed twice, and only feasible ones are. Which archs are proposed depends on the seed and
    on what is told, never on the order in which it is told or on how many archs are asked for at once.

    Args:
        feasible: the archs that may be proposed.
        config: sizes and probabilities.
        seed: seed of the random draws.
    """

    several_objectives: ClassVar[bool] = True
    """Whether it makes sense of more than one value per arch."""

    def __init__(self, feasible: FeasibleSet, config: SearchConfig, seed: int) -> None:
        self.space = feasible.space
        self.config = config
        self.seed = seed
        self._sampler = FreshSampler(feasible)
        self._records: dict[Arch, Record] = {}  # in the order of proposal
        self._queue: deque[Arch] = deque()
        self._open = 0  # proposed or queued, not told of
        self._exhausted = False

    @abstractmethod
    def _plan(self) -> tuple[int, list[Arch]]:
        """Return the next archs with their generation; none while one must be told first, or nothing is left."""

    @property
    @abstractmethod
    def _all_planned(self) -> bool:
        """Whether the last arch has been planned."""

    def ask(self, n: int) -> list[Arch]:
        """Return up to `n` archs to evaluate; fewer or none while others must be told first, or at the end."""
        archs: list[Arch] = []
        while len(archs) < n:
            if not self._queue:
                generation, planned = self._plan()
                if not planned:
                    break
                self._records |= {arch: Record(generation) for arch in planned}
                self._queue.extend(planned)
                self._open += len(planned)
            archs.append(self._queue.popleft())
        return archs

    def tell(
        self, found: Iterable[tuple[Arch, Sequence[float]]], terms: Mapping[Arch, Sequence[float]] | None = None
    ) -> None:
        """Take in what archs are worth, in any order: a value per objective.

        Higher is better, and not-a-number counts as the worst. The first value is the score; a searcher for one
        objective knows no other.

        Args:
            found: the archs and their values.
            terms: what the first value of an arch is the sum of, such as the tasks' metrics; by default it is one term.

        Raises:
            KeyError: if an arch was never asked for.
        """
        for arch, values in found:
            record = self._records[arch]
            self._open -= not record.values
            record.values = tuple(-math.inf if math.isnan(value) else float(value) for value in values)
            record.terms = tuple((terms or {}).get(arch, values[:1]))

    def know(self, found: Mapping[Arch, Sequence[float]], terms: Mapping[Arch, Sequence[float]]) -> None:
        """Take in what another search found, before the first question; its archs may be infeasible.

        Raises:
            UserError: if the algorithm makes nothing of it.
        """
        raise UserError(f"{self.config.algorithm} can't begin with what another search found: leave out --init")

    def notes(self, generation: int) -> dict[str, float]:
        """Return figures about a generation that was told of, to be written down with it; by default none."""
        return {}

    @property
    def kept(self) -> int | None:
        """How many of the best archs its proposals depend on; None: on all that were told, so none may drop out."""
        return None

    @property
    def done(self) -> bool:
        """Whether all archs of the search were told of."""
        return self._open == 0 and (self._exhausted or self._all_planned)

    @property
    def total(self) -> int:
        """Archs that the search will have evaluated in the end; an upper bound until then."""
        return len(self._records) if self._exhausted else self.config.evaluations

    def generation(self, arch: Arch) -> int:
        """Return the generation of an arch that was asked for, from 0."""
        return self._records[arch].generation

    def best(self, k: int | None = None) -> list[tuple[Arch, float]]:
        """Return the `k` best archs (None: all) and scores, best first; of equal ones, the earlier one."""
        scored = [(arch, record.values[0]) for arch, record in self._records.items() if record.values]
        return sorted(scored, key=lambda pair: -pair[1])[:k]
