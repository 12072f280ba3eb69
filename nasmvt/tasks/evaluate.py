"""A network's metrics on a data set."""

from collections.abc import Iterable

import torch

from nasmvt.data.types import Batch
from nasmvt.errors import UserError
from nasmvt.precision import Precision
from nasmvt.tasks.modes import evaluating
from nasmvt.tasks.network import TaskNetwork
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
    metric, predictor = task.metric(), task.predictor(network)
    pictures = 0
    with evaluating(network), torch.inference_mode():
        for batch in batches:
            with autocast(precision, device):
                predictions = predictor.predict(batch.images.to(device), batch.infos)
            metric.update(predictions, batch.targets)
            pictures += len(predictions)
    if not pictures:
        raise UserError(f"an evaluation needs images, but '{task.name}' has none: check its splits")
    return metric.compute()
