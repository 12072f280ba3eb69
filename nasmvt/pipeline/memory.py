"""What a step of a supernet's training takes in memory, before anything is started."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from nasmvt.cost.memory import activation_bytes
from nasmvt.errors import UserError
from nasmvt.pipeline.datasets import TaskData, infos_of, open_data
from nasmvt.pipeline.experiment import Experiment
from nasmvt.pipeline.supernet import build_supernet
from nasmvt.seeding import seeded
from nasmvt.tasks.blocks import recomputed_blocks
from nasmvt.tasks.build import build_network
from nasmvt.tasks.task import Task
from nasmvt.tasks.trainable import Trained
from nasmvt.training.config import TrainingConfig
from nasmvt.training.optimizer import NamedOptimizer

_MEASURED = (2, 4)
"""Images that are passed through the network; more are extrapolated, as activations grow by image."""


@dataclass(frozen=True, kw_only=True)
class StepMemory:
    """Bytes that a step takes in one process."""

    weights: int
    """Of the supernet: those of all tasks, shared ones, scores, statistics."""
    gradients: int
    """If every parameter has one."""
    optimizer: int
    """State of the optimizer."""
    averages: int
    """Of `ema`."""
    activations: Mapping[str, int]
    """What each task's pass holds beside, with the largest arch; the tasks run one after the other."""
    images: Mapping[str, int]
    """Images that go through at a time."""

    @property
    def total(self) -> int:
        """The most that is held at a time."""
        return self.weights + self.gradients + self.optimizer + self.averages + max(self.activations.values())

    def to_dict(self) -> dict[str, Any]:
        """Return plain values."""
        return {**vars(self), "total": self.total}


def step_memory(experiment: Experiment, processes: int = 1) -> StepMemory:
    """Measure what a training step takes, on the CPU and with the first images of the training data.

    Args:
        experiment: what would be trained.
        processes: that train together.

    Raises:
        UserError: if the data can't be read, or batches can't be cut into the parts of a step.
    """
    data, config = open_data(experiment), experiment.training
    with torch.device("meta"):
        supernet = build_supernet(experiment, infos_of(data))
    trained = list(supernet.trained())
    stored = {id(tensor): tensor.nbytes for tensor in supernet.state_dict(keep_vars=True).values()}
    parts = processes * config.accumulate
    images = {name: _images(name, task, parts) for name, task in experiment.tasks.items()}
    return StepMemory(
        weights=sum(stored.values()),
        gradients=sum(item.parameter.nbytes for item in trained),
        optimizer=_state_bytes(trained, config),
        averages=0 if config.ema is None else sum(stored.values()),
        activations={
            name: _activations(experiment, supernet.tasks[name], data[name], count) for name, count in images.items()
        },
        images=images,
    )


def _images(name: str, task: Any, parts: int) -> int:
    count, rest = divmod(task.batch_size, parts)
    if rest:
        raise UserError(
            f"a step is cut into {parts} equal parts (processes x training.accumulate), but 'batch_size' of the task "
            f"'{name}' is {task.batch_size}: make it a multiple of {parts}"
        )
    return int(count)


def _activations(experiment: Experiment, task: Task, data: TaskData, images: int) -> int:
    """Return the bytes of a pass of some images, extrapolated from fewer where there are many."""
    config, space = experiment.training, experiment.space
    blocks = recomputed_blocks(space, config.activation_checkpointing)
    found = []
    for count in _MEASURED if images > max(_MEASURED) else (images,):
        with seeded("memory"):
            network = build_network(space, task, space.largest)
            batch = data.train_loader(batch_size=count).batch(0, size=task.size(space, space.largest))
            found.append(activation_bytes(network, batch, config.precision, blocks))
    few, many = found[0], found[-1]
    return few if len(found) == 1 else few + (images - _MEASURED[0]) * (many - few) // (_MEASURED[1] - _MEASURED[0])


def _state_bytes(trained: list[Trained], config: TrainingConfig) -> int:
    """Return the bytes of the optimizer's state, by a step of one parameter of each shape."""
    counts: dict[tuple[torch.Size, bool], int] = {}
    for item in trained:
        key = item.parameter.shape, item.decays
        counts[key] = counts.get(key, 0) + 1
    total = 0
    for (shape, decays), count in counts.items():
        parameter = nn.Parameter(torch.zeros(shape))
        parameter.grad = torch.zeros(shape)
        optimizer = NamedOptimizer([Trained("it", parameter, decays)], config).optimizer
        optimizer.step()
        state = optimizer.state[parameter].values()
        total += count * sum(value.nbytes for value in state if isinstance(value, torch.Tensor))
    return total
