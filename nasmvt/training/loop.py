"""The training loop, the same for a supernet and for a chosen model."""

import json
import math
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from timm.optim import create_optimizer_v2, list_optimizers
from timm.scheduler import CosineLRScheduler
from timm.utils import dispatch_clip_grad
from torch import nn

from nasmvt.data.loader import TrainLoader
from nasmvt.errors import UserError, nearest
from nasmvt.files import write_text
from nasmvt.seeding import derive_seed, seeded
from nasmvt.space import Arch, SearchSpace
from nasmvt.tasks.network import TaskNetwork
from nasmvt.tasks.task import Task
from nasmvt.training.checkpoint import Checkpoint
from nasmvt.training.config import TrainingConfig
from nasmvt.training.interrupt import Interrupted, deferred

Draw = Callable[[np.random.Generator], tuple[Arch, Callable[[str], TaskNetwork]]]
"""Gives the arch of a step and, for each task, the network to run: the supernet's subnet or the model's own."""


class Trainable(Protocol):
    """What can be trained: a `Supernet` or a `MultiTaskModel`."""

    space: SearchSpace
    tasks: dict[str, Task]

    def no_weight_decay(self) -> set[str]:
        """Return names of parameters without weight decay."""


class Listener(Protocol):
    """Hears what happens, to show it."""

    def on_step(self, step: int, steps: int, losses: Mapping[str, float], lr: float) -> None:
        """A step is done; `losses` by task."""

    def on_evaluation(self, step: int, metrics: Mapping[str, Mapping[str, Mapping[str, float]]]) -> None:
        """An evaluation is done; metrics by subnet, task and name."""


Evaluate = Callable[[int], Mapping[str, Mapping[str, Mapping[str, float]]]]


