"""E1: do scores inherited from a supernet rank archs as trainings from scratch do?"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from nasmvt.space import Arch

from .ceiling import between_seeds
from .laboratory import Laboratory, Metrics, Variant, mean_results
from .plan import Comparison
from .statistics import kendall


def variants(lab: Laboratory) -> list[Variant]:
    """Return the supernets that are compared: by length, by sampling at equal image passes, by sharing."""
    settings, archs = lab.experiment.training, lab.plan.sandwich_archs
    longer = [
        Variant(f"uniform-x{length:g}", {"training.steps": round(length * settings.steps)})
        for length in lab.plan.lengths
        if length != 1
    ]
    kept = {"training.freeze": ["scores.**"]}
    return [
        lab.base,
        Variant(f"sandwich-{archs}", sandwich(lab)),
        Variant("all-shared", {"supernet.score_start": 1.0, **kept}),
        Variant("none-shared", {"supernet.score_start": 0.0, **kept}),
        *longer,
    ]


def sandwich(lab: Laboratory) -> dict[str, Any]:
    """Return the settings of a training that samples by the sandwich rule, with as many image passes."""
    settings, archs = lab.experiment.training, lab.plan.sandwich_archs
    return {
        "training.sampling": "sandwich",
        "training.random_archs": archs - 2,
        "training.steps": max(1, settings.steps // archs),
        "training.warmup_steps": settings.warmup_steps // archs,
        "training.largest_first": settings.largest_first // archs,
    }


def sampling(lab: Laboratory) -> dict[str, Any]:
    """Return tau of inherited score and mean result for three ways to sample archs, by seed of the supernet."""
    truth = mean_results(lab.results(lab.spread))
    ways = {"uniform": {}, "sandwich": sandwich(lab), "distilled": {**sandwich(lab), "training.distillation": {}}}
    found: dict[str, list[dict[str, float | None]]] = {}
    for name, changes in ways.items():
        for seed in range(1, lab.plan.sampling_seeds + 1):
            variant = Variant(f"sampling-{name}-{lab.plan.sandwich_archs}-{seed}", changes, seed=seed)
            scores = lab.table([lab.figures(lab.inherited(variant, arch)) for arch in lab.spread])
            taus = {figure: kendall(scores[figure], truth[figure]).value for figure in scores}
            means = {f"mean {figure}": float(values.mean()) for figure, values in scores.items()}
            found.setdefault(name, []).append(taus | means)
    return {"archs": len(lab.spread), "supernets": found}


def comparing(lab: Laboratory) -> list[dict[str, Any]]:
    """Return tau of results and what archs inherit from the base supernet, by the images that they are compared on."""
    truth = mean_results(lab.results(lab.spread))
    found = []
    for compared in lab.plan.comparisons:
        metrics = [lab.inherited(lab.base, arch, compared=compared) for arch in lab.spread]
        found.append({**compared.model_dump(), **_agreement(lab, metrics, truth)})
    return found


def after_training(lab: Laboratory) -> dict[str, Any]:
    """Return tau of results and what archs reach on the search split after short trainings from the base supernet."""
    truth = mean_results(lab.results(lab.spread))
    reached = {
        steps: [lab.after_training(lab.base, arch, steps) for arch in lab.spread] for steps in lab.plan.short_steps
    }
    reached = {0: [lab.inherited(lab.base, arch) for arch in lab.spread], **reached}
    return {str(steps): _agreement(lab, metrics, truth) for steps, metrics in reached.items()}


def ranking(lab: Laboratory) -> dict[str, Any]:
    """Return Kendall's tau of inherited score and mean result over the whole range of sizes."""
    return _ranking(lab, lab.spread)


def ranking_at_equal_size(lab: Laboratory) -> dict[str, Any]:
    """Return the same among archs of equal size, where size explains nothing."""
    return _ranking(lab, lab.equal)


def _ranking(lab: Laboratory, archs: Sequence[Arch]) -> dict[str, Any]:
    """Return tau per task and in all for every supernet, and of the base one without new BatchNorm statistics too."""
    results = lab.results(archs)
    truth = mean_results(results)
    found: dict[str, Any] = {
        "parameters": [lab.size(arch) for arch in archs],
        "between_seeds": between_seeds(results),
        "supernets": {},
    }
    own = Comparison(images=lab.experiment.search.images, recalibration_images=0)
    for variant, compared in [(lab.base, None), (lab.base, own), *((v, None) for v in variants(lab)[1:])]:
        metrics = [lab.inherited(variant, arch, compared=compared) for arch in archs]
        title = variant.name if compared is None else f"{variant.name}, its own BatchNorm statistics"
        found["supernets"][title] = _agreement(lab, metrics, truth)
    return found


def _agreement(lab: Laboratory, metrics: Sequence[Metrics], truth: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Return tau of the figures of some archs and their results, and the figures."""
    scores = lab.table([lab.figures(one) for one in metrics])
    return {
        "tau": {name: kendall(scores[name], truth[name]).to_dict() for name in scores},
        "scores": {name: values.tolist() for name, values in scores.items()},
    }
