"""Time of a supernet training step over the same step of the standalone subnet.

Small space, classification at 224 px, one thread. Both do forward, loss and backward of the same
subnet; the supernet's step includes building or fetching the skeleton and binding views. Steps alternate,
so that both see the same machine.

    python benchmarks/supernet_step.py [--batch 4] [--rounds 12]
"""

import argparse
import statistics
import time
from collections.abc import Callable

import numpy as np
import torch

from nasmvt.config import parse
from nasmvt.data import DataInfo
from nasmvt.seeding import seeded
from nasmvt.space import load_space
from nasmvt.supernet import Supernet
from nasmvt.tasks.config import TaskConfig
from nasmvt.tasks.network import TaskNetwork
from nasmvt.tasks.task import Task


def classification(name: str) -> Task:
    config = parse(TaskConfig, {"kind": "classification", "data": {"image_size": 224}}, "benchmark")
    info = DataInfo(kind="classification", classes=tuple(f"class {i}" for i in range(1000)))
    return Task(name=name, config=config, info=info)


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--space", default="vit_mvt_small")
    arguments.add_argument("--batch", type=int, default=4)
    arguments.add_argument("--rounds", type=int, default=12)
    given = arguments.parse_args()
    torch.set_num_threads(1)
    space = load_space(given.space)
    tasks = {name: classification(name) for name in ("one", "two")}  # two, so that layers are adaptive
    with seeded("benchmark"):
        supernet = Supernet(space, tasks)
        images = torch.rand(given.batch, 3, 224, 224)
        targets = torch.randint(0, 1000, (given.batch,))
    rng = np.random.default_rng(0)

    def step(network: Callable[[], TaskNetwork], module: torch.nn.Module) -> float:
        module.zero_grad(set_to_none=True)
        started = time.perf_counter()
        with seeded("step"):
            sum(network().train().loss(images, targets).values()).backward()
        return time.perf_counter() - started

    ratios = []
    for number in range(given.rounds + 1):
        arch = space.sample(rng)
        standalone = supernet.materialize(arch, tasks=("one",)).task("one")
        pair = {
            "standalone": lambda network=standalone: step(lambda: network, network),
            "supernet": lambda arch=arch: step(lambda: supernet.subnet(arch, "one"), supernet),
        }
        order = ["standalone", "supernet"] if number % 2 else ["supernet", "standalone"]
        seconds = {name: pair[name]() for name in order}
        if number:  # the first round warms up
            ratios.append(seconds["supernet"] / seconds["standalone"])
            print(f"standalone {seconds['standalone']:.3f} s, supernet {seconds['supernet']:.3f} s, {ratios[-1]:.3f}")
    print(f"supernet step / standalone step: median {statistics.median(ratios):.3f} of {len(ratios)} rounds")


if __name__ == "__main__":
    main()
