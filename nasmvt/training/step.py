"""One optimizer step: every task on every arch of the step, part by part."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from nasmvt.data.types import Batch
from nasmvt.seeding import derive_seed, seeded
from nasmvt.space import Arch
from nasmvt.tasks.precision import autocast
from nasmvt.tasks.trainable import Trainable
from nasmvt.training.config import TrainingConfig
from nasmvt.training.processes import Processes
from nasmvt.training.sampling import make_sampling
from nasmvt.training.update import Update


class Taken(NamedTuple):
    """What came of a step, on the device."""

    losses: dict[str, dict[str, Tensor]]
    """By task and name, averaged over archs and parts."""
    norm: Tensor
    """Of all gradients, before clipping."""


class Step:
    """Sums the gradients of all tasks, parts and processes, averaged over the archs, into one update.

    Nothing here waits for the device.

    The loss of a part counts by its share of the images, so the gradients of losses that are means over images (or over
    equally many things of every image) are those of the whole batch. Running statistics are averaged over the processes
    in every step, so that all hold the same state between two.

    Args:
        trainable: what is trained.
        update: turns gradients into weights.
        config: settings.
        seed: of everything random.
        device: where the batches are moved to.
        processes: those that share the parts of a step.
    """

    def __init__(
        self,
        trainable: Trainable,
        update: Update,
        config: TrainingConfig,
        seed: int,
        device: torch.device,
        processes: Processes,
    ) -> None:
        self._trainable = trainable
        self._update = update
        self._precision = config.precision
        self._seed = seed
        self._device = device
        self._processes = processes
        self._parts = processes.parts(config.accumulate)
        self._statistics = _statistics(trainable)
        self._sample = make_sampling(config)

    def archs(self, step: int) -> list[Arch]:
        """Return the archs of a step, counted from 0."""
        return self._sample(self._trainable, np.random.default_rng(derive_seed(self._seed, "arch", step)))

    def __call__(self, step: int, archs: Sequence[Arch], batches: Sequence[Mapping[str, Batch]]) -> Taken:
        """Take a step, counted from 0, on the batches of each part wanted.

        What is random in a part depends on the seed, the step and the part, not on the process that computes it.
        """
        found = []
        self._update.begin()
        for part, tasks in zip(self._parts.wanted, batches, strict=True):
            place = (part, self._parts.of) if self._parts.of > 1 else ()
            with seeded(self._seed, "step", step, *place):
                for arch in archs:
                    share = 1 / (self._parts.of * len(archs))
                    found.append({name: self._backward(arch, name, batch, share) for name, batch in tasks.items()})
        self._processes.add_up(self._update.gradients())
        self._processes.average(self._statistics)
        return Taken(_mean(found), self._update.step())

    def _backward(self, arch: Arch, task: str, batch: Batch, share: float) -> dict[str, Tensor]:
        with autocast(self._precision, self._device):
            losses = self._trainable(arch, task, batch.to(self._device))
        total = torch.stack(list(losses.values())).sum()
        self._update.backward(total * (self._trainable.tasks[task].config.loss_weight * share))
        return {name: loss.detach() for name, loss in losses.items()}


def _statistics(trainable: Trainable) -> list[Tensor]:
    """Return what networks gather by themselves (running statistics of norms), where it is stored."""
    trained = {item.parameter.data_ptr() for item in trainable.trained()}
    tensors = trainable.state_dict().values()
    return [tensor for tensor in tensors if tensor.is_floating_point() and tensor.data_ptr() not in trained]


def _mean(parts: Sequence[Mapping[str, Mapping[str, Tensor]]]) -> dict[str, dict[str, Tensor]]:
    return {
        task: {name: torch.stack([part[task][name] for part in parts]).mean() for name in losses}
        for task, losses in parts[0].items()
    }
