"""E4: are learned sharing scores better than chance?"""

from collections.abc import Sequence
from itertools import combinations
from typing import Any

import numpy as np

from nasmvt.cost import Budget
from nasmvt.errors import UserError
from nasmvt.seeding import derive_seed
from nasmvt.space import Arch, Sharing

from .laboratory import Laboratory, Variant
from .search import bound
from .statistics import mean

THRESHOLD_START = {"supernet.score_start": 0.5}
"""All scores begin where they decide nothing, so that what is learned is all that is seen."""

TRIES = 10_000
TOLERANCE = 0.025
"""How far the total parameters under layers drawn by chance may be from those under the learned ones."""


def scores(lab: Laboratory) -> dict[str, Any]:
    """Return how far scores move, how far two seeds agree, and results of the same archs shared in four ways."""
    variants = [
        Variant(f"scores-seed-{seed}", THRESHOLD_START, seed=seed) for seed in range(1, lab.plan.sharing_seeds + 1)
    ]
    ends = [lab.trained_scores(variant) for variant in variants]
    moves = [np.array([unit["scores"][layer] - 0.5 for layer in unit["scores"]]) for unit in ends]
    return {
        "moved_mean": [float(np.abs(move).mean()) for move in moves],
        "moved_most": [float(np.abs(move).max()) for move in moves],
        "shared_layers": [int((move > 0).sum()) for move in moves],
        "layers": len(moves[0]),
        "agreement": [_agreement(first, second) for first, second in combinations(moves, 2)],
        **_results(lab, variants),
    }


def _agreement(first: np.ndarray, second: np.ndarray) -> dict[str, float]:
    """Return the part of the layers on which two seeds agree, and what chance would give with as many shared."""
    one, two = (first > 0).mean(), (second > 0).mean()
    return {"agree": float(((first > 0) == (second > 0)).mean()), "chance": float(one * two + (1 - one) * (1 - two))}


def _results(lab: Laboratory, variants: Sequence[Variant]) -> dict[str, Any]:
    """Return T-scores and total parameters by way to share, trained from scratch: one arch for each supernet.

    It is drawn just below the bound under what its supernet learned. Chance shares as many layers, so drawn that the
    arch has as many parameters; with all or none shared it has fewer or more.
    """
    found: dict[str, list[dict[str, float]]] = {}
    most = bound(lab, lab.plan.budget)
    for seed, variant in enumerate(variants, 1):
        supernet = lab.supernet(variant)[1]
        rng = np.random.default_rng(derive_seed("sharing", seed))
        learned, every = supernet.sharing(), supernet.sharing("all")
        arch = Budget(most).feasible(lab.costs_in(variant)).near_bound().sample(1, rng)[0]
        ways = {
            "learned": learned,
            "random": _by_chance(lab, arch, learned, every, rng),
            "all": every,
            "none": Sharing.of({}),
        }
        for name, sharing in ways.items():
            figures = lab.figures(lab.result(arch, seed, sharing=(f"{name}-{seed}", sharing)))
            found.setdefault(name, []).append({**figures, "parameters": _total(lab, arch, sharing)})
    scores = {name: [row["T-score"] for row in rows] for name, rows in found.items()}
    against = {name: mean(np.subtract(scores["learned"], values)).to_dict() for name, values in scores.items()}
    return {"results": found, "learned_minus": against}


def _by_chance(lab: Laboratory, arch: Arch, learned: Sharing, every: Sharing, rng: np.random.Generator) -> Sharing:
    """Return as many shared layers as learned, with which an arch has as many parameters within the tolerance."""
    layers = [layer for layer, _ in every.layers]
    count = sum(bool(learned.tasks(layer)) for layer in layers)
    wanted = _total(lab, arch, learned)
    for _ in range(TRIES):
        drawn = {str(layer) for layer in rng.choice(layers, size=count, replace=False)}
        sharing = Sharing.of({layer: tasks for layer, tasks in every.layers if layer in drawn})
        if abs(_total(lab, arch, sharing) / wanted - 1) <= TOLERANCE:
            return sharing
    raise UserError(
        f"chance is to share {count} of {len(layers)} layers and {wanted:,} parameters of {arch.id}, but no draw of "
        f"{TRIES:,} came within {TOLERANCE:.1%}: ask scores with another seed of the experiment"
    )


def _total(lab: Laboratory, arch: Arch, sharing: Sharing) -> int:
    return lab.costs.under(sharing).parameters(arch).total
