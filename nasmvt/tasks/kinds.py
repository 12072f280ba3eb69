"""Registry of kinds of tasks: classification, detection, segmentation, and those of users' modules."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from PIL import Image
from torch import Tensor

from nasmvt.data.protocols import Protocol
from nasmvt.data.types import DataInfo
from nasmvt.errors import listed
from nasmvt.registry import Registry
from nasmvt.tasks.network import TaskMetric, TaskNetwork
from nasmvt.tasks.predictor import Predictor


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
    protocols: tuple[str, ...] = ("fit",)
    """The ways of placing test images that fit it (see `nasmvt.data.protocols`)."""
    paper: Protocol | None = None
    """How the published figures of most networks were measured."""
    predictor: type[Predictor] | None = None
    """Predicts where a protocol reads an image in windows or more than once; None: nothing does."""

    def check_protocol(self, kind: str, protocol: Protocol) -> None:
        """Refuse a protocol that the kind's images or predictions don't fit.

        Raises:
            ValueError: saying why.
        """
        if protocol.type not in self.protocols:
            raise ValueError(
                f"images of a {kind} task are placed by {listed(self.protocols)}, but 'data.test.type' is "
                f"'{protocol.type}': change it"
            )
        if not protocol.once and self.predictor is None:
            raise ValueError(
                f"a {kind} task reads an image whole and once, but 'data.test' asks for windows, several ratios or "
                "mirrored images: leave them out"
            )


KINDS: Registry[Kind] = Registry(
    "kind of task", [f"nasmvt.tasks.{name}" for name in ("classification", "detection", "segmentation")]
)
"""The kinds by name."""
