"""Images in the run directory: inputs of the networks, and their predictions."""

from collections.abc import Iterable
from pathlib import Path

import torch
from torchvision.transforms.functional import to_pil_image

from nasmvt.data.types import Batch
from nasmvt.files import atomic
from nasmvt.tasks.draw import draw_prediction, draw_targets
from nasmvt.tasks.drawing import draw_grid
from nasmvt.tasks.network import TaskNetwork
from nasmvt.tasks.task import Task


def save_batch(path: Path, batch: Batch, task: Task) -> None:
    """Draw a batch of a task with its labels."""
    with atomic(path) as temporary:
        draw_targets(batch, task.info).save(temporary)


def save_predictions(
    path: Path, network: TaskNetwork, batches: Iterable[Batch], task: Task, device: torch.device
) -> None:
    """Draw a network's predictions for the first batch, on its canvas."""
    batch = next(iter(batches)).to(device)
    predictions = network.predict(batch.images[:16])
    images = [to_pil_image(image) for image in batch.images[:16].cpu()]
    pictures = [draw_prediction(image, p) for image, p in zip(images, predictions, strict=True)]
    with atomic(path) as temporary:
        draw_grid(pictures).save(temporary)
