"""E5: what it is worth to begin a training with the supernet's weights, by the length of the training."""

from typing import Any

import numpy as np

from .laboratory import Laboratory
from .statistics import mean


def inheritance(lab: Laboratory) -> dict[str, Any]:
    """Return, by steps, the mean figures from scratch and from the base supernet, and their paired differences.

    Both begin with the same sharing, that of the supernet.
    """
    places = np.linspace(0, len(lab.spread) - 1, lab.plan.retrain_archs).round().astype(int)
    archs = [lab.spread[place] for place in dict.fromkeys(places.tolist())]
    sharing = ("supernet-sharing", lab.supernet(lab.base)[1].sharing())
    found: dict[str, Any] = {"archs": [arch.id for arch in archs], "by_steps": {}}
    for steps in lab.plan.retrain_steps:
        scratch = lab.table([lab.figures(lab.result(arch, 1, steps=steps, sharing=sharing)) for arch in archs])
        begun = lab.table([lab.figures(lab.result(arch, 1, steps=steps, start=lab.base)) for arch in archs])
        found["by_steps"][str(steps)] = {
            name: {
                "scratch": float(scratch[name].mean()),
                "supernet": float(begun[name].mean()),
                "difference": mean(begun[name] - scratch[name]).to_dict(),
            }
            for name in scratch
        }
    return found
