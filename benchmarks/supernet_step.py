"""Time of a supernet training step over the same step of the standalone subnet.

Every round draws a fresh arch. Both do forward, loss and backward of the same subnet, classification, one thread; the
supernet's step includes lending it. Figures are CPU time of the process; the order is shuffled in every round. On the
convolutional networks NVIDIA ModelOpt, if it is installed, runs in the same rounds on its own search space of the same
network: its step over that of the subnet that it exports.

    PYTHONPATH=. python benchmarks/supernet_step.py [--only resnet50-224] [--rounds 10] [--batch 4]
"""

import argparse
import copy
import random
import statistics
import time
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from typing import Any

import numpy as np
import timm
import torch
from torch import Tensor, nn
from torchvision.models import resnet50 as torchvision_resnet50

from benchmarks.networks import convnext_atto, resnet50
from nasmvt.config import parse
from nasmvt.data import DataInfo
from nasmvt.seeding import seeded
from nasmvt.space import SearchSpace, load_space
from nasmvt.supernet import Supernet
from nasmvt.tasks.config import TaskConfig
from nasmvt.tasks.task import Task

Step = Callable[[], Tensor]
"""Computes a loss."""

CLASSES = 1000
WARM_UP = 100
"""Archs that are lent before anything is timed: a training learns early what its networks are made of."""

ROWS: dict[str, tuple[Callable[[], SearchSpace], int, Callable[[], nn.Module] | None]] = {
    "vit_mvt_small-224": (lambda: load_space("vit_mvt_small"), 224, None),
    "convnext_atto-224": (convnext_atto, 224, lambda: timm.create_model("convnext_atto")),
    "convnext_atto-64": (convnext_atto, 64, lambda: timm.create_model("convnext_atto")),
    "resnet50-224": (resnet50, 224, torchvision_resnet50),
    "resnet50-64": (resnet50, 64, torchvision_resnet50),
    "vit_mvt_nano-64": (lambda: load_space("vit_mvt_nano"), 64, None),
}
"""Space, image side in pixels, and the network that ModelOpt gets."""


class Ours:
    """A supernet, and a subnet of it as a network of its own."""

    def __init__(self, space: SearchSpace, images: Tensor, targets: Tensor) -> None:
        self.space, self.batch = space, (images, targets)
        side = images.shape[-1]
        self.supernet = Supernet(space, {name: classification(name, side) for name in ("one", "two")})
        self.rng = np.random.default_rng(0)
        for _ in range(WARM_UP):
            with torch.no_grad():
                self.supernet.lenders["one"].lend_for_step(space.sample(self.rng), self.supernet.sharing())

    def round(self) -> dict[str, tuple[nn.Module, Step]]:
        arch = self.space.sample(self.rng)
        standalone = self.supernet.materialize(arch, tasks=("one",)).task("one").train()
        return {
            "standalone": (standalone, lambda: total(standalone.loss(*self.batch))),
            "supernet": (self.supernet, lambda: total(self.supernet.network_for_step(arch, "one").loss(*self.batch))),
        }


class ModelOpt:
    """ModelOpt's search space of a network, and a subnet as it is exported."""

    def __init__(self, network: nn.Module, images: Tensor, targets: Tensor) -> None:
        import modelopt.torch.nas as mtn

        self.mtn: Any = mtn
        self.batch = images, targets
        self.network = mtn.convert(network, mode="autonas").train()

    def round(self) -> dict[str, tuple[nn.Module, Step]]:
        images, targets = self.batch
        loss = nn.functional.cross_entropy
        state = random.getstate()
        self.mtn.sample(self.network, sample_func=random.choice)
        standalone = self.mtn.export(copy.deepcopy(self.network)).train()

        def step() -> Tensor:
            random.setstate(state)
            self.mtn.sample(self.network, sample_func=random.choice)
            return loss(self.network(images), targets)

        return {
            "modelopt standalone": (standalone, lambda: loss(standalone(images), targets)),
            "modelopt": (self.network, step),
        }


def classification(name: str, side: int) -> Task:
    config = parse(TaskConfig, {"kind": "classification", "data": {"image_size": side}}, "benchmark")
    info = DataInfo(kind="classification", classes=tuple(f"class {i}" for i in range(CLASSES)))
    return Task(name=name, config=config, info=info)


def total(losses: Mapping[str, Tensor]) -> Tensor:
    return torch.stack(list(losses.values())).sum()


def measured(module: nn.Module, step: Step) -> float:
    """Return the CPU seconds of a step."""
    module.zero_grad(set_to_none=True)
    started = time.process_time()
    with seeded("step"):
        step().backward()
    return time.process_time() - started


def compare(name: str, rounds: int, batch: int) -> None:
    make_space, side, other = ROWS[name]
    with seeded("benchmark"):
        images, targets = torch.rand(batch, 3, side, side), torch.randint(0, CLASSES, (batch,))
        contenders: list[Ours | ModelOpt] = [Ours(make_space(), images, targets)]
        if other is not None and find_spec("modelopt"):
            contenders.append(ModelOpt(other(), images, targets))
    seconds: dict[str, list[float]] = {}
    for number in range(rounds + 1):
        steps = {key: value for contender in contenders for key, value in contender.round().items()}
        order = list(steps)
        random.Random(number).shuffle(order)
        for key in order:
            taken = measured(*steps[key])
            if number:  # the first round warms up
                seconds.setdefault(key, []).append(taken)
    line = f"{name}: {ratio(seconds, 'supernet', 'standalone')}"
    if "modelopt" in seconds:
        line += f"; ModelOpt {ratio(seconds, 'modelopt', 'modelopt standalone')}"
    elif other is not None:
        line += "; ModelOpt is not installed"
    print(line, flush=True)


def ratio(seconds: Mapping[str, list[float]], one: str, other: str) -> str:
    ratios = [a / b for a, b in zip(seconds[one], seconds[other], strict=True)]
    return (
        f"{statistics.median(ratios):.3f} ({min(ratios):.3f} to {max(ratios):.3f}; "
        f"{statistics.median(seconds[one]):.3f} s over {statistics.median(seconds[other]):.3f} s)"
    )


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--only", choices=list(ROWS), nargs="+", default=list(ROWS))
    arguments.add_argument("--batch", type=int, default=4)
    arguments.add_argument("--rounds", type=int, default=10)
    given = arguments.parse_args()
    torch.set_num_threads(1)
    print("supernet step / standalone step, CPU time, medians (least to most)")
    for name in given.only:
        compare(name, given.rounds, given.batch)


if __name__ == "__main__":
    main()
