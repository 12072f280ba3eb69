"""Archs counted per second by tables and by building them, and whether both agree.

For every space: tables are derived, `--archs` random archs are counted by both, and the counts compared. Single thread;
tables and buildings are timed in one run, on the same archs.

    python benchmarks/count_archs.py [--spaces vit_mvt_small ...] [--archs 1000] [--experiment vit_mvt]
"""

import argparse
import time

import numpy as np
import torch

from nasmvt.cost import Budget, Costs, count_parameters
from nasmvt.cost.parameters import tensor_sizes
from nasmvt.families import family
from nasmvt.pipeline.profile import effective_roles, sharing_bounds
from nasmvt.pipeline.profile_subject import find_subject
from nasmvt.resources import shipped
from nasmvt.space import Sharing

SHARED = 0.5
"""Chance of a layer that can be shared to be shared, so that every kind of count is met."""


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--spaces", nargs="+", default=["vit_mvt_small"], help="names, or 'all'")
    arguments.add_argument("--archs", type=int, default=1000)
    arguments.add_argument("--counted", type=int, default=2_000_000, help="archs that the tables count at once")
    arguments.add_argument("--experiment", default="vit_mvt")
    given = arguments.parse_args()
    torch.set_num_threads(1)
    for name in shipped("search_spaces") if given.spaces == ["all"] else given.spaces:
        measure(name, given.archs, given.counted, given.experiment)


def measure(name: str, number: int, counted: int, experiment: str) -> None:
    """Print the figures of one space."""
    subject = find_subject(name, "largest", experiment=experiment)
    space, tasks = subject.space, subject.tasks
    rng = np.random.default_rng(0)
    sizes = {task: tensor_sizes(space, tasks[task], space.largest) for task in tasks}
    every, _ = sharing_bounds(sizes, effective_roles(sizes, space.layer_roles(family(space.family).roles)))
    sharing = Sharing.of({layer: names for layer, names in every.layers if rng.random() < SHARED})
    costs = Costs(space, tasks, sharing)
    started = time.perf_counter()
    totals = costs.totals
    derived = time.perf_counter() - started
    archs = [space.sample(rng) for _ in range(number)]
    started = time.perf_counter()
    built = [count_parameters(space, tasks, arch, sharing) for arch in archs]
    building = (time.perf_counter() - started) / number
    indices = np.resize(np.stack([space.encode(arch) for arch in archs]), (counted, len(space.slots)))
    totals(indices[:100_000])
    started = time.perf_counter()
    found = totals(indices)[:, 0]
    looking_up = (time.perf_counter() - started) / counted
    equal = all(costs.parameters(arch) == count for arch, count in zip(archs, built, strict=True))
    equal = equal and found[:number].tolist() == [count.total for count in built]
    smallest = int(costs.totals.of(space.smallest)[0])
    tight = Budget(int(smallest * 1.01)).feasible(costs)
    drawn = tight.sample_indices(10_000, rng)
    accepted = (totals(drawn)[:, 0] <= smallest * 1.01).mean()
    print(
        f"{name}: tables {1 / looking_up:,.0f} archs/s, building {1 / building:.1f} archs/s "
        f"(ratio {building / looking_up:,.0f}); derived in {derived:.1f} s; {number} archs "
        f"{'equal' if equal else 'DIFFER'}; 1 % above the minimum {tight.size:.4g} of {space.size:.4g} archs, "
        f"{accepted:.0%} of 10,000 draws within",
        flush=True,
    )


if __name__ == "__main__":
    main()
