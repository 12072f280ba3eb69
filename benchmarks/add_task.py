"""What one task more costs and brings: python -m benchmarks.add_task FOLDER [SEED ...]

A classifier and a segmenter of `shapes_hard` are added to an exported model of the built-in data (that of `make demo`),
with each way to share, and compared on val with the same network trained alone from scratch, in as many steps. The
seed decides the division of the data, fresh weights and the order of images. Prints the largest difference of the old
tasks' outputs, the parameters that are added, and the metric.
"""

import json
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch.utils._pytree import tree_leaves

from nasmvt.config import parse
from nasmvt.cost import count_parameters
from nasmvt.export import load
from nasmvt.model import MultiTaskModel
from nasmvt.pipeline.add_task import Addition, add_task
from nasmvt.pipeline.datasets import TaskData
from nasmvt.pipeline.layout import TrainingFiles
from nasmvt.pipeline.stage import Stage
from nasmvt.seeding import derive_seed, seeded
from nasmvt.space import Sharing
from nasmvt.tasks.evaluate import evaluate
from nasmvt.tasks.task import Task

CPU = torch.device("cpu")
DATA = {"format": "shapes_hard", "image_size": 64, "train_images": 768, "val_images": 320, "search_fraction": 0.15}
MIXED = {"auto_augment": None, "crop_scale": 0.6, "erasing": 0, "mixup": 0, "cutmix": 0}
TASKS: dict[str, dict[str, Any]] = {
    "hard_cls": {"kind": "classification", "data": {**DATA, "augmentation": MIXED}, "batch_size": 24},
    "hard_seg": {
        "kind": "segmentation",
        "data": {**DATA, "augmentation": {"scale": [0.8, 1.25]}},
        "batch_size": 8,
        "head": {"channels": 32, "strides": [4, 8, 8, 16], "pool_scales": [1, 2, 4], "aux_channels": 16},
    },
}
TRAINING = {"steps": 140, "lr": 3.0e-3, "warmup_steps": 15, "recalibration_images": 48}
WAYS: dict[str, dict[str, Any]] = {
    "sharing: all": {"sharing": "all"},
    "sharing: learned": {},
    "sharing: none": {"sharing": "none"},
}


def outputs(model: MultiTaskModel, tasks: Mapping[str, Task]) -> dict[str, list[torch.Tensor]]:
    """Return what the networks of tasks compute of eight random images."""
    images = torch.rand(8, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    found = {}
    with torch.inference_mode():
        for name in tasks:
            network = model.task(name).eval()
            leaves = tree_leaves((network.maps(images), network.predict(images)))
            found[name] = [leaf for leaf in leaves if isinstance(leaf, torch.Tensor)]
    return found


def difference(before: Mapping[str, list[torch.Tensor]], after: Mapping[str, list[torch.Tensor]]) -> float:
    """Return the largest difference of outputs; infinity: they differ in shape."""
    pairs = [(a, b) for name in before for a, b in zip(before[name], after[name], strict=True)]
    if any(a.shape != b.shape for a, b in pairs):
        return float("inf")
    return max(float((a.double() - b.double()).abs().max()) for a, b in pairs if a.numel())


def on_val(model: MultiTaskModel, name: str, task: Task, seed: int) -> float:
    """Return the first metric of a task on val, in percent."""
    data = TaskData(name, task.config, seed)
    return next(iter(evaluate(model.task(name).eval(), data.val_images(), task, "cpu").values()))


def alone(base: MultiTaskModel, name: str, task: Task, seed: int, folder: Path) -> tuple[int, float]:
    """Return the parameters and the metric of a network of the model's arch that is trained for the task alone."""
    data = {name: TaskData(name, task.config, seed)}
    with seeded(seed, "alone", name):
        model = MultiTaskModel.fresh(base.space, {name: task}, base.arch, Sharing.of({}))
    order = derive_seed(seed, "added task", name)
    training = parse(Addition, {"tasks": {name: TASKS[name]}, "training": TRAINING}, name).training
    Stage(files=TrainingFiles(folder), config=training, seed=order, data=data, device=CPU).run(model)
    count = count_parameters(model.space, model.tasks, model.arch, model.sharing).total
    return count, on_val(model, name, task, seed)


def main() -> None:
    """Print a row for each way, task and seed."""
    source, seeds = Path(sys.argv[1]), [int(seed) for seed in sys.argv[2:]] or [0]
    print(f"{'task':10} {'seed':>4} {'way':18} {'old outputs differ by':>21} {'added':>8} {'metric':>7}")
    for seed in seeds:
        for name in TASKS:
            with TemporaryDirectory() as scratch:
                folder = Path(scratch)
                model = folder / "model"
                shutil.copytree(source, model)
                config = json.loads((model / "config.json").read_text())
                (model / "config.json").write_text(json.dumps({**config, "seed": seed}))
                base = load(model).model
                before = outputs(base, base.tasks)
                for way, settings in WAYS.items():
                    values = {"tasks": {name: TASKS[name]}, "training": TRAINING, **settings}
                    out = folder / way.split()[-1]
                    added = add_task(model, parse(Addition, values, name), out=out, device=CPU)
                    whole = load(out).model
                    off = difference(before, outputs(whole, base.tasks))
                    count, metric = added.after.total - added.before.total, on_val(whole, name, whole.tasks[name], seed)
                    print(f"{name:10} {seed:4} {way:18} {off:21g} {count:8} {metric:7.2f}", flush=True)
                count, metric = alone(base, name, whole.tasks[name], seed, folder / "alone")
                print(f"{name:10} {seed:4} {'alone':18} {'':21} {count:8} {metric:7.2f}", flush=True)


if __name__ == "__main__":
    main()
