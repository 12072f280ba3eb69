"""E3: one searched multi-task model against separate networks of equal parts of its budget, and one shared backbone."""

from collections.abc import Sequence
from itertools import combinations
from typing import Any

import numpy as np

from nasmvt.cost import Budget, Costs

from .laboratory import Laboratory, Variant, ends
from .ranking import variants
from .search import bound, searched
from .statistics import mean


def sharing(lab: Laboratory) -> list[dict[str, Any]]:
    """Return, for every bound, T-scores of the three ways, found by the same search and trained alike, by seed.

    Where some task's smallest network is larger than its part of the bound, there are no separate networks.
    """
    budgets = lab.plan.sharing_budgets or (lab.plan.budget,)
    return [_at(lab, bound(lab, budget)) for budget in budgets]


def _at(lab: Laboratory, most: int) -> dict[str, Any]:
    shared = next(variant for variant in variants(lab) if variant.name == "all-shared")
    tasks, seeds = [*lab.experiment.tasks], range(1, lab.plan.sharing_seeds + 1)
    found = {
        "searched": [_multi(lab, lab.base, most, seed) for seed in seeds],
        "one backbone": [_multi(lab, shared, most, seed) for seed in seeds],
    }
    part = most // len(tasks)
    if all(ends(lab.costs_alone(task))[0] <= part for task in tasks):
        found["separate"] = [
            _total([_found(lab, lab.base, lab.costs_alone(task), part, seed, (task,)) for task in tasks])
            for seed in seeds
        ]
    scores = {name: [row["T-score"] for row in rows] for name, rows in found.items()}
    against = {
        f"{name} minus {other}": mean(np.subtract(scores[name], scores[other])).to_dict()
        for other, name in combinations(reversed(found), 2)
    }
    return {"bound": most, "results": found, "differences": against}


def _total(rows: Sequence[dict[str, float]]) -> dict[str, float]:
    """Return the figures of several networks together: T-scores and parameters are added."""
    return {name: sum(row.get(name, 0) for row in rows) for name in set().union(*rows)}


def _multi(lab: Laboratory, variant: Variant, most: int, seed: int) -> dict[str, float]:
    return _found(lab, variant, lab.costs_in(variant), most, seed)


def _found(
    lab: Laboratory, variant: Variant, costs: Costs, most: int, seed: int, tasks: Sequence[str] = ()
) -> dict[str, float]:
    """Return the figures of the network that a search finds within a bound and that is trained from its supernet."""
    algorithm = lab.experiment.search.algorithm
    arch, _ = searched(lab, variant, costs, Budget(most).feasible(costs), algorithm, seed, tasks)
    figures = lab.figures(lab.result(arch, seed, start=variant, tasks=tasks))
    return {**figures, "parameters": costs.parameters(arch).total}
