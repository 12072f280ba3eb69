"""The common part of all trainings of a run: loaders, evaluation, images and curves around one `Trainer`."""

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace

import torch

from nasmvt.data.geometry import Size
from nasmvt.data.loader import Parts, TrainLoader
from nasmvt.errors import UserError
from nasmvt.files import held
from nasmvt.pipeline.datasets import TaskData, placed
from nasmvt.pipeline.layout import TrainingFiles
from nasmvt.pipeline.pictures import save_batch, save_predictions
from nasmvt.report.curves import plot_curves
from nasmvt.tasks.evaluate import evaluate
from nasmvt.tasks.network import TaskNetwork
from nasmvt.tasks.norms import check_norms, check_synchronised
from nasmvt.tasks.precision import check_precision, tensor_floats
from nasmvt.tasks.recalibrate import recalibrate
from nasmvt.tasks.teaching import check_lessons
from nasmvt.tasks.trainable import Probe, Trainable
from nasmvt.training.checkpoint import Checkpoints
from nasmvt.training.config import TrainingConfig
from nasmvt.training.interrupt import deferred
from nasmvt.training.loggers import make_loggers
from nasmvt.training.loop import Figures, Listener, Trainer
from nasmvt.training.metrics import MetricsLog
from nasmvt.training.processes import ALONE, Processes

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One training of a run: the supernet's, or that of a chosen arch."""

    files: TrainingFiles
    """Files for metrics, checkpoints and images."""
    config: TrainingConfig
    seed: int
    data: Mapping[str, TaskData]
    device: torch.device
    order: int = 0
    """Another number has the training images in another order, augmented otherwise."""
    resume: bool = False
    """Resume from the checkpoint, if there is one."""
    listener: Listener | None = None
    processes: Processes = ALONE
    """Those that train together; the first of them writes the files."""

    def run(self, trainable: Trainable, begin: Callable[[], None] = lambda: None) -> None:
        """Train to the last step.

        Args:
            trainable: what is trained; it must be on the device.
            begin: called when all that can be checked is checked, before the first file is written.

        Raises:
            UserError: if another process trains there, the device lacks the precision, batches can't be cut into
                parts, a loss is not finite, or the training can't go on.
            Interrupted: after a signal, when the checkpoint is written.
        """
        check_precision(self.config.precision, self.device)
        if self.config.sync_norm:
            check_synchronised(self.device, "training.sync_norm")
        with held(self.files.folder) if self.processes.first else nullcontext():
            if self.processes.first and not self.resume and any(self.files.folder.iterdir()):
                raise UserError(f"{self.files.folder} exists: pass --resume to continue it, or delete it")
            replace(self, data=placed(self.data, trainable.tasks))._run(trainable, begin)

    def _run(self, trainable: Trainable, begin: Callable[[], None]) -> None:
        loaders = {name: data.train_loader(order=self.order) for name, data in self.data.items()}
        metrics = MetricsLog(self.files.metrics)
        loggers = make_loggers(self.config.loggers, self.files.folder)
        trainer = Trainer(
            trainable,
            loaders,
            self.config,
            seed=self.seed,
            metrics=metrics,
            checkpoints=Checkpoints(self.files.checkpoint, self.config.keep_checkpoints),
            device=self.device,
            evaluate=_Evaluation(self, trainable),
            listener=self.listener,
            processes=self.processes,
            recorders=loggers,
        )
        _check_parts(trainable, loaders, trainer.parts)
        if self.config.distillation is not None:
            check_lessons(trainable.space, trainable.tasks)
        if self.resume:
            trainer.resume()
        if self.processes.first:
            begin()
        with deferred() as signals, tensor_floats(self.config.tf32):
            self._draw_batches(trainable)
            try:
                trainer.run(signals)
            finally:
                self._draw_curves(trainable, metrics)
                for logger in loggers:
                    logger.close()

    def _draw_batches(self, trainable: Trainable) -> None:
        with _sparing("the images of the first batches"):
            for name, data in self.data.items() if self.processes.first else ():
                save_batch(self.files.batch(name), data.first_batch, trainable.tasks[name])

    def _draw_curves(self, trainable: Trainable, metrics: MetricsLog) -> None:
        with _sparing("the curves"):
            if self.processes.first:
                primaries = {name: task.primary for name, task in trainable.tasks.items()}
                plot_curves(self.files.curves, metrics.read(), primaries)


