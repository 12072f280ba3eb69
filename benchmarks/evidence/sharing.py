"""E3: one searched multi-task model against separate networks of equal parts of its budget, and one shared backbone."""

from typing import Any

import numpy as np

from nasmvt.cost import Budget

from .laboratory import Laboratory, Variant
from .ranking import variants
from .search import bound, searched
from .statistics import mean


def sharing(lab: Laboratory) -> list[dict[str, Any]]:
    """Return, for every bound, T-scores of the three ways, found by the same search and trained alike, by seed."""
    budgets = lab.plan.sharing_budgets or (lab.plan.budget,)
    return [_at(lab, bound(lab, budget)) for budget in budgets]


def _at(lab: Laboratory, most: int) -> dict[str, Any]:
    shared = next(variant for variant in variants(lab) if variant.name == "all-shared")
    tasks = [*lab.experiment.tasks]
    found: dict[str, list[dict[str, float]]] = {"searched": [], "one backbone": [], "separate": []}
    for seed in range(1, lab.plan.sharing_seeds + 1):
        found["searched"].append(_multi(lab, lab.base, most, seed))
        found["one backbone"].append(_multi(lab, shared, most, seed))
        alone = [_alone(lab, task, most // len(tasks), seed) for task in tasks]
        found["separate"].append({name: sum(row.get(name, 0) for row in alone) for name in found["searched"][0]})
    scores = {name: [row["T-score"] for row in rows] for name, rows in found.items()}
    against = {
        f"{name} minus {other}": mean(np.subtract(scores[name], scores[other])).to_dict()
        for name, other in (("searched", "separate"), ("one backbone", "separate"), ("searched", "one backbone"))
    }
    return {"bound": most, "results": found, "differences": against}


def _multi(lab: Laboratory, variant: Variant, most: int, seed: int) -> dict[str, float]:
    costs = lab.costs.under(lab.supernet(variant)[1].sharing())
    feasible = Budget(most).feasible(costs)
    arch, _ = searched(lab, variant, costs, feasible, lab.experiment.search.algorithm, seed)
    size = costs.parameters(arch).total
    return {**lab.figures(lab.result(arch, seed, start=variant)), "parameters": size}


def _alone(lab: Laboratory, task: str, most: int, seed: int) -> dict[str, float]:
    """Return the figures of a task's own network, found and trained for it alone."""
    costs = lab.costs_alone(task)
    feasible = Budget(most).feasible(costs)
    arch, _ = searched(lab, lab.base, costs, feasible, lab.experiment.search.algorithm, seed, (task,))
    size = costs.parameters(arch).total
    return {**lab.figures(lab.result(arch, seed, start=lab.base, tasks=(task,))), "parameters": size}
