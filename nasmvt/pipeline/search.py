"""The search step of the main job."""

from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from nasmvt.config import parse
from nasmvt.cost import Budget, Costs, FeasibleSet
from nasmvt.files import held
from nasmvt.pipeline.front import Front
from nasmvt.pipeline.latency import Networks
from nasmvt.pipeline.latency_bound import Confirmation
from nasmvt.pipeline.layout import SearchFiles
from nasmvt.pipeline.run import Run
from nasmvt.search import (
    Candidate,
    Journal,
    Objective,
    Objectives,
    SearchConfig,
    SearchListener,
    make_pool,
    make_searcher,
)
from nasmvt.search import search as run_search
from nasmvt.search.race import BLOCKS
from nasmvt.search.results import ResultFiles
from nasmvt.seeding import derive_seed
from nasmvt.supernet import Supernet
from nasmvt.tasks.precision import check_precision


def with_settings(config: SearchConfig, **changes: object) -> SearchConfig:
    """Return the settings with changes; None means unchanged.

    Raises:
        UserError: if a change breaks a rule.
    """
    given = {key: value for key, value in changes.items() if value is not None}
    return parse(SearchConfig, {**config.model_dump(), **given}, "the options of the search")


def search(
    run: Run,
    supernet: Supernet,
    costs: Costs,
    budget: Budget,
    feasible: FeasibleSet,
    config: SearchConfig,
    *,
    device: torch.device,
    address: str | None = None,
    out: Path | None = None,
    seed: int | None = None,
    listener: SearchListener | None = None,
    accept_changed_data: bool = False,
    init: Path | None = None,
) -> list[Candidate]:
    """Search a run's supernet for the best arch within a budget; return all candidates, best first.

    Results are in `<run>/search`; an interrupted search continues where it was.

    Args:
        run: the run; gives data and seed.
        supernet: its trained supernet, on the device.
        costs: of the supernet's archs (see `search_costs`); candidates are evaluated with their sharing.
        budget: bounds on what an arch costs.
        feasible: the archs within them (see `Budget.feasible`).
        config: settings.
        device: where candidates are evaluated.
        address: a Ray cluster; None: a local Ray.
        out: another folder for the results.
        seed: of the search; None: the run's.
        listener: notified of every candidate.
        accept_changed_data: continue if the data changed since the run began.
        init: the folder of another search of the same supernet, which this one begins with.

    Raises:
        UserError: if the device lacks the precision, the data changed, `init` does not fit, the folder holds another
            search, another process searches there, an objective does not exist, a race has too few images, or no
            candidate keeps a bound on latency when it is measured.
    """
    check_precision(config.precision, device)
    objectives = Objectives(Objective.of(supernet.tasks), config.maximize, config.minimize)
    start = run.experiment.seed if seed is None else seed
    searcher = make_searcher(config, feasible, derive_seed(start, "search"))
    data = run.open_data(accept_changed=accept_changed_data)
    files = run.search_files if out is None else SearchFiles(out)
    compared = {name: item.search_images(config.images) for name, item in data.items()}
    journal = Journal(files.journal)
    confirm: Callable[[Sequence[Candidate]], list[Candidate]] = list
    if costs.timing is not None:
        networks = Networks(run.experiment.space, run.tasks, run.path)
        limits = {task: int(limit) for task, limit in budget.latency.items()}
        confirm = Confirmation(networks, costs.timing, limits, journal)
    plain = {name: item.recalibration_images(config.recalibration_images) for name, item in data.items()}
    blocks = {name: images.blocks(BLOCKS) for name, images in compared.items()} if config.race else None
    needed = objectives.figures
    with (
        held(files.folder),
        make_pool(config, supernet, costs.sharing, compared, plain, device, address, needed, blocks) as pool,
    ):
        if costs.timing is not None and not files.journal.is_file():
            costs.timing.write(files.latency)
        ranked = run_search(
            supernet,
            searcher,
            pool,
            objectives,
            costs,
            budget,
            journal,
            ResultFiles(files.candidates, files.best),
            listener,
            run.train_identity,
            None if init is None else SearchFiles(init).journal,
            confirm,
        )
        if len(objectives.names) > 1:
            Front(run, out).write()
        return ranked
