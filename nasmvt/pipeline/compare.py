"""Whether the search was worth it: its arch against others, all retrained equally, on `val`."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass

import numpy as np
import torch

from nasmvt.cost import Budget, Costs, ParameterCount
from nasmvt.errors import UserError
from nasmvt.files import write_json
from nasmvt.pipeline.archs import read_arch_file
from nasmvt.pipeline.datasets import open_data
from nasmvt.pipeline.evaluate import evaluate_on_val
from nasmvt.pipeline.retrain import Chosen, choose_arch, load_retrained, retrain
from nasmvt.pipeline.run import Run
from nasmvt.pipeline.supernet import load_supernet
from nasmvt.search import Objective
from nasmvt.search.sampler import FreshSampler
from nasmvt.seeding import derive_seed
from nasmvt.training.loop import Listener


@dataclass(frozen=True)
class Compared:
    """One arch of the comparison."""

    name: str
    parameters: ParameterCount
    metrics: dict[str, dict[str, float]]
    """On `val`, in percent."""
    score: float
    """T-score on `val`."""
    within_budget: bool


def compare(
    run: Run, *, device: torch.device, progress: Callable[[str], AbstractContextManager[Listener]]
) -> list[Compared]:
    """Retrain the smallest, the largest, a random and the searched arch equally and measure them on `val`.

    The random arch is within the search's budget. What was retrained already is not trained again.
    The figures are also written to `<run>/compare.json`.

    Raises:
        UserError: if the run has no search result.
    """
    path = run.folder("search") / "best.yaml"
    if not path.is_file():
        raise UserError(f"{run.path} holds no search result: run 'nasmvt search' first")
    searched = read_arch_file(path)
    supernet = load_supernet(run, device)
    budget = Budget(searched.budget, searched.max_macs, searched.sharing_rule)
    sharing = supernet.sharing(budget.sharing)
    costs = Costs(supernet.space, supernet.tasks, sharing)
    feasible = budget.feasible(costs)
    best = choose_arch(run, "best", sharing)
    rng = np.random.default_rng(derive_seed(run.experiment.seed, "random subnet of the comparison"))
    drawn = FreshSampler(feasible).random({best.arch}, rng) or best.arch
    others = {
        "smallest": run.experiment.space.smallest,
        "largest": run.experiment.space.largest,
        "random": drawn,
    }
    objective = Objective.of(supernet.tasks)
    data = open_data(run.experiment)
    found = []
    for chosen in (*(Chosen(name, arch, sharing) for name, arch in others.items()), best):
        folder = run.folder("retrain", chosen.name)
        with progress(f"retrain {chosen.name}") as listener:
            retrain(run, chosen, supernet, data=data, device=device, resume=folder.exists(), listener=listener)
        model = load_retrained(run, chosen.name)
        metrics = evaluate_on_val(model, run.experiment.tasks, run.experiment.seed, device)
        count = costs.parameters(chosen.arch)
        found.append(Compared(chosen.name, count, metrics, objective(metrics), chosen.arch in feasible))
    write_json(
        run.path / "compare.json",
        [{**vars(item), "parameters": item.parameters.to_dict()} for item in found],
    )
    return found
