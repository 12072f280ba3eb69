"""Registry of kinds of tasks: classification, detection, segmentation, panoptic, and those of users' modules."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from PIL import Image
from torch import Tensor

from nasmvt.data.config import DataConfig
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
    count_objects: Callable[[Any], int] | None = None
    """Returns how many objects the target of an image has; None: its predictions are no scored objects."""
    nominal: DataInfo
    """What cost tables assume without the data."""
    most_classes: int | None = None
    """Maximum number of classes that its targets can encode."""
    results: Callable[[Sequence[Mapping[str, Any]], DataInfo], dict[str, Any]] | None = None
    """Puts what `nasmvt predict` writes of images into one file of the format of the kind's data sets; None: none."""
    placements: tuple[str, ...] = ("fit",)
    """The ways of placing training images that fit it (see `nasmvt.data.train_placements`)."""
    protocols: tuple[str, ...] = ("fit",)
    """The ways of placing test images that fit it (see `nasmvt.data.protocols`)."""
    paper: Protocol | None = None
    """How the published figures of most networks were measured."""
    predictor: type[Predictor] | None = None
    """Predicts where a protocol reads an image in windows or more than once; None: nothing does."""

    def check_data(self, kind: str, data: DataConfig) -> None:
        """Refuse ways of placing images that don't fit the kind, called `kind`.

        Raises:
            ValueError: saying why.
        """
        for key, given, fitting in (
            ("train", data.train.type, self.placements),
            ("test", data.test.type, self.protocols),
        ):
            if given not in fitting:
                raise ValueError(
                    f"images of a {kind} task are placed by {listed(fitting)}, but 'data.{key}.type' is '{given}': "
                    "change it"
                )
        if not data.test.once and self.predictor is None:
            raise ValueError(
                f"a {kind} task reads an image whole and once, but 'data.test' asks for windows, several ratios or "
                "mirrored images: leave them out"
            )


KINDS: Registry[Kind] = Registry(
    "kind of task", [f"nasmvt.tasks.{name}" for name in ("classification", "detection", "segmentation", "panoptic")]
)
"""The kinds by name."""
