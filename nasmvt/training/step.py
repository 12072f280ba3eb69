"""One optimizer step: every task on every arch of the step, part by part."""

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from nasmvt.data.geometry import Size
from nasmvt.data.types import Batch
from nasmvt.seeding import derive_seed, seeded
from nasmvt.space import Arch
from nasmvt.space.task_choice import RESOLUTION
from nasmvt.tasks.blocks import recomputed_blocks, recomputing
from nasmvt.tasks.lessons import Lesson
from nasmvt.tasks.precision import autocast
from nasmvt.tasks.trainable import Trainable
from nasmvt.training.config import TrainingConfig
from nasmvt.training.processes import Processes
from nasmvt.training.sampling import make_sampling
from nasmvt.training.update import Update

Sized = Mapping[Size, Batch]
"""A task's batch of a step by the size that its images are placed for: every size that an arch of the step reads."""

_AHEAD = 64
"""Steps whose archs are remembered: more than loaders are ahead of each other."""


class Taken(NamedTuple):
    """What came of a step, on the device."""

    losses: dict[str, dict[str, Tensor]]
    """By task and name, averaged over the parts and over the archs that have them."""
    norm: Tensor
    """Of all gradients, before clipping."""


class Step:
    """Sums the gradients of all tasks, parts and processes, averaged over the archs, into one update.

    Nothing here waits for the device.

    The loss of a part counts by its share of the images, so the gradients of losses that are means over images (or over
    equally many things of every image) are those of the whole batch. Running statistics are averaged over the processes
    in every step, so that all hold the same state between two.

    With distillation the first arch, the largest, teaches the others what it said in the same step.

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
        self._common = config.archs == "common"
        self._distillation = config.distillation
        self._channels_last = config.channels_last
        self._recomputed = recomputed_blocks(trainable.space, config.activation_checkpointing)
        self._drawn = lru_cache(_AHEAD)(self._draw)

    def archs(self, step: int) -> list[list[Arch]]:
        """Return the archs of a step, counted from 0: those of each process, or once those of all."""
        return self._drawn(step)

    def _draw(self, step: int) -> list[list[Arch]]:
        places = [()] if self._common else [(rank,) for rank in range(self._processes.count)]
        rngs = (np.random.default_rng(derive_seed(self._seed, "arch", step, *place)) for place in places)
        return [self._sample(self._trainable, rng, step) for rng in rngs]

    def sizes(self, task: str, step: int) -> list[Size]:
        """Return the sizes of images that the archs of a step, counted from 0, read of a task, each once."""
        space, its = self._trainable.space, self._trainable.tasks[task]
        if not any(each.part == RESOLUTION and each.task == task for each in space.task_choices):
            return [its.nominal_size]
        own = self.archs(step)[0 if self._common else self._processes.rank]
        return list(dict.fromkeys(its.size(space, arch) for arch in own))

    def __call__(self, step: int, drawn: Sequence[Sequence[Arch]], batches: Sequence[Mapping[str, Sized]]) -> Taken:
        """Take a step, counted from 0, on the archs of that step and the batches of each part wanted.

        What is random in a part depends on the seed, the step and the part, not on the process that computes it.
        """
        archs = drawn[0 if self._common else self._processes.rank]
        found: list[dict[str, dict[str, Tensor]]] = []
        self._update.begin()
        for part, tasks in zip(self._parts.wanted, batches, strict=True):
            place = (part, self._parts.of) if self._parts.of > 1 else ()
            share = 1 / (self._parts.of * len(archs))
            with seeded(self._seed, "step", step, *place):
                moved = {n: {at: b.to(self._device) for at, b in sized.items()} for n, sized in tasks.items()}
                found += self._teach(archs, moved, share)
        if not self._common:
            self._update.touch(self._processes.any(self._update.touched()))
        self._processes.add_up(self._update.gradients())
        self._processes.average(self._statistics)
        return Taken(_mean(found), self._update.step())

    def _teach(
        self, archs: Sequence[Arch], batches: Mapping[str, Sized], share: float
    ) -> list[dict[str, dict[str, Tensor]]]:
        """Run every task on every arch, backwards too; return the losses of each arch by task."""
        lessons: dict[str, Lesson] = {}
        found = []
        for arch in archs:
            losses = {}
            for name, sized in batches.items():
                batch = sized[self._trainable.tasks[name].size(self._trainable.space, arch)]
                losses[name], lesson = self._backward(arch, name, batch, share, lessons.get(name))
                if self._distillation is not None:
                    lessons.setdefault(name, lesson.detached())
            found.append(losses)
        return found

    def _backward(
        self, arch: Arch, task: str, batch: Batch, share: float, teacher: Lesson | None
    ) -> tuple[dict[str, Tensor], Lesson]:
        with autocast(self._precision, self._device):
            network = self._trainable.network_for_step(arch, task)
            last = network.trains_channels_last if self._channels_last is None else self._channels_last
            with (
                nullcontext() if self._recomputed is None else recomputing(network, self._recomputed),
                network.laid_out(last),
            ):
                losses, lesson = network.learn(batch.images, batch.targets, batch.infos)
        if teacher is not None and self._distillation is not None:
            losses = lesson.taught(losses, teacher, self._distillation)
        total = torch.stack(list(losses.values())).sum()
        self._update.backward(total * (self._trainable.tasks[task].config.loss_weight * share))
        return {name: loss.detach() for name, loss in losses.items()}, lesson


def _statistics(trainable: Trainable) -> list[Tensor]:
    """Return what networks gather by themselves (running statistics of norms), where it is stored."""
    trained = {item.parameter.data_ptr() for item in trainable.trained()}
    tensors = trainable.state_dict().values()
    return [tensor for tensor in tensors if tensor.is_floating_point() and tensor.data_ptr() not in trained]


def _mean(found: Sequence[Mapping[str, Mapping[str, Tensor]]]) -> dict[str, dict[str, Tensor]]:
    """Return the mean of each loss over the archs and parts that have it."""
    every: dict[str, dict[str, list[Tensor]]] = {}
    for tasks in found:
        for task, losses in tasks.items():
            for name, loss in losses.items():
                every.setdefault(task, {}).setdefault(name, []).append(loss)
    return {task: {name: torch.stack(values).mean() for name, values in own.items()} for task, own in every.items()}
