"""A network's metrics on a data set."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any

import torch

from nasmvt.data.types import Batch
from nasmvt.errors import UserError
from nasmvt.precision import Precision
from nasmvt.tasks.jackknife import GROUPS
from nasmvt.tasks.modes import evaluating
from nasmvt.tasks.network import Prediction, TaskNetwork
from nasmvt.tasks.precision import autocast
from nasmvt.tasks.task import Task


def evaluate(
    network: TaskNetwork,
    batches: Iterable[Batch],
    task: Task,
    device: torch.device | str,
    precision: Precision = "fp32",
) -> dict[str, float]:
    """Return the task's metric of a network on evaluation batches, in percent.

    The network is in evaluation mode meanwhile; its mode is restored. The size of the batches and their
    padding do not affect the result.

    Args:
        network: the task's network, on `device`.
        batches: images with targets in their original pixels.
        task: whose metric is computed; `data.test` says how images are read.
        device: where the network is.
        precision: in which it computes.

    Raises:
        UserError: if there is no image.
    """
    metric = task.metric()
    for predictions, targets in _predicted(network, batches, task, device, precision):
        metric.update(predictions, targets)
    return metric.compute()


@dataclass(frozen=True)
class Resampled:
    """The metrics of a network on a data set, and how they depend on which images it has."""

    metrics: dict[str, float]
    """On all images, in percent."""
    without: tuple[float, ...]
    """The primary metric on all images but one group, group by group (see `nasmvt.tasks.jackknife`)."""


def evaluate_resampled(
    network: TaskNetwork,
    batches: Iterable[Batch],
    task: Task,
    device: torch.device | str,
    precision: Precision = "fp32",
    groups: int = GROUPS,
) -> Resampled:
    """Evaluate as `evaluate` does, and also without every `groups`-th image, from each start.

    Raises:
        UserError: if there is no image.
    """
    metric, parts = task.metric(), [task.metric() for _ in range(groups)]
    place = count()
    for predictions, targets in _predicted(network, batches, task, device, precision):
        metric.update(predictions, targets)
        for i in range(len(predictions)):
            parts[next(place) % groups].update(predictions[i : i + 1], targets[i : i + 1])
    without = []
    for left_out in range(groups):
        rest = task.metric()
        for part in parts[:left_out] + parts[left_out + 1 :]:
            rest.add(part)
        without.append(rest.compute()[task.primary])
    return Resampled(metric.compute(), tuple(without))


def _predicted(
    network: TaskNetwork, batches: Iterable[Batch], task: Task, device: torch.device | str, precision: Precision
) -> Iterator[tuple[Sequence[Prediction], Any]]:
    """Yield the predictions and the targets of every batch."""
    predictor, images = task.predictor(network), 0
    with evaluating(network), torch.inference_mode():
        for batch in batches:
            with autocast(precision, device):
                predictions = predictor.predict(batch.images.to(device), batch.infos)
            yield predictions, batch.targets
            images += len(predictions)
    if not images:
        raise UserError(f"an evaluation needs images, but '{task.name}' has none: check its splits")