def _check_parts(trainable: Trainable, loaders: Mapping[str, TrainLoader], parts: Parts) -> None:
    """Refuse batches that can't be cut into parts, or parts in which a network can't learn.

    Raises:
        UserError: naming the task.
    """
    for name, loader in loaders.items():
        config = trainable.tasks[name].config
        try:
            loader.check(parts)
            config.head.check_batch(config.batch_size // parts.of)
        except (UserError, ValueError) as error:
            cut = f", whose batches are cut into {parts.of} parts" if parts.of > 1 else ""
            raise UserError(f"the task '{name}'{cut}: {error}") from None
    check_norms(trainable.space, trainable.tasks, parts.of)


class _Evaluation:
    """Measures the probes of a training on the search split and draws predictions of the last one.

    The units of work, one network each, are dealt to the processes.
    """

    def __init__(self, stage: Stage, trainable: Trainable) -> None:
        config = stage.config
        self._stage = stage
        self._trainable = trainable
        self._search = {n: data.search_images(config.evaluation_images) for n, data in stage.data.items()}
        self._plain = {n: data.recalibration_images(config.recalibration_images) for n, data in stage.data.items()}

    def __call__(self) -> Figures:
        """Return the metrics by probe, task and name.

        Raises:
            RuntimeError: if the evaluation failed in another process.
        """
        processes = self._stage.processes
        own: Figures | Exception
        try:
            own = self._measure_own()
        except Exception as error:
            if processes.count == 1:
                raise
            own = error
        gathered = processes.gather(own if isinstance(own, dict) else f"{type(own).__name__}: {own}")
        if isinstance(own, Exception):
            raise own
        found: Figures = {}
        for figures in gathered:
            if isinstance(figures, str):
                raise RuntimeError(figures)
            for probe, tasks in figures.items():
                found[probe] = {**found.get(probe, {}), **tasks}
        return {probe: {name: tasks[name] for name in self._trainable.tasks} for probe, tasks in found.items()}

    def _measure_own(self) -> Figures:
        """Return the figures of this process's units, and draw what the last networks among them predict."""
        processes, tasks, unit = self._stage.processes, self._trainable.tasks, 0
        found: Figures = {}
        last: dict[str, TaskNetwork] = {}
        sizes: dict[str, Size] = {}
        for probe in self._trainable.probes(self._stage.seed):
            found[probe.name], last = {}, {}
            for name in tasks:
                if unit % processes.count == processes.rank:
                    found[probe.name][name] = self._measure(probe, name)
                    last[name], sizes[name] = probe.networks[name], probe.tasks[name].nominal_size
                unit += 1
        with _sparing("the images of the predictions"):
            for name, network in last.items():
                path, batch = self._stage.files.predictions(name), self._stage.data[name].at(sizes[name]).search_batch
                save_predictions(path, network, batch, tasks[name], self._stage.device)
        return found

    def _measure(self, probe: Probe, name: str) -> dict[str, float]:
        network, device, precision = probe.networks[name], self._stage.device, self._stage.config.precision
        task = probe.tasks[name]
        if probe.stale_norms:
            recalibrate(network, self._plain[name].at(task.nominal_size), device, precision=precision)
        return evaluate(network, self._search[name].at(task.nominal_size), task, device, precision)


@contextmanager
def _sparing(what: str) -> Iterator[None]:
    """Turn a failure inside the block into a warning, so that it does not end the training."""
    try:
        yield
    except Exception as error:  # noqa: BLE001 (a plotting library or a disk may raise anything)
        _log.warning("%s can't be drawn (%s: %s); the training continues", what, type(error).__name__, error)
