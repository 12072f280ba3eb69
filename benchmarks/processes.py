"""Two processes of one thread against one: speed, equality, and a `kill -9` of one of them. On the CPU, by gloo.

    PYTHONPATH=. python benchmarks/processes.py speed     # steps per second, and the share of the sums over processes
    PYTHONPATH=. python benchmarks/processes.py equal     # weights after 20 steps, against one process and one part
    PYTHONPATH=. python benchmarks/processes.py killed    # by torchrun and by Ray Train, resumed on two and on one

`speed` trains the demo's experiment (`shapes`, nano space), the two numbers of processes in turns; the figure is the
median of the rounds' ratios. `apart` is what no exchange could exceed: two processes that know nothing of each other,
side by side, each with half of the images. `equal` and `killed` train an LVT without BatchNorm whose losses are means
over images.
"""

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import torch
import yaml
from torch import Tensor

from nasmvt.pipeline.datasets import infos_of, open_data
from nasmvt.pipeline.experiment import load_experiment
from nasmvt.pipeline.supernet import build_supernet
from nasmvt.training import Trainer
from nasmvt.training.checkpoint import Checkpoint, Checkpoints
from nasmvt.training.metrics import MetricsLog
from nasmvt.training.processes import Processes, joined
from tests.training.equal_parts import SPACE, TASKS, difference, in_order, make
from tests.training.group import together

