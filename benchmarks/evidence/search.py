"""E2: each search algorithm against archs drawn at random, at equal evaluations."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from nasmvt.cost import Budget, Costs, FeasibleSet
from nasmvt.pipeline.search import with_settings
from nasmvt.search import Searcher, make_searcher
from nasmvt.search.strategies import SEARCHERS
from nasmvt.space import Arch

from .laboratory import Laboratory, Variant, ends
from .statistics import difference, mean

NEAR = "random near the bound"
"""Random among the archs within 5 % below the bound: the honest rival, since size alone explains much."""

Winners = dict[str, list[tuple[Arch, list[float]]]]
"""By way to search, for every seed: the best arch, and the best inherited T-score after every evaluation."""


def bound(lab: Laboratory, budget: float) -> int:
    """Return a part of the largest network's total parameters."""
    return int(budget * ends(lab.costs)[1])


def search(lab: Laboratory) -> dict[str, Any]:
    """Return, for every algorithm and seed, the best inherited T-score, and what the winners reach when trained.

    `not_searched` are archs that were drawn, of equal size or over all sizes, trained with the winners' seed; those of
    equal size and the default's winners are also trained from the supernet, `from_supernet`.
    """
    winners = _winners(lab, [*SEARCHERS])
    found, default = _compared(lab, winners), lab.experiment.search.algorithm
    groups = {
        "of equal size": lab.equal,
        "within the bound": [arch for arch in lab.spread if lab.size(arch) <= found["bound"]],
    }
    trained = {title: algorithm["results"] for title, algorithm in found["algorithms"].items()}
    every_winner = [score for scores in trained.values() for score in scores]
    found["not_searched"] = {
        title: _against(_results(lab, archs), every_winner, trained[default])
        for title, archs in groups.items()
        if archs
    }
    default_archs = [arch for arch, _ in winners[default][: lab.plan.rivals]]
    begun, others = (_results(lab, archs, lab.base) for archs in (default_archs, lab.equal))
    found["from_supernet"] = {
        "default": begun,
        "of equal size": others,
        "default_minus_it": difference(begun, others).to_dict(),
    }
    return found


def longer_search(lab: Laboratory) -> dict[str, Any]:
    """Return the same of searches of more evaluations, by some algorithms and at random near the bound."""
    algorithms = [lab.experiment.search.algorithm, *lab.plan.longer_algorithms]
    return _compared(lab, _winners(lab, algorithms, lab.plan.longer_evaluations))


def _winners(lab: Laboratory, algorithms: Sequence[str], evaluations: int | None = None) -> Winners:
    """Search by some algorithms and at random near the bound."""
    costs = lab.costs_in(lab.base)
    every = Budget(bound(lab, lab.plan.budget)).feasible(costs)
    searches = {name: (name, every) for name in algorithms} | {NEAR: ("random", every.near_bound())}
    return {
        title: [
            searched(lab, lab.base, costs, feasible, name, seed, evaluations=evaluations)
            for seed in range(lab.plan.search_seeds)
        ]
        for title, (name, feasible) in searches.items()
    }


def _compared(lab: Laboratory, best: Winners) -> dict[str, Any]:
    """Return what the winners inherit and reach when they are trained, and how far the default's are ahead."""
    costs = lab.costs_in(lab.base)
    found: dict[str, Any] = {"bound": bound(lab, lab.plan.budget), "algorithms": {}}
    trained = {title: _results(lab, [arch for arch, _ in runs[: lab.plan.rivals]]) for title, runs in best.items()}
    default = lab.experiment.search.algorithm
    for title, runs in best.items():
        scores = [curve[-1] for _, curve in runs]
        found["algorithms"][title] = {
            "best": scores,
            "curves": [curve for _, curve in runs],
            "parameters": [costs.parameters(arch).total for arch, _ in runs],
            "results": trained[title],
            "default_minus_it": mean(np.subtract([curve[-1] for _, curve in best[default]], scores)).to_dict(),
            "default_minus_it_trained": mean(np.subtract(trained[default], trained[title])).to_dict(),
        }
    return found


def _results(lab: Laboratory, archs: Sequence[Arch], start: Variant | None = None) -> list[float]:
    return [lab.figures(lab.result(arch, 1, start=start))["T-score"] for arch in archs]


def _against(results: Sequence[float], winners: Sequence[float], default: Sequence[float]) -> dict[str, Any]:
    """Return how far winners are ahead of archs that no search has chosen."""
    return {
        "results": [*results],
        "winners_minus_it": difference(winners, results).to_dict(),
        "default_minus_it": difference(default, results).to_dict(),
    }


def searched(
    lab: Laboratory,
    variant: Variant,
    costs: Costs,
    feasible: FeasibleSet,
    algorithm: str,
    seed: int,
    tasks: Sequence[str] = (),
    evaluations: int | None = None,
) -> tuple[Arch, list[float]]:
    """Search a supernet; return the best arch and the best T-score after every evaluation.

    Generations are as many as the evaluations take, and these, unless given, those of the experiment's search.
    """
    usual = lab.experiment.search
    evaluations = evaluations or usual.evaluations
    generations = 1 + math.ceil(max(0, evaluations - usual.population) / usual.per_generation)
    config = with_settings(usual, algorithm=algorithm, generations=generations)
    several = SEARCHERS.get(algorithm).several_objectives and algorithm != "random"
    searcher: Searcher = make_searcher(config, feasible, seed)
    curve: list[float] = []
    while not searcher.done and len(curve) < evaluations:
        for arch in searcher.ask(1):
            score = lab.figures(lab.inherited(variant, arch, tasks=tasks))["T-score"]
            size = float(costs.parameters(arch).total)
            searcher.tell([(arch, (score, -size) if several else (score,))])
            curve.append(max([score, *curve[-1:]]))
    return searcher.best(1)[0][0], curve
