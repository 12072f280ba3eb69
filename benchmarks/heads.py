"""What each dense head reaches in short trainings, a task at a time, on the built-in data and on small real data.

    python -m benchmarks.heads nano --out runs/heads
    python -m benchmarks.heads real --out runs/real_heads --steps 100 --tasks retinanet segformer

`nano` searches around each head of `experiments/shapes_heads.yaml` and compares what it finds with the smallest, the
largest and a random arch, all retrained alike. `real` trains each head of `experiments/real_heads.yaml` on the
published network. Rows are printed as they come; what a run directory has already is not done again.
"""

import argparse
import time
from collections.abc import Iterator
from pathlib import Path

import torch

from nasmvt.api import compare, search, train_supernet
from nasmvt.config import parse
from nasmvt.pipeline.evaluate import evaluate_on_val
from nasmvt.pipeline.experiment import Experiment, load_experiment
from nasmvt.pipeline.run import Run
from nasmvt.pipeline.supernet import load_supernet
from nasmvt.space import SearchSpace
from nasmvt.tasks import TaskNetwork

SOURCES = {"nano": "shapes_heads", "real": "real_heads"}


def alone(experiment: Experiment, task: str) -> Experiment:
    """Return an experiment with one of its tasks."""
    return experiment.model_copy(update={"name": f"{experiment.name}-{task}", "tasks": {task: experiment.tasks[task]}})


def published(space: SearchSpace) -> SearchSpace:
    """Return the space whose only arch is the published one."""
    values, arch = space.model_dump(), space.archs["published"]
    for name, choice in values["choices"].items():
        value = arch[name]
        choice["options"] = [value[0] if isinstance(value, (list, tuple)) else value]
    return parse(SearchSpace, {**values, "archs": {}}, space.name)


def trained(experiment: Experiment, folder: Path) -> Run:
    """Train a supernet in a folder, or go on with it."""
    if not folder.exists():
        return train_supernet(experiment, out=folder)
    return train_supernet(out=folder, resume=True)


def nano(experiment: Experiment, task: str, folder: Path) -> Iterator[str]:
    """Yield a row per compared arch: its task, its name, millions of parameters, the primary figure."""
    run = trained(alone(experiment, task), folder)
    search(run, workers=0)
    for found in compare(run):
        yield f"| {task} | {found.name} | {found.parameters.total / 1e6:.3f} | {found.score:.1f} |"


def real(experiment: Experiment, task: str, folder: Path) -> Iterator[str]:
    """Yield the row of a head: its figures on val, millions of parameters, milliseconds per image on one thread."""
    single = alone(experiment, task).model_copy(update={"space": published(experiment.space)})
    run = trained(single, folder)
    model = load_supernet(run, torch.device("cpu")).materialize(single.space.largest)
    data = run.open_data()
    figures = evaluate_on_val(model, data, torch.device("cpu"))[task]
    network = model.task(task)
    count = sum(parameter.numel() for parameter in network.parameters()) / 1e6
    shown = ", ".join(f"{name} {value:.1f}" for name, value in figures.items())
    yield f"| {task} | {shown} | {count:.2f} | {milliseconds(network, data[task].config.data.image_size):.0f} |"


def milliseconds(network: TaskNetwork, size: tuple[int, int], repeats: int = 20) -> float:
    """Return the least time of a prediction of one image."""
    images, times = torch.randint(0, 256, (1, 3, *size), dtype=torch.uint8), []
    for _ in range(repeats):
        start = time.process_time()
        network.predict(images)
        times.append(time.process_time() - start)
    return 1000 * min(times)


def main() -> None:
    """Print the table that is asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("table", choices=SOURCES)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, help="of every training; default: the experiment's")
    parser.add_argument("--tasks", nargs="*", help="default: all of the table's heads")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    torch.set_num_threads(1)
    keys = ("training.steps", "training.evaluate_every", "retrain.steps") if given.steps else ()
    changes = [f"{key}={given.steps}" for key in keys]
    experiment = load_experiment(SOURCES[given.table], changes, given.seed)
    for task in given.tasks or [name for name in experiment.tasks if name != "cls"]:
        rows = {"nano": nano, "real": real}[given.table](experiment, task, given.out / f"{task}-{given.seed}")
        for row in rows:
            print(row, flush=True)


if __name__ == "__main__":
    main()
