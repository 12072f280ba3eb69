"""A backbone of two convolutions, and small tasks on it."""

from collections.abc import Callable
from typing import Any

import pytest
from torch import Tensor, nn

from nasmvt.data.types import DataInfo
from nasmvt.tasks import Task, TaskConfig, TaskNetwork

HEADS: dict[str, dict[str, Any]] = {
    "classification": {},
    "detection": {
        "width": 8,
        "rpn_convs": 1,
        "box_convs": 1,
        "box_hidden": 32,
        "mask_convs": 1,
        "roi_batch": 64,
        "pre_nms": (200, 100),
        "post_nms": (100, 20),
    },
    "segmentation": {"channels": 8, "aux_channels": 8},
}
CLASSES = ("circle", "square", "star")


class TinyBackbone(nn.Module):
    """Stride 16 by two convolutions; gives the same map as often as asked."""

    def __init__(self, width: int = 8, maps: int = 1) -> None:
        super().__init__()
        self.strides, self.widths = (16,) * maps, (width,) * maps
        self.first = nn.Conv2d(3, width, 4, stride=4)
        self.second = nn.Conv2d(width, width, 4, stride=4)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        return (self.second(self.first(images).relu()),) * len(self.strides)


@pytest.fixture
def make_task() -> Callable[..., Task]:
    def make(kind: str, classes: tuple[str, ...] = CLASSES, masks: bool = True, **head: Any) -> Task:
        config = TaskConfig.model_validate({"kind": kind, "head": {**HEADS[kind], **head}})
        return Task(
            name=kind,
            config=config,
            info=DataInfo(kind=kind, classes=classes, has_masks=masks and kind == "detection"),
        )

    return make


@pytest.fixture
def make_network() -> Callable[[Task], TaskNetwork]:
    def make(task: Task) -> TaskNetwork:
        return task.network(TinyBackbone(maps=4 if task.config.kind == "segmentation" else 1))

    return make
