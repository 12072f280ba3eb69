"""A network around which images are tested in a way of its own; no network knows how it is tested."""

from collections.abc import Iterator, Sequence
from typing import Any

from torch import Tensor

from nasmvt.data.protocols import Protocol
from nasmvt.data.types import ImageInfo
from nasmvt.tasks.network import TaskNetwork


class Predictor:
    """Predicts images as a protocol places them.

    A kind whose predictions can be averaged has a class of its own, used where a protocol asks for more than one pass.

    Args:
        network: the network of a task.
        protocol: how images are placed.
    """

    def __init__(self, network: TaskNetwork, protocol: Protocol) -> None:
        self.network = network
        self.protocol = protocol

    def predict(self, images: Tensor, infos: Sequence[ImageInfo]) -> list[Any]:
        """Return a prediction for each image, in the pixels of the original one.

        Args:
            images: (B, 3, H, W), uint8 in 0..255 or floating point in 0..1: the views of all images, those of one
                image one after the other (see `EvalTransform.views`).
            infos: where each view lies on its canvas.
        """
        return self.network.predict(images, infos)

    def views(self, images: Tensor, infos: Sequence[ImageInfo]) -> Iterator[tuple[Tensor, Sequence[ImageInfo]]]:
        """Yield the views of each image, of (B, 3, H, W) those of all."""
        for start in range(0, len(images), self.protocol.passes):
            views = slice(start, start + self.protocol.passes)
            yield images[views], infos[views]
