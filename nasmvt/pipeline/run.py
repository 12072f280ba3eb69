"""The run directory: its inputs, and the results of each step."""

import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from pydantic import TypeAdapter, ValidationError

from nasmvt.config import parse, read_yaml
from nasmvt.data.dataset import Split
from nasmvt.data.types import DataInfo
from nasmvt.errors import UserError, listed
from nasmvt.families import family
from nasmvt.files import write_json, write_text
from nasmvt.pipeline.archs import ArchFile, Metrics
from nasmvt.pipeline.comparison import Compared, ComparedRecord
from nasmvt.pipeline.data_report import TaskReport
from nasmvt.pipeline.datasets import TaskData, check_division
from nasmvt.pipeline.experiment import Experiment
from nasmvt.pipeline.identity import TaskRecord, check_identity
from nasmvt.pipeline.layout import SearchFiles, TrainingFiles
from nasmvt.supernet.initial import Filled
from nasmvt.tasks.task import Task
from nasmvt.training.metrics import MetricsLog

if TYPE_CHECKING:
    import pandas as pd

_log = logging.getLogger(__name__)

T = TypeVar("T")

RUNS = Path("runs")


class Run:
    """A folder with config.yaml (the whole experiment), data.json (the identity of its data) and a folder per step.

    Only this class, with `layout`, knows the names of the files in it.
    """

    def __init__(self, path: Path, experiment: Experiment, records: Mapping[str, TaskRecord]) -> None:
        self.path = path
        self.experiment = experiment
        self.records = dict(records)
        """The identity of each task's data."""

    def write(self) -> None:
        """Write the experiment and the identity of the data."""
        self._write_records()
        write_text(self.config_path, self.experiment.to_yaml())

    @property
    def config_path(self) -> Path:
        """The file of the experiment."""
        return self.path / "config.yaml"

    def data_report(self) -> dict[str, Any]:
        """Return the report on the data when the run began, as plain values by task; empty if there is none."""
        path = self.path / "data_report.json"
        return _read(path, dict[str, Any]) if path.is_file() else {}

    def write_data_report(self, report: Mapping[str, TaskReport]) -> None:
        """Write the report on the data when the run began."""
        write_json(self.path / "data_report.json", {name: task.to_json() for name, task in report.items()})

    @staticmethod
    def is_at(path: Path) -> bool:
        """Return whether a folder is a run directory."""
        return (path / "config.yaml").is_file()

    def write_initial(self, filled: Filled) -> None:
        """Write down which weights the supernet begins with."""
        write_json(self.path / "initial.json", {"digest": filled.digest, "filled": filled.sentences()})

    def check_initial(self, filled: Filled) -> None:
        """Refuse initial weights other than those that the run began with.

        Raises:
            UserError: if they are others, or the record is damaged.
        """
        recorded = _read(self.path / "initial.json", dict[str, Any]).get("digest")
        if recorded != filled.digest:
            raise UserError(
                f"a run keeps the weights that it began with, but {filled.source} holds others now than those that "
                f"{self.path} was begun with: put the old ones in their place, or begin a new run"
            )

    @classmethod
    def open(cls, path: Path | None) -> "Run":
        """Open a run directory; without a path, the newest one under `runs/`.

        Raises:
            UserError: if there is none, the folder is not a run directory, or its settings break a rule.
        """
        if path is None:
            found = sorted(RUNS.glob("*/config.yaml"), key=lambda file: file.stat().st_mtime)
            if not found:
                raise UserError(
                    f"there is no run under {RUNS}/: start with 'nasmvt train-supernet', or name a run directory"
                )
            path = found[-1].parent
        if not cls.is_at(path):
            raise UserError(f"{path} is not a run directory (it has no config.yaml): give one that train-supernet made")
        experiment = parse(Experiment, read_yaml(path / "config.yaml"), str(path / "config.yaml"))
        family(experiment.space.family).check(experiment.space)
        records = _read(path / "data.json", dict[str, TaskRecord])
        if records.keys() != experiment.tasks.keys():
            raise UserError(
                f"{path} began with the tasks {listed(records)}, but its config.yaml has {listed(experiment.tasks)}: "
                "undo the change, or begin a new run"
            )
        return cls(path, experiment, records)

    @property
    def infos(self) -> dict[str, DataInfo]:
        """What the networks need to know about the data."""
        return {name: record.info for name, record in self.records.items()}

    @property
    def tasks(self) -> dict[str, Task]:
        """The tasks, as they were when the run began; no data set is opened."""
        return make_tasks(self.experiment, self.infos)

    @property
    def train_identity(self) -> dict[str, dict[str, Any]]:
        """Identity of each task's training images, as plain values; empty in a run that did not record it."""
        known = {name: record.splits.get("train") for name, record in self.records.items()}
        return {name: split.model_dump() for name, split in known.items() if split is not None}

    def open_data(self, splits: Sequence[Split] = ("train",), *, accept_changed: bool = False) -> dict[str, TaskData]:
        """Open the data of every task and check that they are the data that the run began with.

        Args:
            splits: which splits are compared.
            accept_changed: continue with changed data; the run then records those.

        Raises:
            UserError: if data are missing or broken, or changed.
        """
        data = {
            name: TaskData(name, config, self.experiment.seed, self.records[name].info)
            for name, config in self.experiment.tasks.items()
        }
        now = {name: TaskRecord.of(item, splits) for name, item in data.items()}
        changed = check_identity(self.records, now, accept_changed)
        check_division(data)
        if changed:
            _log.warning("the data changed since the run began: %s", "; ".join(changed))
            for name, record in now.items():
                both = {**self.records[name].splits, **record.splits}
                self.records[name] = record.model_copy(update={"splits": both})
            self._write_records()
        return data

    def folder(self, *names: str) -> Path:
        """Return the folder of a step: `supernet`, `search`, `retrain/<arch>`, `export` ..."""
        return self.path.joinpath(*names)

    @property
    def supernet_files(self) -> TrainingFiles:
        """The files of the supernet's training."""
        return TrainingFiles(self.folder("supernet"))

    def retrain_files(self, name: str) -> TrainingFiles:
        """Return the files of an arch's retraining."""
        return TrainingFiles(self.folder("retrain", name))

    @property
    def search_files(self) -> SearchFiles:
        """The files of the search."""
        return SearchFiles(self.folder("search"))

    def metrics(self, *names: str) -> list[dict[str, Any]]:
        """Return what a training recorded, in order: losses by step, and metrics on the search split.

        Args:
            names: its folder: `"supernet"`, or `"retrain", <arch>`.
        """
        return MetricsLog(TrainingFiles(self.folder(*names)).metrics).read()

    def figures(self, name: str) -> Metrics:
        """Return the last metrics of a retraining on the search split, in percent by task; empty if there are none.

        Raises:
            UserError: if they are damaged.
        """
        measured = [entry["metrics"] for entry in self.metrics("retrain", name) if "metrics" in entry]
        try:
            return TypeAdapter(dict[str, Metrics]).validate_python(measured[-1])[name] if measured else {}
        except (ValidationError, KeyError):
            raise UserError(
                f"the last metrics in {self.retrain_files(name).metrics} are damaged: put a copy of the "
                "file in its place, or retrain anew"
            ) from None

    @property
    def latency_path(self) -> Path:
        """The latencies of the space's archs on this device, where they were measured."""
        return self.path / "latency.json"

    @property
    def best_path(self) -> Path:
        """The file of the arch that the search found."""
        return self.search_files.best

    def best(self) -> ArchFile:
        """Return the arch that the search found, with its properties.

        Raises:
            UserError: if there is none yet, or the file is damaged.
        """
        if not self.best_path.is_file():
            raise UserError(f"{self.path} holds no search result: run 'nasmvt search' first, or pass --arch")
        return ArchFile.read(self.best_path)

    def candidates(self) -> "pd.DataFrame":
        """Return every candidate of the search, best first (see `nasmvt.search.results`).

        Raises:
            UserError: if there is no search yet, or the file is damaged.
        """
        import pandas as pd

        path = self.search_files.candidates
        try:
            return pd.read_csv(path)
        except FileNotFoundError:
            raise UserError(f"{self.path} holds no search result: run 'nasmvt search' first") from None
        except ValueError as error:  # from pandas' parser, or not UTF-8
            raise UserError(f"{path} is damaged ({' '.join(str(error).split())}): run 'nasmvt search' again") from None

    def retrained(self, name: str) -> ArchFile:
        """Return the arch of a retraining.

        Raises:
            UserError: if there is none, or the file is damaged.
        """
        return ArchFile.read(self.retrain_files(name).arch)

    def retrained_names(self) -> list[str]:
        """Return the names of the archs of which a retraining began, the searched one first."""
        names = sorted(path.name for path in self.folder("retrain").glob("*") if path.is_dir())
        return sorted(names, key=lambda name: name != "best")

    @property
    def report_path(self) -> Path:
        """The file of the report."""
        return self.path / "report.html"

    @property
    def comparison_path(self) -> Path:
        """The file with the result of a comparison."""
        return self.path / "compare.json"

    @property
    def searches_path(self) -> Path:
        """The file with the result of a comparison of searches."""
        return self.path / "compare-searches.json"

    def comparison(self) -> list[Compared]:
        """Return the result of the comparison.

        Raises:
            UserError: if there is none yet, or the file is damaged.
        """
        path = self.comparison_path
        if not path.is_file():
            raise UserError(f"{self.path} holds no comparison: run 'nasmvt compare' first")
        return [record.compared() for record in _read(path, list[ComparedRecord])]

    def write_comparison(self, found: Sequence[Compared]) -> None:
        """Write the result of a comparison."""
        write_json(self.comparison_path, [item.to_dict() for item in found])

    def _write_records(self) -> None:
        values = {name: record.model_dump(mode="json") for name, record in self.records.items()}
        write_json(self.path / "data.json", values)


