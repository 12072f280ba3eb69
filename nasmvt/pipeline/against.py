"""Is searching worth it? Searches by several algorithms with equal evaluations, and what their archs reach on `val`."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, replace
from math import ceil
from statistics import fmean, stdev
from typing import Any

import numpy as np
import torch

from nasmvt.config import parse
from nasmvt.cost import Budget, FeasibleSet
from nasmvt.errors import UserError
from nasmvt.files import write_json
from nasmvt.pipeline.compare import bounds_of
from nasmvt.pipeline.datasets import placed
from nasmvt.pipeline.evaluate import evaluate_on_val
from nasmvt.pipeline.identity import SPLITS
from nasmvt.pipeline.retrain import Chosen, load_retrained, retrain
from nasmvt.pipeline.run import Run
from nasmvt.pipeline.search import Searching
from nasmvt.pipeline.supernet import load_supernet
from nasmvt.search import Objectives, SearchConfig, SearchListener
from nasmvt.training.loop import Listener

RESAMPLES = 10_000
"""Draws of a bootstrap."""
_SEEN = 2.8
"""Standard errors of a difference that is seen in four of five cases with an error of 5 %."""


@dataclass(frozen=True)
class Gain:
    """How much better one algorithm was than another one, with a 95 % interval over the seeds."""

    mean: float
    low: float
    high: float
    seeds: int | None
    """Seeds with which a difference of one point would be seen in four of five cases; None: unknown with one seed."""

    @classmethod
    def of(cls, differences: Sequence[float]) -> "Gain":
        """Return the gain of paired differences, one per seed; the interval is a percentile bootstrap's."""
        drawn = np.random.default_rng(0).choice(differences, (RESAMPLES, len(differences))).mean(axis=1)
        low, high = np.quantile(drawn, (0.025, 0.975)).tolist()
        seeds = max(ceil((_SEEN * stdev(differences)) ** 2), 2) if len(differences) > 1 else None
        return cls(fmean(differences), low, high, seeds)


@dataclass(frozen=True)
class SearchesOf:
    """The searches of one algorithm."""

    name: str
    evaluations: tuple[int, ...]
    """Candidates of each search."""
    inherited: tuple[float, ...]
    """T-score of the best candidate on the search split with the supernet's weights, by seed."""
    trained: tuple[float, ...]
    """T-score on `val` of that arch after its training, by seed."""
    inherited_gain: Gain | None = None
    """Of the run's own algorithm over this one; None for itself."""
    trained_gain: Gain | None = None

    def against(self, own: "SearchesOf") -> "SearchesOf":
        """Return the same with what the run's own algorithm gains over it."""
        if self is own:
            return self
        inherited, trained = (
            Gain.of([a - b for a, b in zip(mine, other, strict=True)])
            for mine, other in ((own.inherited, self.inherited), (own.trained, self.trained))
        )
        return replace(self, inherited_gain=inherited, trained_gain=trained)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return asdict(self)


def compare_searches(
    run: Run,
    *,
    device: torch.device,
    against: Sequence[str],
    seeds: int,
    searching: Callable[[], AbstractContextManager[SearchListener | None]],
    training: Callable[[str], AbstractContextManager[Listener | None]],
    address: str | None = None,
    accept_changed_data: bool = False,
) -> list[SearchesOf]:
    """Search anew with the run's algorithm and others, train what is found equally, and measure it; the run's own last.

    All searches have the bounds and settings of the run's search, and as many evaluations; `random` also searches just
    below the bound on parameters, where there is one, since size alone explains much. What was searched or trained
    already is not done again.

    Args:
        run: the run, with the result of a search.
        device: where it is searched, trained and measured.
        against: the other algorithms.
        seeds: searches and trainings of each algorithm; they differ in all that is random.
        searching: returns a listener for a search.
        training: returns a listener for a training with that title.
        address: a Ray cluster for the searches; None: a local Ray.
        accept_changed_data: continue if the data changed since the run began.

    Raises:
        UserError: if the run has no search result, an algorithm does not exist or is the run's own, or data changed.
    """
    supernet = load_supernet(run, device)
    budget, costs, feasible = bounds_of(run, supernet)
    own = run.experiment.search
    objectives = Objectives.of(supernet.tasks, own.maximize, own.minimize)
    data = run.open_data(SPLITS, accept_changed=accept_changed_data)
    found = []
    for name, (config, bounds) in _searches(own, budget, feasible, against).items():
        counts, inherited, trained = [], [], []
        work = Searching(run=run, supernet=supernet, config=config, objectives=objectives, costs=costs, wanted=bounds)
        for seed in range(seeds):
            folder = run.folder("compare", f"{name}-seed-{seed}")
            with searching() as table:
                ranked = replace(work, out=folder).search(
                    address=address, seed=seed, listener=table, accept_changed_data=accept_changed_data
                )
            chosen = Chosen(f"compare-{folder.name}", ranked[0].arch, costs.sharing)
            resume = run.folder("retrain", chosen.name).exists()
            with training(f"retrain {folder.name}") as listener:
                retrain(run, chosen, supernet, data=data, device=device, seed=seed, resume=resume, listener=listener)
            counts.append(len(ranked))
            inherited.append(ranked[0].score)
            model = load_retrained(run, chosen.name)
            trained.append(objectives.score(evaluate_on_val(model, placed(data, model.tasks), device)))
        found.append(SearchesOf(name, tuple(counts), tuple(inherited), tuple(trained)))
    return [item.against(found[-1]) for item in found]


def write_searches(run: Run, found: Sequence[SearchesOf]) -> None:
    """Write the result of a comparison of searches."""
    write_json(run.searches_path, [item.to_dict() for item in found])


def _searches(
    own: SearchConfig, budget: Budget, feasible: FeasibleSet, against: Sequence[str]
) -> dict[str, tuple[SearchConfig, Budget]]:
    """Return the settings and bounds of every search by its name, the run's own last."""
    found = {}
    for name in against:
        if name == own.algorithm:
            raise UserError(f"the run's own algorithm is {name}: compare it --against another one, such as random")
        values = {**own.model_dump(), "algorithm": name, "candidates": own.evaluations}
        config = parse(SearchConfig, values, "--against")
        found[name] = (config, budget)
        if name == "random" and budget.parameters is not None:
            least = int(feasible.near_bound().floors_V[0])  # of the parameters, the first bound
            found["random-near-budget"] = (config, replace(budget, at_least=least))
    return {**found, own.algorithm: (own, budget)}
