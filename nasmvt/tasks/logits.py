"""Networks whose head gives logits of classes, for images or for cells.

Shapes: B batch, K classes, H canvas height, W canvas width.
"""

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

from torch import Tensor

from nasmvt.data.types import ImageInfo
from nasmvt.heads.sizes import Sizes
from nasmvt.tasks.lessons import Learned, SoftLabels
from nasmvt.tasks.network import TaskNetwork, whole


class LogitsNetwork(TaskNetwork):
    """A network whose head turns maps into logits; one that has `criterion(logits, targets)` teaches soft labels."""

    @abstractmethod
    def logits(self, maps: tuple[Tensor, ...], sizes: Any) -> Tensor:
        """Return the head's logits (B, K, ...) of maps; `sizes` are those of the images on the canvas."""

    def forward(self, images: Tensor) -> Tensor:
        """Turn images (B, 3, H, W) into logits."""
        return self.logits(self.maps(images), whole(images))

    def outputs(self, images: Tensor, infos: Sequence[ImageInfo]) -> dict[str, Tensor]:
        """Return `logits`."""
        return {"logits": self.logits(self.maps(images), [info.valid for info in infos])}

    def static(self, images: Tensor, sizes: Tensor) -> dict[str, Tensor]:
        """Return `logits`."""
        return {"logits": self.logits(self._maps(images), sizes)}

    def _learn(self, maps: tuple[Tensor, ...], targets: Any, sizes: Sizes) -> Learned:
        if self.teaches_maps:
            return super()._learn(maps, targets, sizes)
        logits = self.logits(maps, sizes)
        return Learned(self.head.criterion(logits, targets), SoftLabels(logits, sizes))

    @property
    def teaches_maps(self) -> bool:
        """Whether the head has no `criterion` that its `losses` are made by; a subclass overrides both or none."""
        criterion, losses = (_owner(self.head, name) for name in ("criterion", "losses"))
        return criterion is None or losses is None or not issubclass(criterion, losses)


def _owner(head: object, name: str) -> type | None:
    """Return the class that a head has a method from."""
    return next((cls for cls in type(head).__mro__ if name in vars(cls)), None)
