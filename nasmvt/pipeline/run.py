"""The run directory: what went in, and what each step left."""

from collections.abc import Mapping
from datetime import datetime
from pathlib import Path

import torch
from pydantic import TypeAdapter, ValidationError

from nasmvt.config import parse, read_yaml
from nasmvt.data.types import DataInfo
from nasmvt.errors import UserError, listed
from nasmvt.files import write_json, write_text
from nasmvt.pipeline.experiment import Experiment
from nasmvt.tasks.task import Task

RUNS = Path("runs")


class Run:
    """A folder with config.yaml (the whole experiment), data.json (classes) and a folder per step."""

    def __init__(self, path: Path, experiment: Experiment, infos: dict[str, DataInfo]) -> None:
        self.path = path
        self.experiment = experiment
        self.infos = infos

    def write(self) -> None:
        """Make the run directory."""
        write_json(self.path / "data.json", {name: vars(info) for name, info in self.infos.items()})
        write_text(self.path / "config.yaml", self.experiment.to_yaml())

    @classmethod
    def open(cls, path: Path | None) -> "Run":
        """Open a run directory; without a path, the newest one under `runs/`.

        Raises:
            UserError: if there is none, or the folder is no run directory.
        """
        if path is None:
            found = sorted(RUNS.glob("*/config.yaml"), key=lambda file: file.stat().st_mtime)
            if not found:
                raise UserError(
                    f"there is no run under {RUNS}/: start with 'nasmvt train-supernet', or name a run directory"
                )
            path = found[-1].parent
        if not (path / "config.yaml").is_file():
            raise UserError(f"{path} is no run directory (it holds no config.yaml): give one that train-supernet made")
        experiment = parse(Experiment, read_yaml(path / "config.yaml"), str(path / "config.yaml"))
        infos = _read_infos(path / "data.json")
        if infos.keys() != experiment.tasks.keys():
            raise UserError(
                f"{path} began with the tasks {listed(infos)}, but its config.yaml has {listed(experiment.tasks)}: "
                "undo the change, or begin a new run"
            )
        return cls(path, experiment, infos)

    @property
    def tasks(self) -> dict[str, Task]:
        """The tasks, as they were when the run began; no data set is opened."""
        return make_tasks(self.experiment, self.infos)

    def folder(self, *names: str) -> Path:
        """Return the folder of a step: `supernet`, `search`, `retrain/<arch>`, `export` ..."""
        return self.path.joinpath(*names)


def _read_infos(path: Path) -> dict[str, DataInfo]:
    try:
        return TypeAdapter(dict[str, DataInfo]).validate_json(path.read_bytes())
    except (OSError, ValidationError):
        raise UserError(f"{path} is missing or damaged: put a copy in its place, or give another run") from None


def new_path(path: Path | None, experiment: Experiment) -> Path:
    """Return where a new run goes; nothing is written.

    Raises:
        UserError: if the directory exists.
    """
    if path is None:
        stamp = datetime.now().astimezone().strftime("%Y%m%d-%H%M%S")
        path = RUNS / f"{stamp}-{experiment.name}"
    if path.exists():
        raise UserError(f"{path} exists: give another --out, or continue that run with --resume")
    return path


def make_tasks(experiment: Experiment, infos: Mapping[str, DataInfo]) -> dict[str, Task]:
    """Return the tasks of an experiment for what their data sets hold."""
    return {name: Task(name=name, config=config, info=infos[name]) for name, config in experiment.tasks.items()}


def device_of(name: str) -> torch.device:
    """Return the device that `--device` names; "auto" is CUDA where there is one.

    Raises:
        UserError: if there is no such device here.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.zeros(1, device=device).item()
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(
            f"--device must name a device of this machine (auto, cpu, cuda, cuda:1 ...), not {name!r} ({reason})"
        ) from None
    return device