class Trainer:
    """Trains a supernet or a model, step by step, so that a resumed run repeats an uninterrupted one.

    Every step draws an arch, runs every task on it and sums their gradients into one optimizer step.
    All that is random in step n (arch, data, drop path, sampled regions) is a function of (seed, n).

    Args:
        module: the `Supernet` or `MultiTaskModel`; its parameters are trained.
        draw: gives arch and networks of a step.
        loaders: training batches of each task.
        config: settings.
        seed: of everything random.
        folder: where metrics.jsonl and checkpoint.pt are written.
        device: where the batches are moved to; `module` must be there.
        evaluate: called every `config.evaluate_every` steps and after the last one.
        listener: hears of every step and evaluation.
    """

    def __init__(
        self,
        module: nn.Module,
        draw: Draw,
        loaders: Mapping[str, TrainLoader],
        config: TrainingConfig,
        *,
        seed: int,
        folder: Path,
        device: torch.device,
        evaluate: Evaluate | None = None,
        listener: Listener | None = None,
    ) -> None:
        self.module = module
        self.tasks: dict[str, Task] = module.tasks  # type: ignore[assignment]
        self.draw = draw
        self.loaders = loaders
        self.config = config
        self.seed = seed
        self.folder = folder
        self.device = device
        self.evaluate = evaluate
        self.listener = listener
        self.step = 0
        try:
            self.optimizer = create_optimizer_v2(
                module, opt=config.optimizer, lr=config.lr, weight_decay=config.weight_decay
            )
        except (ValueError, KeyError, AssertionError) as error:
            raise UserError(
                f"the optimizer must be one of timm's that works here, not {config.optimizer!r} ({error})"
                f"{nearest(config.optimizer, list_optimizers())}"
            ) from None
        self.scheduler = CosineLRScheduler(
            self.optimizer,
            t_initial=config.steps,
            lr_min=config.lr * config.final_lr_fraction,
            warmup_t=min(config.warmup_steps, config.steps - 1),
            warmup_lr_init=config.lr * 1e-3,
            t_in_epochs=False,
        )

    @property
    def checkpoint_path(self) -> Path:
        """Where the checkpoint lies."""
        return self.folder / "checkpoint.pt"

    def save(self) -> None:
        """Write the state between two steps.

        Raises:
            UserError: if a weight is not finite: nobody could go on from there.
        """
        for name, weight in self.module.named_parameters():
            if not torch.isfinite(weight).all():
                raise UserError(
                    f"the weight {name} is not finite after step {self.step}: lower training.lr; the last checkpoint "
                    "is kept"
                )
        Checkpoint(
            step=self.step,
            space=self.module.space.model_dump(mode="json"),  # type: ignore[union-attr,operator]
            tasks=signatures(self.tasks),
            weights=self.module.state_dict(),
            optimizer=self.optimizer.state_dict(),
        ).save(self.checkpoint_path)

    def resume(self) -> None:
        """Go on from the checkpoint of the folder, or from the start where there is none yet.

        Later lines of metrics.jsonl are dropped.
        """
        if self.checkpoint_path.is_file():
            checkpoint = load_weights(self.module, self.checkpoint_path)
            groups = checkpoint.optimizer["param_groups"]
            if [group.keys() for group in groups] != [group.keys() for group in self.optimizer.param_groups]:
                raise UserError(
                    f"{self.checkpoint_path} was written with another optimizer than {self.config.optimizer!r}: go on "
                    "with the same one, or start a new run"
                )
            self.optimizer.load_state_dict(checkpoint.optimizer)
            self.step = checkpoint.step
        path = self.folder / "metrics.jsonl"
        if path.is_file():
            lines = [line for line in path.read_text().splitlines() if _step_of(line) <= self.step]
            write_text(path, "".join(line + "\n" for line in lines))

    def run(self) -> None:
        """Train to the last step, from where the state is.

        Raises:
            UserError: if a loss is not finite; the last checkpoint stays as it was.
            Interrupted: after Ctrl-C or SIGTERM, when the checkpoint is written.
        """
        batches = {name: loader.batches(self.step) for name, loader in self.loaders.items()}
        started, first = time.monotonic(), self.step
        with deferred() as interrupted:
            while self.step < self.config.steps:
                with seeded(self.seed, "step", self.step):
                    losses = self._step({name: next(stream) for name, stream in batches.items()})
                self.step += 1
                done = self.step == self.config.steps
                lr = self.optimizer.param_groups[0]["lr"]
                if self.step % self.config.log_every == 0 or done:
                    speed = (self.step - first) / (time.monotonic() - started)
                    self._log({"step": self.step, "lr": lr, "steps_per_second": round(speed, 3), "loss": losses})
                if self.listener:
                    self.listener.on_step(
                        self.step, self.config.steps, {k: sum(v.values()) for k, v in losses.items()}, lr
                    )
                every = self.config.evaluate_every
                if self.evaluate and (done or (every and self.step % every == 0)):
                    metrics = self.evaluate(self.step)
                    self._log({"step": self.step, "metrics": metrics})
                    if self.listener:
                        self.listener.on_evaluation(self.step, metrics)
                if done or interrupted.is_set() or self.step % self.config.checkpoint_every == 0:
                    self.save()
                if interrupted.is_set() and not done:
                    raise Interrupted(self.step, self.checkpoint_path)

    def _step(self, batches: Mapping[str, Any]) -> dict[str, dict[str, float]]:
        """Run every task on one arch and take one optimizer step; return the losses by task and name."""
        self.scheduler.step_update(self.step)
        self.optimizer.zero_grad(set_to_none=True)
        arch, network_of = self.draw(np.random.default_rng(derive_seed(self.seed, "arch", self.step)))
        parts: dict[str, dict[str, float]] = {}
        for name, batch in batches.items():
            batch = batch.to(self.device)
            losses = network_of(name).train().loss(batch.images, batch.targets)
            total = torch.stack(list(losses.values())).sum()
            parts[name] = {key: loss.item() for key, loss in losses.items()}
            if not math.isfinite(total.item()):
                values = ", ".join(f"{key} {value:g}" for key, value in parts[name].items())
                raise UserError(
                    f"the loss of task {name!r} is not finite at step {self.step + 1} ({values}; arch {arch}): "
                    "lower training.lr or check the labels; the last checkpoint is kept"
                )
            (total * self.tasks[name].config.loss_weight).backward()
        gradients = [parameter.grad for parameter in self.module.parameters() if parameter.grad is not None]
        if not torch.nn.utils.get_total_norm(gradients).isfinite():
            raise UserError(
                f"the gradients are not finite at step {self.step + 1} (arch {arch}): lower training.lr; the last "
                "checkpoint is kept"
            )
        if self.config.clip is not None:
            dispatch_clip_grad(self.module.parameters(), self.config.clip, mode=self.config.clip_mode)
        self.optimizer.step()
        return parts

    def _log(self, entry: Mapping[str, Any]) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / "metrics.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(entry) + "\n")


def load_weights(module: nn.Module, path: Path, steps: int = 0) -> Checkpoint:
    """Load the weights of a checkpoint into a supernet or model of the same space and tasks.

    Args:
        module: the supernet or model.
        path: the checkpoint.
        steps: what the training must have done for the weights to be used.

    Raises:
        UserError: if the checkpoint is missing, damaged, of another space, tasks or arch, or of too few steps.
    """
    checkpoint = Checkpoint.load(path)
    checkpoint.check(path, module.space.model_dump(mode="json"), signatures(module.tasks))  # type: ignore[union-attr,operator,arg-type]
    if checkpoint.step < steps:
        raise UserError(
            f"{path} is of a training that ended at step {checkpoint.step} of {steps}: finish it with --resume first"
        )
    try:
        module.load_state_dict(checkpoint.weights)
    except RuntimeError as error:
        reason = str(error).splitlines()[-1].strip()
        raise UserError(f"{path} does not fit this run ({reason}): use the run's own checkpoint") from None
    return checkpoint


def signatures(tasks: Mapping[str, Task]) -> dict[str, Any]:
    """Return, as plain values, what the shapes of the tasks' weights depend on."""
    return {
        name: {
            "kind": task.config.kind,
            "classes": list(task.info.classes),
            "image_size": list(task.config.data.image_size),
            "head": task.config.head.model_dump(mode="json"),
        }
        for name, task in tasks.items()
    }


def _step_of(line: str) -> float:
    """Return the step of a line of metrics.jsonl; a line cut short by a kill counts as later than all."""
    try:
        return int(json.loads(line)["step"])
    except (json.JSONDecodeError, KeyError, TypeError):
        return math.inf