def _read(path: Path, kind: type[T]) -> T:
    try:
        return TypeAdapter(kind).validate_json(path.read_bytes())
    except (OSError, ValidationError):
        raise UserError(f"{path} is missing or damaged: put a copy in its place, or give another run") from None


@contextmanager
def reserved(path: Path | None, experiment: Experiment) -> Iterator[Path]:
    """Yield the directory of a new run, made at once so that no other process takes it.

    It is removed if it is still empty when the block ends.

    Args:
        path: the directory; None: a new one under `runs/`.
        experiment: gives the name.

    Raises:
        UserError: if the directory exists.
    """
    stamp = datetime.now().astimezone().strftime("%Y%m%d-%H%M%S")
    names = (RUNS / f"{stamp}-{experiment.name}{f'-{number}' if number > 1 else ''}" for number in count(1))
    made = _made(path) if path is not None else next(filter(None, map(_made, names)))
    if made is None:
        raise UserError(f"{path} exists: give another --out, or continue that run with --resume")
    try:
        yield made[0]
    finally:
        for folder in made:
            try:
                folder.rmdir()
            except OSError:  # it holds a run now
                break


def free_path(path: Path | None, experiment: Experiment) -> Path:
    """Return the directory that a new run is to have, see `reserved`; it is not made yet.

    Raises:
        UserError: if the directory exists.
    """
    with reserved(path, experiment) as free:
        return free


def _made(path: Path) -> list[Path] | None:
    """Make a folder and its parents; return the new ones, innermost first, or None if the folder exists."""
    above = [folder for folder in path.parents if not folder.exists()]
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        path.mkdir()
    except FileExistsError:
        return None
    return [path, *above]


def make_tasks(experiment: Experiment, infos: Mapping[str, DataInfo]) -> dict[str, Task]:
    """Return the tasks of an experiment for given data sets."""
    return {name: Task(name=name, config=config, info=infos[name]) for name, config in experiment.tasks.items()}


def device_of(name: str) -> torch.device:
    """Return the device that `--device` names; "auto" is CUDA where there is one.

    Raises:
        UserError: if there is no such device here.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda" and "LOCAL_RANK" in os.environ:  # torchrun starts a process per GPU
        name = f"cuda:{os.environ['LOCAL_RANK']}"
    try:
        device = torch.device(name)
        torch.zeros(1, device=device).item()
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(
            f"--device must name a device of this machine (auto, cpu, cuda, cuda:1 ...), not {name!r} ({reason})"
        ) from None
    return device
