"""Candidates per minute of a search with no, one and two Ray workers, in one run.

Nano space, three tasks, the built-in data set; the supernet is untrained, which costs the same. The clock
starts when the pool is warm (one candidate evaluated per worker), as a search of hundreds of candidates
sees it. Rounds alternate between the pools, so that all see the same machine.

    python benchmarks/search_workers.py [--candidates 8] [--rounds 3]
"""

import argparse
import statistics
import time

import numpy as np
import torch

from nasmvt.pipeline.datasets import infos_of, open_data
from nasmvt.pipeline.experiment import load_experiment
from nasmvt.pipeline.search import with_settings
from nasmvt.pipeline.supernet import build_supernet
from nasmvt.search import EvaluationSetting, Pool, make_pool
from nasmvt.space import Arch


def evaluate(pool: Pool, archs: list[Arch], tasks: list[str]) -> float:
    """Evaluate archs on all tasks, the pool always full; return seconds."""
    units = [(arch, task) for arch in archs for task in tasks]
    started = time.perf_counter()
    while units or pool.pending:
        while units and pool.pending < pool.capacity:
            pool.submit(*units.pop(0))
        pool.result()
    return time.perf_counter() - started


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--candidates", type=int, default=8)
    arguments.add_argument("--rounds", type=int, default=3)
    given = arguments.parse_args()
    torch.set_num_threads(1)
    experiment = load_experiment()
    data = open_data(experiment)
    supernet = build_supernet(experiment, infos_of(data))
    batches = {name: item.search_images(experiment.search.images) for name, item in data.items()}
    plain = {name: item.recalibration_images(experiment.search.recalibration_images) for name, item in data.items()}
    setting = EvaluationSetting(sharing=supernet.sharing(), images=batches, recalibration=plain)
    rng = np.random.default_rng(0)
    tasks = list(supernet.tasks)
    archs = [experiment.space.sample(rng) for _ in range(given.candidates)]
    rates: dict[int, list[float]] = {0: [], 1: [], 2: []}
    for number in range(given.rounds):
        for workers in (0, 1, 2) if number % 2 else (2, 1, 0):
            with make_pool(with_settings(experiment.search, workers=workers), supernet, setting) as pool:
                evaluate(pool, archs[:1] * max(workers, 1), tasks)
                rates[workers].append(60 * len(archs) / evaluate(pool, archs, tasks))
            print(f"round {number + 1}, {workers} workers: {rates[workers][-1]:.1f} candidates per minute")
    median = {workers: statistics.median(found) for workers, found in rates.items()}
    print(
        "median candidates per minute:", ", ".join(f"{workers} workers {rate:.1f}" for workers, rate in median.items())
    )
    print(f"1 worker / in-process: {median[1] / median[0]:.2f}; 2 workers / 1 worker: {median[2] / median[1]:.2f}")


if __name__ == "__main__":
    main()
