"""Kinds of tasks by name: classification, detection, segmentation, and those of modules of the user's."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from PIL import Image
from torch import Tensor

from nasmvt.data.types import DataInfo
from nasmvt.registry import Registry
from nasmvt.tasks.network import TaskMetric, TaskNetwork


@dataclass(frozen=True, kw_only=True)
class Kind:
    """What a task may be about.

    The geometry and collation of its targets are in `nasmvt.data.targets`, by the same name.
    """

    network: type[TaskNetwork]
    """The network around a backbone and a head."""
    metric: Callable[[DataInfo], TaskMetric]
    """Makes a fresh metric."""
    primary: str
    """The figure of the metric that enters the T-score."""
    head: str
    """The head of a task that names none."""
    draw_target: Callable[[Tensor, Any, DataInfo], Image.Image]
    """Draws an image uint8 (3, H, W) of a training batch with its target."""
    nominal: DataInfo
    """What tables assume where the data are not at hand."""
    most_classes: int | None = None
    """Most classes that its targets can tell apart."""


KINDS: Registry[Kind] = Registry(
    "kind of task", [f"nasmvt.tasks.{name}" for name in ("classification", "detection", "segmentation")]
)
"""The kinds by name."""
