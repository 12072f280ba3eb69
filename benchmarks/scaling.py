"""What a step of an experiment sends between processes, and what a checkpoint holds; counted, no weights are needed.

python benchmarks/scaling.py [EXPERIMENT] [GIGABYTES PER SECOND]
"""

import sys

import numpy as np
import torch

from nasmvt.cost import Costs
from nasmvt.data.types import DataInfo
from nasmvt.pipeline.experiment import load_experiment
from nasmvt.pipeline.run import make_tasks
from nasmvt.supernet import Supernet

CLASSES = {"classification": 1000, "detection": 80, "segmentation": 150}
ARCHS = 200
PROCESSES = (1, 8, 64, 1000)


def main() -> None:
    name = sys.argv[1] if len(sys.argv) > 1 else "vit_mvt"
    speed = float(sys.argv[2]) if len(sys.argv) > 2 else 12.5
    experiment = load_experiment(name)
    infos = {
        task: DataInfo(
            kind=config.kind,
            classes=tuple(map(str, range(CLASSES[config.kind]))),
            has_masks=config.kind == "detection",
        )
        for task, config in experiment.tasks.items()
    }
    tasks = make_tasks(experiment, infos)
    with torch.device("meta"):
        supernet = Supernet(experiment.space, tasks, experiment.supernet)
    stored = sum(parameter.numel() for parameter in supernet.parameters())
    statistics = sum(buffer.numel() for buffer in supernet.buffers() if buffer.is_floating_point())
    print(
        f"{name}: stored parameters {stored:,}; a checkpoint with two numbers each of state: {stored * 12 / 1e9:.2f} GB"
    )
    for rule in ("all", "none"):
        costs = Costs(experiment.space, tasks, supernet.sharing(rule))
        rng = np.random.default_rng(0)
        touched = np.mean([costs.parameters(experiment.space.sample(rng)).total for _ in range(ARCHS)])
        sent = touched * 4 + statistics * 8
        times = ", ".join(f"{count}: {2 * (count - 1) / count * sent / speed / 1e9 * 1e3:.0f}" for count in PROCESSES)
        print(f"layers shared: {rule}; summed in a step {sent / 1e6:.0f} MB (mean of {ARCHS} archs)")
        print(f"  milliseconds of a ring at {speed:g} GB/s by number of processes: {times}")


if __name__ == "__main__":
    main()
