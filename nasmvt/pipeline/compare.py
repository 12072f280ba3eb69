"""Was the search worth it? Its arch against others, all retrained with the same settings, on `val`."""

from collections.abc import Callable
from contextlib import AbstractContextManager

import numpy as np
import torch

from nasmvt.cost import Budget, Costs
from nasmvt.pipeline.comparison import Compared
from nasmvt.pipeline.evaluate import evaluate_on_val
from nasmvt.pipeline.identity import SPLITS
from nasmvt.pipeline.retrain import Chosen, choose_arch, load_retrained, retrain
from nasmvt.pipeline.run import Run
from nasmvt.pipeline.supernet import load_supernet
from nasmvt.search import Objective
from nasmvt.search.sampler import FreshSampler
from nasmvt.seeding import derive_seed
from nasmvt.training.loop import Listener


def compare(
    run: Run,
    *,
    device: torch.device,
    progress: Callable[[str], AbstractContextManager[Listener]],
    accept_unfinished: bool = False,
    accept_changed_data: bool = False,
) -> list[Compared]:
    """Retrain the smallest, the largest, a random and the searched arch with the same settings; measure them on `val`.

    The random arch is within the search's budget. Archs that were retrained already are not trained again.

    Args:
        run: the run.
        device: where it is trained and measured.
        progress: returns a listener for a training with that title.
        accept_unfinished: accept the result of an interrupted search.
        accept_changed_data: continue if the data changed since the run began.

    Raises:
        UserError: if the run has no search result, or it or the data are not accepted.
    """
    searched = run.best()
    supernet = load_supernet(run, device)
    budget = Budget(searched.budget, searched.max_macs, searched.sharing_rule, searched.at_least)
    sharing = supernet.sharing(budget.sharing)
    costs = Costs(supernet.space, supernet.tasks, sharing)
    feasible = budget.feasible(costs)
    best = choose_arch(run, "best", sharing, accept_unfinished=accept_unfinished)
    rng = np.random.default_rng(derive_seed(run.experiment.seed, "random subnet of the comparison"))
    drawn = FreshSampler(feasible).random({best.arch}, rng) or best.arch
    others = {
        "smallest": run.experiment.space.smallest,
        "largest": run.experiment.space.largest,
        "random": drawn,
    }
    objective = Objective.of(supernet.tasks)
    data = run.open_data(SPLITS, accept_changed=accept_changed_data)
    found = []
    for chosen in (*(Chosen(name, arch, sharing) for name, arch in others.items()), best):
        folder = run.retrain_files(chosen.name).folder
        with progress(f"retrain {chosen.name}") as listener:
            retrain(run, chosen, supernet, data=data, device=device, resume=folder.exists(), listener=listener)
        model = load_retrained(run, chosen.name)
        metrics = evaluate_on_val(model, data, device)
        count = costs.parameters(chosen.arch)
        found.append(Compared(chosen.name, count, metrics, objective(metrics), chosen.arch in feasible))
    return found
