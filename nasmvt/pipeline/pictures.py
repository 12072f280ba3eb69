"""Images in the run directory: what the networks were fed, and what they answered."""

from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from torchvision.transforms.functional import to_pil_image

from nasmvt.data.types import Batch
from nasmvt.files import atomic
from nasmvt.tasks.draw import draw_prediction, draw_targets
from nasmvt.tasks.drawing import draw_grid
from nasmvt.tasks.network import TaskNetwork
from nasmvt.tasks.task import Task


def save_batches(folder: Path, batches: Mapping[str, Batch], tasks: Mapping[str, Task]) -> None:
    """Draw a batch of every task with its labels, into `<folder>/<task>.png`."""
    for name, batch in batches.items():
        with atomic(folder / f"{name}.png") as path:
            draw_targets(batch, tasks[name].info).save(path)


def save_predictions(
    path: Path, network: TaskNetwork, batches: Iterable[Batch], task: Task, device: torch.device
) -> None:
    """Draw what a network says of the first batch, on the canvas it sees."""
    batch = next(iter(batches)).to(device)
    predictions = network.predict(batch.images[:16])
    images = [to_pil_image(image) for image in batch.images[:16].cpu()]
    pictures = [draw_prediction(image, p) for image, p in zip(images, predictions, strict=True)]
    with atomic(path) as temporary:
        draw_grid(pictures).save(temporary)
