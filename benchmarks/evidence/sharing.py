"""E3: one searched multi-task model against separate networks of a third of its budget, and one shared backbone."""

from typing import Any

import numpy as np

from nasmvt.cost import Budget

from .laboratory import Laboratory, Variant
from .ranking import variants
from .search import bounds, searched
from .statistics import mean


def sharing(lab: Laboratory) -> dict[str, Any]:
    """Return T-scores of the three ways, found by the same search and trained alike, and their differences by seed."""
    shared = next(variant for variant in variants(lab) if variant.name == "all-shared")
    found: dict[str, list[dict[str, float]]] = {"searched": [], "one backbone": [], "separate": []}
    _, most = bounds(lab, lab.costs)
    for seed in range(1, lab.plan.sharing_seeds + 1):
        found["searched"].append(_multi(lab, lab.base, most, seed))
        found["one backbone"].append(_multi(lab, shared, most, seed))
        alone = {task: _alone(lab, task, most // len(lab.experiment.tasks), seed) for task in lab.experiment.tasks}
        found["separate"].append({**alone, "T-score": sum(alone.values())})
    scores = {name: [row["T-score"] for row in rows] for name, rows in found.items()}
    against = {name: mean(np.subtract(scores["searched"], values)).to_dict() for name, values in scores.items()}
    return {"bound": most, "results": found, "searched_minus": against}


def _multi(lab: Laboratory, variant: Variant, most: int, seed: int) -> dict[str, float]:
    costs = lab.costs.under(lab.supernet(variant)[1].sharing())
    feasible = Budget(most).feasible(costs)
    arch, _ = searched(lab, variant, costs, feasible, lab.experiment.search.algorithm, seed)
    return lab.figures(lab.result(arch, seed, start=variant))


def _alone(lab: Laboratory, task: str, most: int, seed: int) -> float:
    """Return the metric of a task's own network, found and trained for it alone."""
    costs = lab.costs_alone(task)
    feasible = Budget(most).feasible(costs)
    arch, _ = searched(lab, lab.base, costs, feasible, lab.experiment.search.algorithm, seed, (task,))
    return lab.figures(lab.result(arch, seed, start=lab.base, tasks=(task,)))[task]
