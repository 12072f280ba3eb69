"""Values shared by the package: samples, batches, and the origin of an image.

Shapes: B batch, H height, W width, n objects, K classes.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from PIL import Image

IGNORE = 255
"""The label of pixels that count neither in the loss nor in the metric."""


@dataclass(frozen=True, kw_only=True)
class DataInfo:
    """What a network needs to know about its data set."""

    kind: str
    """The kind of task, a registered one (see `nasmvt.tasks.kinds`)."""
    classes: tuple[str, ...]
    """Class names; a label is an index into them."""
    things: int = 0
    """Panoptic segmentation: number of classes that are things; they come first, the others are stuff."""
    category_ids: tuple[int, ...] = ()
    """Panoptic segmentation: the id of each class in the files of the data set."""
    has_masks: bool = False
    """Detection: whether every object has a mask."""


@dataclass(frozen=True, kw_only=True)
class ImageInfo:
    """The origin of an image, and its place on the canvas: at the top left, padded on the right and at the bottom."""

    id: int | str
    """COCO's image id, or the path relative to the data root."""
    size: tuple[int, int]
    """Height and width of the original image in pixels."""
    valid: tuple[int, int]
    """Height and width that the resized image covers on the canvas; the rest is padding."""
    canvas: tuple[int, int] | None = None
    """Height and width of the canvas that the image lies on by itself, of which a network is to see no more in
    evaluation, whatever the batch is padded to; None: the canvas of the batch."""
    flip: bool = False
    """Whether the image is mirrored from left to right."""


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One decoded image with its labels, in the pixels of the original image.

    What a target is depends on the kind (see `nasmvt.data.targets`).
    """

    id: int | str
    image: Image.Image
    target: Any


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Images on a common canvas.

    `images` is (B, 3, H, W), uint8 in 0..255 or float32 in 0..1; networks normalise it themselves. `targets` are
    collated by the kind's `Targets`: in canvas pixels for a training batch, in the pixels of the original images
    for an evaluation batch. `infos` say which part of the canvas each image covers. Where test images are read several
    times, an evaluation batch holds all views of an image, one after the other, and one target for them.
    """

    images: torch.Tensor
    targets: Any
    infos: Sequence[ImageInfo]

    def to(self, device: torch.device | str) -> "Batch":
        """Return the batch with its images and targets on `device`; copies to CUDA are asynchronous."""
        device = torch.device(device)
        return replace(self, images=_move(self.images, device), targets=_move(self.targets, device))


def _move(value: Any, device: torch.device) -> Any:
    if isinstance(value, torch.Tensor):
        if device.type == "cuda" and value.device.type == "cpu":  # only copies from pinned memory are asynchronous
            return value.pin_memory().to(device, non_blocking=True)
        return value.to(device)
    if isinstance(value, dict):
        return {key: _move(item, device) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_move(item, device) for item in value]
    return value
