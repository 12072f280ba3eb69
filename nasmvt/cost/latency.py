"""Measuring the time that a task network takes for an image on this machine."""

import time
from statistics import median

import torch

from nasmvt.seeding import seeded
from nasmvt.space import Arch, SearchSpace
from nasmvt.tasks.build import build_network
from nasmvt.tasks.task import Task

WARM_UP = 3
"""Passes before the first that is timed: they allocate memory and select kernels."""

REPEATS = 10
"""Timed passes."""


def measure_latency(
    space: SearchSpace,
    task: Task,
    arch: Arch,
    device: torch.device,
    *,
    warm_up: int = WARM_UP,
    repeats: int = REPEATS,
) -> float:
    """Measure the milliseconds that the network of an arch takes for one image of the task's size.

    The network has random weights, is in evaluation mode and sees the same random image every time. A detector
    works on the most regions that it keeps, without suppression and pooling (see `MaskRCNNHead.workload`).

    Args:
        space: the search space.
        task: the task.
        arch: the arch.
        device: where it runs.
        warm_up: passes before the first that is timed.
        repeats: passes that are timed; their median is returned.
    """
    with seeded(0, "latency"):
        network = build_network(space, task, arch).to(device).eval()
        images = torch.rand(1, 3, *task.size(space, arch)).to(device)
    times = []
    with torch.inference_mode():
        for _ in range(warm_up + repeats):
            start = _now(device)
            network.workload(images)
            times.append(_now(device) - start)
    return 1000 * median(times[warm_up:])


def _now(device: torch.device) -> float:
    """Return the time in seconds at which the device has done all that was asked of it."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()