TORCHRUN = (sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--max-restarts", "2")
WARM_UP = 5
"""Steps before the clock starts."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["speed", "equal", "killed", "timed"], help="timed: one side of speed")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--half", action="store_true", help="timed: with half of the images of a step")
    given = parser.parse_args()
    torch.set_num_threads(1)
    if given.what == "timed":
        timed(given.steps, given.half)
    elif given.what == "speed":
        speed(given.rounds, given.steps)
    elif given.what == "equal":
        equal()
    else:
        killed()


# -- speed ----------------------------------------------------------------------------------------


def speed(rounds: int, steps: int) -> None:
    """Print how many times faster two processes are."""
    own = [__file__, "timed", "--steps", str(steps)]
    alone = [sys.executable, *own]
    sides = {"one": [alone], "two": [[*TORCHRUN, *own]], "apart": [[*alone, "--half"]] * 2}
    found: dict[str, list[dict[str, float]]] = {side: [] for side in sides}
    for _ in range(rounds):
        for side, commands in sides.items():
            found[side].append(min(at_once(commands), key=lambda one: one["speed"]))
        print(
            {side: {name: round(value, 3) for name, value in runs[-1].items()} for side, runs in found.items()},
            flush=True,
        )
    ratios = {
        side: [other["speed"] / one["speed"] for one, other in zip(found["one"], found[side], strict=True)]
        for side in ("two", "apart")
    }
    print(f"steps per second: {middle(found['one'], 'speed')} alone, {middle(found['two'], 'speed')} of two processes")
    for side, each in ratios.items():
        print(f"speed-up, {side}: {statistics.median(each):.2f} ({min(each):.2f} to {max(each):.2f}, {rounds} rounds)")
    print(f"sums over the processes, waiting included, share of a step: {middle(found['two'], 'exchange')}")
    print(f"waiting for images, share of a step: {middle(found['two'], 'data')}")


def at_once(commands: Sequence[Sequence[str]]) -> list[dict[str, float]]:
    """Run commands side by side; return what each prints last."""
    started = [subprocess.Popen(command, env=plain_environment(), stdout=subprocess.PIPE) for command in commands]
    said = [process.communicate()[0] for process in started]
    if any(process.returncode for process in started):
        raise SystemExit("a training failed")
    return [json.loads(text.splitlines()[-1]) for text in said]


def middle(found: Sequence[dict[str, float]], name: str) -> str:
    return f"{statistics.median(one[name] for one in found):.3f}"


def timed(steps: int, half: bool) -> None:
    """Train the demo's supernet in the processes that there are; print steps per second and shares as JSON."""
    changes = [f"training.steps={steps + WARM_UP}", "training.evaluate_every=null", f"training.log_every={steps}"]
    changes.append("training.checkpoint_every=100000")
    if half:
        tasks = load_experiment("shapes").tasks
        changes += [f"tasks.{name}.batch_size={task.batch_size // 2}" for name, task in tasks.items()]
    experiment = load_experiment("shapes", changes)
    with joined(torch.device("cpu")) as processes, tempfile.TemporaryDirectory(prefix="processes-") as folder:
        data = open_data(experiment)
        trainer = Trainer(
            build_supernet(experiment, infos_of(data)),
            {name: item.train_loader() for name, item in data.items()},
            experiment.training,
            seed=0,
            metrics=MetricsLog(Path(folder) / "metrics.jsonl"),
            checkpoints=Checkpoints(Path(folder) / "checkpoint.pt"),
            device=torch.device("cpu"),
            processes=processes,
        )
        spent = {"exchange": 0.0, "data": 0.0}
        processes.add_up = clocked(processes.add_up, spent, "exchange")  # type: ignore[method-assign]
        trainer._next = clocked(trainer._next, spent, "data")  # type: ignore[method-assign]
        clock = Clock(spent)
        trainer.listener = clock
        with mock.patch.object(trainer, "save"):
            trainer.run()
        if processes.first:
            print(json.dumps({"speed": steps / clock.seconds, **{k: v / clock.seconds for k, v in spent.items()}}))


class Clock:
    """Measures from the end of the warm-up to the last step."""

    def __init__(self, spent: dict[str, float]) -> None:
        self._spent = spent
        self.begun = self.seconds = 0.0

    def on_step(self, step: int, *values: Any) -> None:
        if step == WARM_UP:
            self.begun = time.perf_counter()
            self._spent.update(dict.fromkeys(self._spent, 0.0))
        self.seconds = time.perf_counter() - self.begun

    def on_evaluation(self, *values: Any) -> None:
        pass


def clocked(function: Callable[..., Any], spent: dict[str, float], name: str) -> Callable[..., Any]:
    """Return the function with the time it takes added to `spent`."""

    def call(*arguments: Any) -> Any:
        begun = time.perf_counter()
        result = function(*arguments)
        spent[name] += time.perf_counter() - begun
        return result

    return call


# -- equality -------------------------------------------------------------------------------------


def equal() -> None:
    """Print by how much the weights of differently divided trainings differ."""
    taught = {"sampling": "sandwich", "random_archs": 1, "distillation": {}}
    kinds: dict[str, dict[str, Any]] = {
        "SGD": {},
        "AdamW": {"optimizer": "adamw", "lr": 1e-3},
        "SGD, sandwich with distillation": taught,
    }
    print("worst difference of a weight over the largest weight, 20 steps; 2 processes, accumulate 2, against neither")
    with mock.patch("torch.randperm", in_order), tempfile.TemporaryDirectory(prefix="processes-") as folder:
        for number, (name, settings) in enumerate(kinds.items()):
            whole = weights(None, Path(folder) / f"{number}one", settings)
            parts = weights(None, Path(folder) / f"{number}parts", {**settings, "accumulate": 2})
            first, second = together(2, weights, Path(folder) / f"{number}two", settings)
            alike = all(torch.equal(first[key], second[key]) for key in first)
            print(f"{name}: {difference(whole, first):.1e}, {difference(whole, parts):.1e}", end="")
            print(f"; the processes hold {'the same' if alike else 'DIFFERENT'} weights", flush=True)


def weights(processes: Processes | None, folder: Path, settings: dict[str, Any]) -> dict[str, Tensor]:
    """Train; return the weights."""
    folder.mkdir(exist_ok=True)
    trainer = make(folder, **({} if processes is None else {"processes": processes}), **settings)
    trainer.run()
    return trainer.trainable.state_dict()  # type: ignore[no-any-return]


# -- kill -9 --------------------------------------------------------------------------------------


def killed() -> None:
    """Kill one of two processes, and compare what the others make of it with an undisturbed training."""
    with tempfile.TemporaryDirectory(prefix="processes-") as folder:
        root = Path(folder)
        training = {"steps": 24, "warmup_steps": 2, "checkpoint_every": 4, "log_every": 1, "evaluation_images": 2}
        values = {"name": "equal", "space": SPACE, "tasks": TASKS, "training": training}
        (root / "mine.yaml").write_text(yaml.safe_dump(values))
        train = ["-m", "nasmvt", "train-supernet"]
        start = [*train, "mine.yaml", "--out"]
        ways = {
            "torchrun": [*TORCHRUN, *start, "torchrun"],
            "Ray Train": [sys.executable, *start, "ray", "--workers", "2"],
        }
        run(root, [*TORCHRUN, *start, "whole"])
        whole = state(root / "whole")
        for name, command in ways.items():
            status = run(root, command, kill=signal.SIGKILL)
            alike = same(state(root / command[command.index("--out") + 1]), whole)
            print(f"{name}, kill -9 of one of two: ended with {status}, {alike}", flush=True)
        run(root, [*TORCHRUN[:-1], "0", *start, "stopped"], kill=signal.SIGTERM)  # it would go on by itself
        stopped = Checkpoint.load(root / "stopped/supernet/checkpoint.pt").step
        run(root, [sys.executable, *train, "--resume", "--out", "stopped"])
        alike = same(state(root / "stopped"), whole)
        print(f"SIGTERM to one of two at step {stopped}, resumed on one: {alike}", flush=True)


def run(root: Path, command: Sequence[str], kill: signal.Signals | None = None) -> int:
    """Run a command in a folder; send a signal to one of its training processes after some steps."""
    log = (root / "log.txt").open("a")
    started = subprocess.Popen(command, cwd=root, env=plain_environment(), stdout=log, stderr=log)
    metrics = root / command[command.index("--out") + 1] / "supernet" / "metrics.jsonl"
    while kill is not None and started.poll() is None:
        if metrics.is_file() and len(metrics.read_text().splitlines()) >= 10:
            os.kill(training_process(started.pid), kill)
            break
        time.sleep(0.05)
    return started.wait()


def training_process(ancestor: int) -> int:
    """Return the last training process among the descendants of a process."""
    listed = subprocess.run(["ps", "-eo", "pid=,ppid=,args="], capture_output=True, text=True, check=True).stdout
    rows = [line.split(None, 2) for line in listed.splitlines()]
    family, found = {ancestor}, []
    for _ in range(5):
        family |= {int(pid) for pid, parent, _ in rows if int(parent) in family}
    for pid, _, command in rows:
        if int(pid) in family and ("RayTrainWorker" in command or "-m nasmvt" in command.partition("--nproc")[0]):
            found.append(int(pid))
    return max(found)


def state(run_folder: Path) -> dict[str, Tensor]:
    return Checkpoint.load(run_folder / "supernet" / "checkpoint.pt").weights


def same(found: dict[str, Tensor], whole: dict[str, Tensor]) -> str:
    if all(torch.equal(found[name], whole[name]) for name in whole):
        return "no weight differs from the undisturbed training"
    return f"weights differ from the undisturbed training by {difference(whole, found):.1e} of the largest"


def plain_environment() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1"}


if __name__ == "__main__":
    main()
