"""What a training records, for other programs too: TensorBoard, Weights & Biases, MLflow."""

import importlib.util
import logging
import os
import time
import uuid
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from nasmvt.errors import UserError
from nasmvt.files import write_text

_log = logging.getLogger(__name__)
_PROJECT = "nasmvt"
"""The project, or experiment, that runs belong to unless the program's own variables say otherwise."""


class Logger(ABC):
    """Passes on the numbers of every entry of the metrics, named by their keys: "loss/det/loss_mask".

    Args:
        folder: of what the program keeps; a resumed training finds there what it goes on with.
        run: what the training is called.

    Raises:
        UserError: if the program is not installed.
    """

    module: ClassVar[str]
    """The module that it needs."""

    def __init__(self, folder: Path, run: str) -> None:
        if importlib.util.find_spec(self.module) is None:
            name = self.module
            raise UserError(
                f"training.loggers names {name}, which is not installed: pip install 'nasmvt[{name}]', or leave it out"
            )
        self._folder, self._run = folder, run
        self._open: Any = None
        self._broken = False

    def __call__(self, entry: Mapping[str, Any]) -> None:
        """Pass on an entry; if that fails, the training goes on without this program."""
        if self._broken:
            return
        try:
            if self._open is None:
                self._folder.mkdir(parents=True, exist_ok=True)
                self._open = self.open(entry["step"])
            self.log(dict(_scalars(entry)), entry["step"])
        except Exception as error:  # noqa: BLE001 (a program of others, which may need a network)
            self._broken = True
            reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
            _log.warning("%s fails (%s); the training goes on without it", self.module, reason)

    def close(self) -> None:
        """Let the program end its record."""
        if self._open is not None and not self._broken:
            self.end()

    @abstractmethod
    def open(self, step: int) -> Any:
        """Begin, or go on, at a step."""

    @abstractmethod
    def log(self, numbers: Mapping[str, float], step: int) -> None:
        """Pass on numbers."""

    @abstractmethod
    def end(self) -> None:
        """End the record."""

    def _identity(self, make: Callable[[], str]) -> str:
        """Return the identity of the record that an earlier attempt began, or make one and keep it."""
        path = self._folder / "id"
        if not path.is_file():
            write_text(path, make())
        return path.read_text(encoding="utf-8").strip()


class TensorBoard(Logger):
    """TensorBoard's event files; what was written there after the first entry's step counts no more."""

    module = "tensorboard"

    def open(self, step: int) -> Any:
        """Open an event file."""
        from torch.utils.tensorboard import SummaryWriter

        return SummaryWriter(str(self._folder), purge_step=step)

    def log(self, numbers: Mapping[str, float], step: int) -> None:
        """Write scalars."""
        for name, value in numbers.items():
            self._open.add_scalar(name, value, step)
        self._open.flush()

    def end(self) -> None:
        """Close the event file."""
        self._open.close()


class WandB(Logger):
    """A run of Weights & Biases, plotted over `step`; its own variables choose project, server and mode."""

    module = "wandb"

    def open(self, step: int) -> Any:
        """Begin a run, or go on with it."""
        import wandb

        own = self._identity(lambda: uuid.uuid4().hex)
        project = os.environ.get("WANDB_PROJECT", _PROJECT)
        run = wandb.init(project=project, name=self._run, id=own, resume="allow", dir=str(self._folder))
        run.define_metric("*", step_metric="step")
        return run

    def log(self, numbers: Mapping[str, float], step: int) -> None:
        """Add a row."""
        self._open.log({**numbers, "step": step})

    def end(self) -> None:
        """Finish the run."""
        self._open.finish()


class MLflow(Logger):
    """A run of MLflow, at `MLFLOW_TRACKING_URI`."""

    module = "mlflow"

    def open(self, step: int) -> Any:
        """Begin a run, or go on with it."""
        from mlflow import MlflowClient

        client = MlflowClient()
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME", _PROJECT)
        found = client.get_experiment_by_name(name)
        experiment = client.create_experiment(name) if found is None else found.experiment_id
        run = self._identity(lambda: str(client.create_run(experiment, run_name=self._run).info.run_id))
        client.update_run(run, status="RUNNING")
        return client, run

    def log(self, numbers: Mapping[str, float], step: int) -> None:
        """Add metrics."""
        from mlflow.entities import Metric

        client, run = self._open
        now = int(time.time() * 1000)
        client.log_batch(run, metrics=[Metric(name, value, now, step) for name, value in numbers.items()])

    def end(self) -> None:
        """End the run."""
        client, run = self._open
        client.set_terminated(run)


LOGGERS: dict[str, type[Logger]] = {cls.module: cls for cls in (TensorBoard, WandB, MLflow)}
"""By the name that a configuration gives."""


def make_loggers(names: Sequence[str], folder: Path) -> list[Logger]:
    """Return the loggers of a training whose files are in a folder; each has a folder of its own there.

    Raises:
        UserError: if one is not installed.
    """
    run = f"{folder.parent.name}/{folder.name}"
    return [LOGGERS[name](folder / name, run) for name in dict.fromkeys(names)]


def _scalars(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, float]]:
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _scalars(value, f"{prefix}{key}/")
        elif key != "step":
            yield f"{prefix}{key}", value
