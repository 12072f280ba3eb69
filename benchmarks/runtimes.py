"""An exported model by runtime: images per second, one thread, and with --val the first metric of every task on val.

Runtimes take turns, call by call, and the processor time of a call counts, whatever else the machine does.
`static` is PyTorch with the detections of static shapes that every other runtime computes.

    python -m nasmvt export FOLDER --onnx --int8 --aoti
    python benchmarks/runtimes.py FOLDER [--runtimes torch static compiled onnx int8 aoti] [--batches 1 8] [--val]
"""

import argparse
import statistics
import time
from collections.abc import Mapping
from pathlib import Path

import torch

from nasmvt.data.eval_set import EvalSet
from nasmvt.export.loading import load
from nasmvt.export.runtimes import RuntimeNetwork
from nasmvt.export.tracing import StaticNetwork
from nasmvt.pipeline.evaluate import data_configs, data_of
from nasmvt.tasks.evaluate import evaluate
from nasmvt.tasks.network import TaskNetwork, whole_infos
from nasmvt.tasks.task import Task

WARM_UP = 3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="exported folder with the files of the runtimes")
    parser.add_argument("--runtimes", nargs="+", default=["torch", "static", "compiled", "onnx", "int8", "aoti"])
    parser.add_argument("--tasks", nargs="+", help="default: all")
    parser.add_argument("--batches", nargs="+", type=int, default=[1, 8])
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--val", action="store_true", help="measure the tasks' first metrics too")
    given = parser.parse_args()
    torch.set_num_threads(1)
    loaded = load(given.folder)
    data = data_of(loaded, data_configs(loaded, ())) if given.val else {}
    print(f"{'task':8} {'runtime':9} " + " ".join(f"{f'batch {size}':>9}" for size in given.batches) + "  images/s")
    for name in given.tasks or loaded.tasks:
        task = loaded.model.tasks[name]
        networks = {runtime: served(given.folder, runtime, name) for runtime in given.runtimes}
        speeds = [speed(networks, task.nominal_size, size, given.rounds) for size in given.batches]
        for runtime, network in networks.items():
            columns = " ".join(f"{found[runtime]:9.1f}" for found in speeds)
            figure = metric(network, task, data[name].val_images()) if given.val else ""
            print(f"{name:8} {runtime:9} {columns}  {figure}", flush=True)


def served(folder: Path, runtime: str, name: str) -> TaskNetwork:
    """Return a task on a runtime."""
    network = load(folder, "torch" if runtime == "static" else runtime, tasks=[name], threads=1).networks[name].eval()
    if runtime != "static":
        return network
    program = StaticNetwork(network)
    return RuntimeNetwork(network, lambda inputs: program(**inputs), None)


def speed(networks: Mapping[str, TaskNetwork], canvas: tuple[int, int], batch: int, rounds: int) -> dict[str, float]:
    """Return the images per second of each network on random images, by the median call."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (batch, 3, *canvas), generator=generator, dtype=torch.uint8)
    infos = whole_infos(images)
    seconds: dict[str, list[float]] = {runtime: [] for runtime in networks}
    with torch.inference_mode():
        for _ in range(WARM_UP + rounds):
            for runtime, network in networks.items():
                start = time.process_time()
                network.outputs(images, infos)
                seconds[runtime].append(time.process_time() - start)
    return {runtime: batch / statistics.median(found[WARM_UP:]) for runtime, found in seconds.items()}


def metric(network: TaskNetwork, task: Task, images: EvalSet) -> str:
    """Return the first metric on val, and the processor time of measuring it."""
    start = time.process_time()
    found = evaluate(network, images, task, "cpu")
    return f"{task.primary} {found[task.primary]:.2f}, {time.process_time() - start:.1f} s"


if __name__ == "__main__":
    main()
