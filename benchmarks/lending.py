"""Time to get the networks of a fresh arch for all tasks: lent for a step, lent to keep, built anew as 0.1.0 did.

CPU time of the process, one thread, medians over fresh archs, the ways shuffled for each of them. Tasks are those of
the experiment `vit_mvt`. The first lending of a task learns what its networks are made of; that is timed apart. The
archs that come next are not counted: they make modules that all later steps use again.

    PYTHONPATH=. python benchmarks/lending.py [--only vit_mvt_small] [--archs 20]
"""

import argparse
import random
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
WARM_UP = 100
OTHERS: dict[str, Callable[[], SearchSpace]] = {"convnext_atto": convnext_atto, "resnet50": resnet50}


def measured(lend: Callable[[], list[TaskNetwork]]) -> float:
    """Return the CPU milliseconds that lending takes; a backward pass, outside of the time, gives the networks back."""
    started = time.process_time()
    networks = lend()
    taken = 1000 * (time.process_time() - started)
    for network in networks:
        torch.stack([parameter.sum() for parameter in network.parameters()]).sum().backward()
    return taken


def for_step(supernet: Supernet, arch: Arch) -> list[TaskNetwork]:
    """Lend the networks of a training step, for which sharing is decided once."""
    sharing = supernet.sharing()
    return [lender.lend_for_step(arch, sharing) for lender in supernet.lenders.values()]


def to_keep(supernet: Supernet, arch: Arch) -> list[TaskNetwork]:
    """Lend new networks."""
    sharing = supernet.sharing()
    return [supernet.subnet(arch, task, sharing) for task in supernet.tasks]


def built(supernet: Supernet, arch: Arch) -> list[TaskNetwork]:
    """Lend networks that are built anew."""
    return [subnet_anew(supernet, arch, task, skeleton=True) for task in supernet.tasks]


WAYS = for_step, to_keep, built


def compare(name: str, archs: int) -> None:
    space = OTHERS[name]() if name in OTHERS else load_space(name)
    tasks = find_subject("vit_mvt_small", "largest").tasks
    supernet = Supernet(space, tasks)
    learning = measured(lambda: for_step(supernet, space.smallest))
    rng = np.random.default_rng(0)
    times: dict[str, list[float]] = {way.__name__: [] for way in WAYS}
    for _ in range(WARM_UP):
        measured(lambda: for_step(supernet, space.sample(rng)))
    for number in range(archs):
        arch = space.sample(rng)
        for way in random.Random(number).sample(WAYS, len(WAYS)):
            times[way.__name__].append(measured(lambda way=way, arch=arch: way(supernet, arch)))  # type: ignore[misc]
    step, keep, old = (statistics.median(times[way.__name__]) for way in WAYS)
    least, most = np.percentile(times["for_step"], [10, 90])
    reasons = {lender.opaque for lender in supernet.lenders.values()} - {None}
    print(
        f"{name}: for a step {step:.1f} ms (10 % to 90 %: {least:.1f} to {most:.1f}), {old / step:.1f} times faster "
        f"than anew ({old:.1f} ms); to keep {keep:.1f} ms, {old / keep:.1f} times; learned in {learning / 1000:.1f} s"
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
