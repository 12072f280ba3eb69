"""Time to get the networks of a fresh arch for all tasks: lent, and built anew as 0.1.0 did, in one run.

CPU time of the process, one thread, medians over fresh archs, the two ways alternating. Tasks are those of the
experiment `vit_mvt`. The first lending of a task learns what its networks are made of; that is timed apart.

    PYTHONPATH=. python benchmarks/lending.py [--only vit_mvt_small] [--archs 20]
"""

import argparse
import statistics
import time
from collections.abc import Callable

import numpy as np
import torch

from benchmarks.anew import subnet_anew
from benchmarks.networks import convnext_atto, resnet50
from nasmvt.pipeline.profile_subject import find_subject
from nasmvt.resources import shipped
from nasmvt.space import Arch, SearchSpace, load_space
from nasmvt.supernet import Supernet
from nasmvt.tasks.network import TaskNetwork

SMALL = [name for name in shipped("search_spaces") if name.endswith("_small")]
OTHERS: dict[str, Callable[[], SearchSpace]] = {"convnext_atto": convnext_atto, "resnet50": resnet50}


def measured(job: Callable[[], object]) -> float:
    """Return the CPU milliseconds of a job; what it returns is let go of outside of the time."""
    started = time.process_time()
    kept = job()
    taken = 1000 * (time.process_time() - started)
    del kept
    return taken


def lend(supernet: Supernet, arch: Arch) -> list[TaskNetwork]:
    """Lend the networks of a step, for which sharing is decided once."""
    sharing = supernet.sharing()
    return [supernet.subnet(arch, task, sharing) for task in supernet.tasks]


def compare(name: str, archs: int) -> None:
    space = OTHERS[name]() if name in OTHERS else load_space(name)
    tasks = find_subject("vit_mvt_small", "largest").tasks
    supernet = Supernet(space, tasks)
    learning = measured(lambda: [supernet.subnet(space.smallest, task) for task in tasks])
    rng = np.random.default_rng(0)
    lent, anew = [], []
    for number in range(archs):
        arch = space.sample(rng)
        ways = [
            (lent, lambda arch=arch: lend(supernet, arch)),
            (anew, lambda arch=arch: [subnet_anew(supernet, arch, task, skeleton=True) for task in tasks]),
        ]
        for times, way in ways if number % 2 else reversed(ways):
            times.append(measured(way))
    new, old = statistics.median(lent), statistics.median(anew)
    reasons = {lender.opaque for lender in supernet.lenders.values()} - {None}
    print(
        f"{name}: {new:.1f} ms lent (10 % to 90 %: {np.percentile(lent, 10):.1f} to {np.percentile(lent, 90):.1f}), "
        f"{old:.1f} ms anew, {old / new:.1f} times; learned in {learning / 1000:.1f} s"
        + "".join(f"; built anew: {reason}" for reason in reasons),
        flush=True,
    )


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--only", nargs="+", default=[*SMALL, *OTHERS])
    arguments.add_argument("--archs", type=int, default=20)
    given = arguments.parse_args()
    torch.set_num_threads(1)
    print(f"networks of a fresh arch for three tasks, medians of {given.archs} archs")
    for name in given.only:
        compare(name, given.archs)


if __name__ == "__main__":
    main()
