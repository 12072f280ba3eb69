"""The training loop, the same for everything that can be trained."""

import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from functools import partial
from itertools import chain
from typing import Any, Protocol

import torch
from torch import Tensor

from nasmvt.data.loader import TrainLoader
from nasmvt.data.types import Batch
from nasmvt.errors import UserError
from nasmvt.tasks.trainable import Trainable
from nasmvt.training.averaged import Averaged
from nasmvt.training.checkpoint import Checkpoint, Checkpoints, load_weights, signatures
from nasmvt.training.config import TrainingConfig
from nasmvt.training.interrupt import Abandoned, Failed, Interrupted, Signals
from nasmvt.training.ledger import Ledger, Losses, named
from nasmvt.training.metrics import MetricsLog
from nasmvt.training.optimizer import NamedOptimizer
from nasmvt.training.processes import ALONE, Processes, ProcessLost
from nasmvt.training.selection import selected
from nasmvt.training.step import Sized, Step
from nasmvt.training.update import Update

_log = logging.getLogger(__name__)

Figures = dict[str, dict[str, dict[str, float]]]
"""Metrics by subnet, task and name, in percent."""


Recorder = Callable[[Mapping[str, Any]], None]
"""Is given every entry of the metrics, to keep it elsewhere."""


class Listener(Protocol):
    """Is notified of progress, to show it."""

    def on_step(self, step: int, steps: int, losses: Mapping[str, float], lr: float) -> None:
        """A step is done; `losses` by task, of the last step that was logged."""

    def on_evaluation(self, step: int, metrics: Mapping[str, Mapping[str, Mapping[str, float]]]) -> None:
        """An evaluation is done; metrics by subnet, task and name."""


