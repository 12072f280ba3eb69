"""Was the search worth it? Its arch against others, all retrained with the same settings, on `val`."""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import replace

import numpy as np
import torch

from nasmvt.cost import Budget, Costs, FeasibleSet, LatencyTable
from nasmvt.pipeline.comparison import Compared, Rating
from nasmvt.pipeline.datasets import placed
from nasmvt.pipeline.evaluate import resample_on_val
from nasmvt.pipeline.identity import SPLITS
from nasmvt.pipeline.retrain import Chosen, choose_arch, load_retrained, retrain
from nasmvt.pipeline.run import Run
from nasmvt.pipeline.supernet import load_supernet
from nasmvt.search import Objective
from nasmvt.search.sampler import FreshSampler
from nasmvt.seeding import derive_seed
from nasmvt.space import Arch
from nasmvt.supernet import Supernet
from nasmvt.training.loop import Listener


def compare(
    run: Run,
    *,
    device: torch.device,
    progress: Callable[[str], AbstractContextManager[Listener | None]],
    seeds: int = 1,
    accept_unfinished: bool = False,
    accept_changed_data: bool = False,
) -> list[Compared]:
    """Retrain the searched arch and others with the same settings; measure them on `val`, the searched one last.

    The others are the smallest and the largest arch, a random one within the search's budget and, where parameters are
    bounded, a random one just below the bound, since size alone explains much. What was retrained already is not
    trained again.

    Args:
        run: the run.
        device: where it is trained and measured.
        progress: returns a listener for a training with that title.
        seeds: trainings of each arch; they differ in all that is random.
        accept_unfinished: accept the result of an interrupted search.
        accept_changed_data: continue if the data changed since the run began.

    Raises:
        UserError: if the run has no search result, or it or the data are not accepted.
    """
    supernet = load_supernet(run, device)
    budget, costs, feasible = bounds_of(run, supernet)
    sharing = costs.sharing
    best = choose_arch(run, "best", sharing, accept_unfinished=accept_unfinished)
    rivals = _rivals(run.experiment.seed, best.arch, budget, feasible)
    objective = Objective.of(supernet.tasks)
    data = run.open_data(SPLITS, accept_changed=accept_changed_data)
    found = []
    for chosen in (*(Chosen(name, arch, sharing) for name, arch in rivals.items()), best):
        ratings = []
        for seed in range(seeds):
            one = replace(chosen, name=f"{chosen.name}-seed-{seed}") if seed else chosen
            resume = run.folder("retrain", one.name).exists()
            with progress(f"retrain {one.name}") as listener:
                retrain(run, one, supernet, data=data, device=device, seed=seed, resume=resume, listener=listener)
            model = load_retrained(run, one.name)
            ratings.append(Rating.of(resample_on_val(model, placed(data, model.tasks), device), objective))
        count, within = costs.parameters(chosen.arch), chosen.arch in feasible
        found.append(Compared.of(chosen.name, count, within, ratings))
    return [item.against(found[-1]) for item in found]


def bounds_of(run: Run, supernet: Supernet) -> tuple[Budget, Costs, FeasibleSet]:
    """Return the bounds of a run's search, what archs cost, and those within the bounds.

    Raises:
        UserError: if the run has no search result.
    """
    searched = run.best()
    budget = Budget(searched.budget, searched.max_macs, searched.sharing_rule, searched.at_least, searched.max_latency)
    costs = Costs(supernet.space, supernet.tasks, supernet.sharing(budget.sharing))
    if budget.latency:
        costs.timing = LatencyTable.read(run.search_files.latency)
    return budget, costs, budget.feasible(costs)


def _rivals(seed: int, best: Arch, budget: Budget, feasible: FeasibleSet) -> Mapping[str, Arch]:
    """Return what the searched arch is compared with, by name."""
    rng = np.random.default_rng(derive_seed(seed, "random subnet of the comparison"))
    rivals = {"smallest": feasible.space.smallest, "largest": feasible.space.largest}
    rivals["random"] = FreshSampler(feasible).random({best}, rng) or best
    if budget.parameters is not None:  # the first column of the bounds
        near = FreshSampler(feasible.near_bound())
        if drawn := near.random({best}, rng):
            rivals["random-near-budget"] = drawn
    return rivals
