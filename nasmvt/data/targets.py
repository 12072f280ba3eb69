"""The targets of a kind of task: how they move with their image and become a batch.

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
    """An image that is placed, but not yet padded to the canvas of its batch."""

    image: torch.Tensor
    """(3, *info.valid): uint8 in 0..255 or float32 in 0..1."""
    target: Any
    info: ImageInfo


class Targets(ABC):
    """Geometry and collation of one kind's targets.

    What a target is in a `Sample`, a training batch and an evaluation batch is up to the kind; the head of a task
    network reads the targets of a training batch, the metric those of an evaluation batch.
    """

    advice_for_one_class: str | None = None
    """Advice for data of a single class, if the kind needs two; None: one is enough."""

    @abstractmethod
    def move(self, target: Any, geometry: Geometry) -> Any:
        """Return a sample's target in the pixels of the placed image."""

    def balanced(self, target: Any, most: float) -> bool:
        """Return whether a moved target has several classes, none of them with more than a given part of it.

        As a rule any will do.
        """
        return True

    @abstractmethod
    def collate(self, targets: Sequence[Any], canvas: Size) -> Any:
        """Return the targets of a training batch: placed and padded to a canvas (H, W)."""

    def gather(self, targets: Sequence[Any], canvas: Size) -> Any:
        """Return the targets of an evaluation batch: those of the samples, in the pixels of the original images."""
        return list(targets)

    def count(self, targets: Iterable[Any], classes: int) -> LabelCounts:
        """Count the labels in the targets of samples; by default only the images are counted."""
        return LabelCounts(unit="images", images=sum(1 for _ in targets))

    def train_transform(self, config: DataConfig) -> Callable[[Sample], Placed] | None:
        """Return the kind's own random training transform; None: images are placed by `config.train_placement`."""
        return None

    def mixes(self, augmentation: AugmentationConfig) -> bool:
        """Return whether `mix` mixes images: that of a slot with that of the slot as far from the other end."""
        return False

    def mix(
        self, images: torch.Tensor, targets: Any, augmentation: AugmentationConfig, classes: int
    ) -> tuple[torch.Tensor, Any]:
        """Mix the images and targets of a training batch at random; by default nothing is mixed."""
        return images, targets


TARGETS: Registry[Targets] = Registry(
    "kind of targets", [f"nasmvt.data.{kind}" for kind in ("classification", "detection", "segmentation", "panoptic")]
)
"""The targets of every kind, by its name."""