class Trainer:
    """Trains a supernet or a model, step by step, so that a resumed run repeats an uninterrupted one.

    Every step draws an arch, runs every task on it and sums their gradients into one optimizer step.
    Everything random in step n (arch, data, drop path, sampled regions) is a function of (seed, n).
    Between two steps that are logged, nothing waits for the device.

    Args:
        trainable: what is trained; it must be on `device`.
        loaders: training batches of each task.
        config: settings.
        seed: seed of everything random.
        metrics: where losses and figures are recorded.
        checkpoints: where the state is saved.
        device: device that batches are moved to.
        evaluate: called every `config.evaluate_every` steps and after the last one, when a checkpoint is written.
        listener: is notified of every step and evaluation.
        processes: those that train together; each needs the same arguments, and the first writes the files.
        recorders: are given every entry of the metrics by the first process.
    """

    def __init__(
        self,
        trainable: Trainable,
        loaders: Mapping[str, TrainLoader],
        config: TrainingConfig,
        *,
        seed: int,
        metrics: MetricsLog,
        checkpoints: Checkpoints,
        device: torch.device,
        evaluate: Callable[[], Figures] | None = None,
        listener: Listener | None = None,
        processes: Processes = ALONE,
        recorders: Sequence[Recorder] = (),
    ) -> None:
        self.trainable = trainable
        self.loaders = loaders
        self.config = config
        self.seed = seed
        self.device = device
        self.evaluate = evaluate
        self.listener = listener
        self.step = 0
        self.optimizer = NamedOptimizer(selected(trainable, config), config)
        self.checkpoints = checkpoints
        self._metrics = metrics
        self._recorders = recorders
        self.processes = processes
        self.parts = self.processes.parts(config.accumulate)
        self._update = Update(self.optimizer.optimizer, config, device)
        self._take = Step(trainable, self._update, config, seed, device, self.processes)
        self._ledger = Ledger()
        self._evaluated: int | None = None
        self._averaged = None if config.ema is None else Averaged(trainable.state_dict(), config.ema)
        self._saved: int | None = None

    def resume(self) -> None:
        """Resume from the newest checkpoint, or start if there is none yet.

        Later lines of the metrics are dropped.

        Raises:
            UserError: if the checkpoint does not fit this training.
        """
        path = self.checkpoints.newest
        if self.checkpoints.exist():
            checkpoint = load_weights(self.trainable, self.checkpoints, averaged=False)
            if checkpoint.optimizer is not None:
                self.optimizer.load_state_dict(checkpoint.optimizer, path)
            elif checkpoint.step < self.config.steps:
                raise UserError(
                    f"{path} was written in the middle of a training by nasmvt 0.1.0, whose optimizer state can't be "
                    "used: finish the training with that version, or start a new run"
                )
            checkpoint.check_processes(path, self._own_archs)
            self._update.load_state_dict(checkpoint.update)
            if self._averaged is not None:
                self._averaged.load(checkpoint.averaged)
            self.step = self._saved = checkpoint.step
        if self.processes.gather(self._metrics.evaluated(self.step))[0]:
            self._evaluated = self.step
        if self.processes.first:
            self._metrics.cut(self.step)

    def run(self, signals: Signals | None = None) -> None:
        """Train from the current state to the last step.

        Args:
            signals: tells when to stop early.

        Raises:
            UserError: if a loss is not finite; the last checkpoint stays as it was.
            Failed: if a loader's worker or another process was killed, or the disk is full.
            Interrupted: after a signal to any process, when the checkpoint is written.
        """
        try:
            self._run(signals or Signals())
        except ProcessLost as error:
            raise Abandoned(str(error), self.checkpoints.newest) from None

    def _run(self, signals: Signals) -> None:
        batches = {
            name: loader.batches(self.step, self.parts, partial(self._take.sizes, name))
            for name, loader in self.loaders.items()
        }
        started, first, waited = time.monotonic(), self.step, 0.0
        if self.step and self._evaluation_due():  # killed between the checkpoint and the evaluation
            self._evaluate(signals)
        while not self._done:
            asked = time.monotonic()
            parts = self._next(batches)
            waited += time.monotonic() - asked
            self._step(parts)
            if self.step % self.config.log_every == 0 or self._done:
                losses = self._ledger.read(self.processes.mean)
                passed = time.monotonic() - started
                speed = {
                    "steps_per_second": round((self.step - first) / passed, 3),
                    "data_share": round(waited / passed, 3),
                }
                line = {"step": self.step, "lr": self.optimizer.lr, **speed, "loss": losses}
                skipped = {"skipped_steps": self._update.skipped} if self.config.precision == "fp16" else {}
                self._write({**line, **skipped})
            self._tell(signals, "on_step", self.config.steps, _totals(self._ledger.last), self.optimizer.lr)
            due = self._done or self.step % self.config.checkpoint_every == 0
            stopping = self.processes.agreed(signals.seen)
            if due or stopping or self._evaluation_due():
                self.save()
            if stopping and not self._done:
                raise Interrupted(self.step, self.checkpoints.newest)
            if self._evaluation_due():
                self._evaluate(signals)

    def save(self) -> None:
        """Save the state between two steps, unless it is saved already.

        Raises:
            UserError: if a loss since the last time or a weight is not finite: it could not be resumed.
            Failed: if it can't be written.
        """
        if self._saved == self.step:
            return
        self._ledger.read(self.processes.mean)
        weights = self.trainable.state_dict()
        for name, finite in _finite(weights):
            if not finite:
                raise UserError(
                    f"the weight {name} is not finite after step {self.step}: lower training.lr; the last checkpoint "
                    "is kept"
                )
        if self.processes.first:
            self._write_checkpoint(weights)
        self._saved = self.step

    def _write_checkpoint(self, weights: dict[str, Tensor]) -> None:
        checkpoint = Checkpoint(
            step=self.step,
            space=self.trainable.space.model_dump(mode="json"),
            tasks=signatures(self.trainable.tasks),
            weights=weights,
            optimizer=self.optimizer.state_dict(),
            update=self._update.state_dict(),
            averaged={} if self._averaged is None else self._averaged.values,
            processes=self._own_archs,
        )
        try:
            self.checkpoints.save(checkpoint)
        except UserError as error:
            raise Failed(f"{error}; the last checkpoint is kept", self.checkpoints.newest) from None

    @property
    def _own_archs(self) -> int | None:
        return self.processes.count if self.config.archs == "per-process" else None

    @property
    def _done(self) -> bool:
        return self.step >= self.config.steps

    def _next(self, batches: Mapping[str, Iterator[Batch]]) -> list[dict[str, Sized]]:
        """Return the batches of the next step by part, task and size; if a loader fails, the state is saved first."""
        try:
            return [
                {
                    name: {size: next(stream) for size in self._take.sizes(name, self.step)}
                    for name, stream in batches.items()
                }
                for _ in self.parts.wanted
            ]
        except UserError as error:
            if self.step and self.processes.count == 1:  # the others are in the middle of the step
                self.save()
            raise Failed(str(error), self.checkpoints.newest) from None

    def _step(self, batches: Sequence[Mapping[str, Sized]]) -> None:
        """Run every task on one arch and take one optimizer step, without waiting for the device."""
        self.optimizer.schedule(self.step)
        drawn = self._take.archs(self.step)
        archs = list(dict.fromkeys(chain.from_iterable(drawn)))
        try:
            taken = self._take(self.step, drawn, batches)
        except (torch.OutOfMemoryError, MemoryError):
            raise Failed(
                f"the memory does not suffice for step {self.step + 1} (arch {named(archs)}): raise "
                "training.accumulate, or lower the tasks' batch_size",
                self.checkpoints.newest,
            ) from None
        except ProcessLost:
            raise
        except Exception:
            self._ledger.read()  # losses that are not finite explain later failures
            raise
        self.step += 1
        self._ledger.add(self.step, archs, taken.losses, taken.norm)
        if self._averaged is not None:
            self._averaged.update(self.step)

    def _evaluation_due(self) -> bool:
        every = self.config.evaluate_every
        wanted = self._done or bool(every and self.step % every == 0)
        return self.evaluate is not None and wanted and self._evaluated != self.step

    def _evaluate(self, signals: Signals) -> None:
        """Evaluate the saved state; a failure costs the figures, not the training."""
        assert self.evaluate is not None
        try:
            with signals.at_once(), nullcontext() if self._averaged is None else self._averaged.applied():
                figures = self.evaluate()
        except KeyboardInterrupt:
            raise Interrupted(self.step, self.checkpoints.newest) from None
        except ProcessLost:
            raise
        except Exception as error:  # noqa: BLE001 (a metric may raise anything, and the training must not end)
            _log.warning("the evaluation of step %d failed (%s); the training continues", self.step, _in_short(error))
            return
        self._evaluated = self.step
        self._write({"step": self.step, "metrics": figures})
        self._tell(signals, "on_evaluation", figures)

    def _write(self, entry: Mapping[str, Any]) -> None:
        if not self.processes.first:
            return
        try:
            self._metrics.append(entry)
            for record in self._recorders:
                record(entry)
        except OSError as error:
            raise Failed(
                f"{self._metrics.path} can't be written ({error.strerror}): free some space; the last checkpoint "
                "is kept",
                self.checkpoints.newest,
            ) from None

    def _tell(self, signals: Signals, event: str, *values: Any) -> None:
        """Notify the listener; if its terminal or pipe is closed, the training ends as after a signal."""
        if self.listener is None:
            return
        try:
            getattr(self.listener, event)(self.step, *values)
        except OSError:
            signals.seen = True


def _totals(losses: Losses) -> dict[str, float]:
    return {task: sum(parts.values()) for task, parts in losses.items()}


def _finite(weights: Mapping[str, Tensor]) -> Iterator[tuple[str, bool]]:
    """Yield for every floating-point tensor whether all its values are finite, with a single transfer."""
    names = [name for name, tensor in weights.items() if tensor.is_floating_point()]
    flags = torch.stack([weights[name].isfinite().all() for name in names]).tolist()
    yield from zip(names, flags, strict=True)


def _in_short(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:300]
