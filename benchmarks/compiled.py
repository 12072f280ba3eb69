"""What `torch.compile` gives and costs: a chosen network's training step and prediction; a supernet's changing archs.

Classification, one thread, CPU time. The compiled network takes turns with the plain one. Compiling takes the time of
the first step and of the first prediction, the C++ compiler's included.

    PYTHONPATH=. python benchmarks/compiled.py [SPACE ...] [--side 64] [--batch 16] [--rounds 10] [--archs 3]

With `--backend eager` the networks are traced alone, which shows in seconds that they can be compiled.
"""

import argparse
import copy
import os
import statistics
import time
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from benchmarks.supernet_step import classification, total
from nasmvt.seeding import seeded
from nasmvt.space import load_space
from nasmvt.supernet import Supernet
from nasmvt.tasks.compiled import compile_network
from nasmvt.tasks.network import TaskNetwork


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("spaces", nargs="*", default=["vit_mvt_nano", "vit_mvt_mini"])
    parser.add_argument("--side", type=int, default=64, help="height and width of images in pixels")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--archs", type=int, default=3, help="how many random archs of a supernet are compiled")
    parser.add_argument("--backend", default="inductor", help="of torch.compile")
    given = parser.parse_args()
    os.environ["TORCHINDUCTOR_FORCE_DISABLE_CACHES"] = "1"
    torch.set_num_threads(1)
    for name in given.spaces:
        measure(name, given.side, given.batch, given.rounds, given.archs, given.backend)


def measure(name: str, side: int, batch: int, rounds: int, archs: int, backend: str) -> None:
    """Print the figures of a space."""
    space = load_space(name)
    with seeded("benchmark"):
        images, targets = torch.rand(batch, 3, side, side), torch.randint(0, 1000, (batch,))
        supernet = Supernet(space, {"cls": classification("cls", side)})
    rng = np.random.default_rng(0)

    def step(network: TaskNetwork) -> Callable[[], object]:
        return lambda: backward(network, images, targets)

    def prediction(network: TaskNetwork) -> Callable[[], object]:
        return lambda: network.predict(images)

    for number in range(archs):
        plain = supernet.materialize(space.sample(rng)).task("cls").train()
        fast = copy.deepcopy(plain)
        compile_network(fast, backend)
        for what, make in (("training step", step), ("prediction", prediction)):
            first = seconds(make(fast))
            if number:
                print(f"{name}, one arch more, {what}: {first:.1f} s", flush=True)
                continue
            found: dict[TaskNetwork, list[float]] = {plain: [], fast: []}
            for _ in range(rounds + 1):  # the first warms up
                for network in found:
                    found[network].append(seconds(make(network)))
            ratios = [a / b for a, b in zip(found[fast][1:], found[plain][1:], strict=True)]
            line = f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f}) of the plain one's "
            line += f"{statistics.median(found[plain][1:]) * 1e3:.0f} ms; compiling takes {first:.0f} s"
            print(f"{name}, {side} pixels, {what}: {line}", flush=True)
        torch.compiler.reset()


def backward(network: TaskNetwork, images: Tensor, targets: Tensor) -> None:
    network.zero_grad(set_to_none=True)
    with seeded("step"):
        total(network.loss(images, targets)).backward()


def seconds(action: Callable[[], object]) -> float:
    """Return the CPU seconds that an action takes, those of ended children included."""
    before = os.times()
    started = time.process_time()
    action()
    after = os.times()
    children = after.children_user + after.children_system - before.children_user - before.children_system
    return time.process_time() - started + children


if __name__ == "__main__":
    main()
