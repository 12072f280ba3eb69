"""How well the yardstick itself agrees: the same archs, trained from scratch with two seeds."""

from typing import Any

import numpy as np

from .laboratory import Laboratory
from .statistics import kendall


def ceiling(lab: Laboratory) -> dict[str, Any]:
    """Return Kendall's tau between the first two seeds, that of size and result, and the spread of both.

    `noise` is the standard deviation of one training's result, `spread` that of the archs' means.
    """
    results = lab.results(lab.spread)
    names, sizes = list(results[0]), [lab.size(arch) for arch in lab.spread]
    means = {name: np.mean([result[name] for result in results], axis=0) for name in names}
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
        "between_seeds": {name: kendall(results[0][name], results[1][name]).to_dict() for name in names},
        "size_and_result": {name: kendall(sizes, means[name]).to_dict() for name in names},
        "noise": {name: _noise([result[name] for result in results]) for name in names},
        "spread": {name: float(means[name].std(ddof=1)) for name in names},
    }


def _noise(by_seed: list[np.ndarray]) -> float:
    return float(np.sqrt(np.mean(np.var(by_seed, axis=0, ddof=1))))
