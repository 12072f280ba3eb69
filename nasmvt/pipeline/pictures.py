"""Images in the run directory: inputs of the networks, and their predictions."""

from pathlib import Path

import torch

from nasmvt.data.types import Batch
from nasmvt.files import atomic
from nasmvt.tasks.draw import draw_beside, draw_targets
from nasmvt.tasks.network import TaskNetwork
from nasmvt.tasks.task import Task

_SHOWN = 16
"""Images in a drawing."""


def save_batch(path: Path, batch: Batch, task: Task) -> None:
    """Draw a batch of a task with its labels."""
    with atomic(path) as temporary:
        draw_targets(batch, task.info).save(temporary)


def save_predictions(path: Path, network: TaskNetwork, batch: Batch, task: Task, device: torch.device) -> None:
    """Draw a network's predictions beside the labels of a batch, whose targets are on the canvas."""
    predictions = network.predict(batch.images[:_SHOWN].to(device))
    with atomic(path) as temporary:
        draw_beside(batch, predictions, task.info).save(temporary)
