"""How well the yardstick itself agrees: the same archs, trained with other seeds."""

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np

from .laboratory import Laboratory, mean_results
from .statistics import kendall


def ceiling(lab: Laboratory) -> dict[str, Any]:
    """Return Kendall's tau between the means of halves of the seeds, that of size and result, and the spreads.

    `noise` is the standard deviation of one training's result, `spread` that of the archs' means.
    """
    results = lab.results(lab.spread)
    names, sizes = list(results[0]), [lab.size(arch) for arch in lab.spread]
    means = mean_results(results)
    return {
        "archs": [
            {
                "id": arch.id,
                "arch": arch.to_dict(),
                "parameters": size,
                "results": [{name: float(result[name][place]) for name in names} for result in results],
            }
            for place, (arch, size) in enumerate(zip(lab.spread, sizes, strict=True))
        ],
        "between_seeds": between_seeds(results),
        "size_and_result": {name: kendall(sizes, means[name]).to_dict() for name in names},
        "noise": {name: _noise([result[name] for result in results]) for name in names},
        "spread": {name: float(means[name].std(ddof=1)) for name in names},
    }


def between_seeds(results: Sequence[Mapping[str, np.ndarray]]) -> dict[str, Any]:
    """Return tau, by figure, between the mean results of two halves of the seeds: its mean over all ways to halve."""
    halves = [set(half) for half in combinations(range(len(results)), len(results) // 2)]
    first = [mean_results([result for seed, result in enumerate(results) if seed in half]) for half in halves]
    second = [mean_results([result for seed, result in enumerate(results) if seed not in half]) for half in halves]
    return {
        name: kendall([means[name] for means in first], [means[name] for means in second]).to_dict()
        for name in results[0]
    }


def _noise(by_seed: list[np.ndarray]) -> float:
    return float(np.sqrt(np.mean(np.var(by_seed, axis=0, ddof=1))))
