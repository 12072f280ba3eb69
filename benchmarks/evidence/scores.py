"""E4: are learned sharing scores better than chance?"""

from itertools import combinations
from typing import Any

import numpy as np

from nasmvt.cost import Budget
from nasmvt.seeding import derive_seed
from nasmvt.space import Sharing

from .laboratory import Laboratory, Variant
from .search import bound
from .statistics import mean

THRESHOLD_START = {"supernet.score_start": 0.5}
"""All scores begin where they decide nothing, so that what is learned is all that is seen."""


def scores(lab: Laboratory) -> dict[str, Any]:
    """Return how far scores move, how far two seeds agree, and results of four ways to share at equal size."""
    seeds = range(1, lab.plan.sharing_seeds + 2)
    variants = [Variant(f"scores-seed-{seed}", THRESHOLD_START, seed=seed) for seed in seeds]
    ends = [lab.trained_scores(variant) for variant in variants]
    moves = [np.array([unit["scores"][layer] - 0.5 for layer in unit["scores"]]) for unit in ends]
    learned = lab.supernet(variants[0])[1].sharing()
    return {
        "moved_mean": [float(np.abs(move).mean()) for move in moves],
        "moved_most": [float(np.abs(move).max()) for move in moves],
        "shared_layers": [int((move > 0).sum()) for move in moves],
        "layers": len(moves[0]),
        "agreement": [_agreement(first, second) for first, second in combinations(moves, 2)],
        **_results(lab, learned),
    }


def _agreement(first: np.ndarray, second: np.ndarray) -> dict[str, float]:
    """Return the part of the layers on which two seeds agree, and what chance would give with as many shared."""
    one, two = (first > 0).mean(), (second > 0).mean()
    return {"agree": float(((first > 0) == (second > 0)).mean()), "chance": float(one * two + (1 - one) * (1 - two))}


def _results(lab: Laboratory, learned: Sharing) -> dict[str, Any]:
    """Return T-scores of archs drawn just below the bound under each sharing, trained from scratch."""
    supernet = lab.supernet(lab.base)[1]
    adaptive = [layer for layer, _ in supernet.sharing("all").layers]
    count = sum(bool(learned.tasks(layer)) for layer in adaptive)
    found: dict[str, list[float]] = {}
    most = bound(lab, lab.plan.budget)
    for seed in range(1, lab.plan.sharing_seeds + 1):
        rng = np.random.default_rng(derive_seed("sharing", seed))
        drawn = {str(layer) for layer in rng.choice(adaptive, size=count, replace=False)}
        every = supernet.sharing("all")
        ways = {
            "learned": learned,
            "random": Sharing.of({layer: tasks for layer, tasks in every.layers if layer in drawn}),
            "all": every,
            "none": Sharing.of({}),
        }
        for name, sharing in ways.items():
            costs = lab.costs.under(sharing)
            arch = Budget(most, at_least=int(0.95 * most)).feasible(costs).sample(1, rng)[0]
            result = lab.result(arch, seed, sharing=(f"{name}-{seed}", sharing))
            found.setdefault(name, []).append(lab.figures(result)["T-score"])
    against = {name: mean(np.subtract(found["learned"], values)).to_dict() for name, values in found.items()}
    return {"results": found, "learned_minus": against}
