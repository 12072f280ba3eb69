"""What the data room knows of a kind of task: how its targets move with their image and become a batch.

Shapes: B batch, H, W canvas height and width.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import torch

from nasmvt.data.config import AugmentationConfig, DataConfig
from nasmvt.data.geometry import Geometry, Size
from nasmvt.data.report import LabelCounts
from nasmvt.data.types import ImageInfo, Sample
from nasmvt.registry import Registry


class Placed(NamedTuple):
    """An image on its way into a batch: placed, not yet padded to the canvas of the batch."""

    image: torch.Tensor
    """(3, *info.valid): uint8 in 0..255 or float32 in 0..1."""
    target: Any
    info: ImageInfo


class Targets(ABC):
    """Geometry and collation of one kind's targets.

    What a target is, in a `Sample`, a training batch and an evaluation batch, is the kind's own affair; the head of
    a task network reads that of a training batch, the metric that of an evaluation batch.
    """

    advice_for_one_class: str | None = None
    """What to do about data of a single class, where there is nothing to tell apart then; None: one is enough."""

    @abstractmethod
    def move(self, target: Any, geometry: Geometry) -> Any:
        """Return a sample's target as it lies on the placed image, in its pixels."""

    @abstractmethod
    def collate(self, targets: Sequence[Any], canvas: Size) -> Any:
        """Return the targets of a training batch: moved ones, padded to a canvas (H, W)."""

    def gather(self, targets: Sequence[Any], canvas: Size) -> Any:
        """Return the targets of an evaluation batch: those of the samples, in the pixels of the original images."""
        return list(targets)

    def count(self, targets: Iterable[Any], classes: int) -> LabelCounts:
        """Count the labels in targets of samples, one after the other; a kind that counts none counts the images."""
        return LabelCounts(unit="images", images=sum(1 for _ in targets))

    def train_transform(self, config: DataConfig) -> Callable[[Sample], Placed] | None:
        """Return a random training transform of the kind's own; None: images are placed by `config.train_placement`."""
        return None

    def mix(
        self, images: torch.Tensor, targets: Any, augmentation: AugmentationConfig, classes: int
    ) -> tuple[torch.Tensor, Any]:
        """Mix the images and targets of a training batch, at random; as a rule nothing is mixed."""
        return images, targets


TARGETS: Registry[Targets] = Registry(
    "kind of targets", [f"nasmvt.data.{kind}" for kind in ("classification", "detection", "segmentation")]
)
"""The targets of every kind, by its name."""
