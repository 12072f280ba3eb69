"""Registry of kinds of tasks: classification, detection, segmentation, and those of users' modules."""

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
    """A kind of task.

    The geometry and collation of its targets are in `nasmvt.data.targets`, by the same name.
    """

    network: type[TaskNetwork]
    """The network around a backbone and a head."""
    metric: Callable[[DataInfo], TaskMetric]
    """Makes a fresh metric."""
    primary: str
    """The metric that enters the T-score."""
    head: str
    """The default head."""
    draw_target: Callable[[Tensor, Any, DataInfo], Image.Image]
    """Draws an image uint8 (3, H, W) of a training batch with its target."""
    nominal: DataInfo
    """What cost tables assume without the data."""
    most_classes: int | None = None
    """Maximum number of classes that its targets can encode."""


KINDS: Registry[Kind] = Registry(
    "kind of task", [f"nasmvt.tasks.{name}" for name in ("classification", "detection", "segmentation")]
)
"""The kinds by name."""
