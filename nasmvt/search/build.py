"""From settings to a searcher and a pool."""

from math import ceil

import torch

from nasmvt.cost import FeasibleSet
from nasmvt.errors import UserError, listed
from nasmvt.search.config import SearchConfig
from nasmvt.search.evaluator import EvaluationSetting, Evaluator
from nasmvt.search.objective import SCORE
from nasmvt.search.pool import InProcessPool, Pool
from nasmvt.search.searcher import Searcher
from nasmvt.search.strategies import SEARCHERS
from nasmvt.search.workers import WorkerRange
from nasmvt.supernet import Supernet


def make_searcher(config: SearchConfig, feasible: FeasibleSet, seed: int) -> Searcher:
    """Return the searcher of the settings.

    Raises:
        UserError: if they name several objectives, and the algorithm seeks one; or a race, and it makes none.
    """
    algorithm = SEARCHERS.get(config.algorithm)
    objectives = [*config.maximize, *config.minimize]
    if len(objectives) > 1 and not algorithm.several_objectives:
        raise UserError(
            f"{config.algorithm} ranks by one number, but the objectives are {listed(objectives)}: use --algorithm "
            "nsga2, or bound the costs instead of minimizing them"
        )
    searcher = algorithm(feasible, config, seed)
    if config.race and (searcher.kept is None or objectives != [SCORE]):
        raise UserError(
            f"a race compares T-scores, for evolution or random, but {config.algorithm} is to find "
            f"{listed(objectives)}: leave out --race, or search for the T-score with one of them"
        )
    return searcher


def make_pool(config: SearchConfig, supernet: Supernet, setting: EvaluationSetting, address: str | None = None) -> Pool:
    """Return the pool of the settings: in this process without workers, else on Ray.

    Args:
        config: number and size of the workers.
        supernet: the trained weights.
        setting: how candidates are evaluated.
        address: a Ray cluster; None: a local Ray.

    Raises:
        UserError: if a metric has no such value, there is an address but no worker, or Ray is missing, can't be reached
            or has too few CPUs or GPUs.
    """
    if config.workers == 0:
        if address is not None:
            raise UserError(
                f"a Ray cluster evaluates with workers, but there are none for {address}: give their "
                "number (--workers), or leave the address out"
            )
        return InProcessPool(Evaluator(supernet, setting), config.cpus_per_worker)
    from nasmvt.search.ray_pool import RayPool
    from nasmvt.search.recipe import Recipe

    return RayPool(
        Recipe.of(supernet, setting),
        config.workers,
        address=address,
        cpus_per_worker=config.cpus_per_worker,
        gpus_per_worker=_gpus(config, torch.device(setting.device), address),
    )


def _gpus(config: SearchConfig, device: torch.device, address: str | None) -> float:
    if device.type != "cuda":
        return 0.0
    if config.gpus_per_worker is not None:
        return config.gpus_per_worker
    if address is not None:
        return 1.0
    workers = config.workers.max if isinstance(config.workers, WorkerRange) else config.workers
    return 1 / ceil(workers / torch.cuda.device_count())
