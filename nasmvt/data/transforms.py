"""From decoded images and their labels to a batch on one canvas.

Shapes: B batch, H, W canvas height and width, h, w image height and width.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as F

from nasmvt.data.config import DataConfig
from nasmvt.data.geometry import Geometry, Placement, Size, pad
from nasmvt.data.pictures import to_rgb
from nasmvt.data.targets import Placed, Targets
from nasmvt.data.types import Batch, ImageInfo, Sample
from nasmvt.errors import UserError


def to_tensor(picture: Any) -> torch.Tensor:
    """Return a PIL image, a uint8 array (h, w, 3) or a uint8 tensor (3, h, w) as a tensor (3, h, w).

    Raises:
        UserError: if it is anything else.
    """
    if isinstance(picture, Image.Image):
        tensor: torch.Tensor = F.pil_to_tensor(picture if picture.mode == "RGB" else to_rgb(picture))
        return tensor
    if isinstance(picture, np.ndarray) and picture.dtype == np.uint8 and picture.ndim == 3 and picture.shape[2] == 3:
        return torch.tensor(picture).permute(2, 0, 1)
    if isinstance(picture, torch.Tensor) and picture.dtype == torch.uint8 and picture.ndim == 3 and len(picture) == 3:
        return picture
    given = f"{type(picture).__name__} {tuple(getattr(picture, 'shape', ()))} {getattr(picture, 'dtype', '')}"
    raise UserError(
        f"an image must be a PIL image, a uint8 array (H, W, 3) or a uint8 tensor (3, H, W), "
        f"but is {given.strip()}: convert it"
    )


class EvalTransform:
    """The one transform of evaluation, prediction and export, for every kind of task.

    The image is placed by `config.test_placement`: resized to fit the canvas (bilinear, antialiased, up or down),
    keeping its aspect ratio, put at the top left, and padded with the mean colour.
    """

    def __init__(self, config: DataConfig) -> None:
        self.placement = config.test_placement
        self.colour = mean_colour(config)

    def __call__(self, image: Any, id: int | str = 0) -> tuple[torch.Tensor, ImageInfo]:
        """Return the canvas of a single image, uint8 (3, H, W), and the image's position on it.

        Args:
            image: a PIL image, a uint8 array (h, w, 3) or a uint8 tensor (3, h, w).
            id: the image's id in the info.

        Raises:
            UserError: if the image is something else.
        """
        placed, _, info = self.place(image, id)
        return pad(placed, self.placement.canvas([info.valid]), self.colour), info

    def place(self, image: Any, id: int | str = 0) -> tuple[torch.Tensor, Geometry, ImageInfo]:
        """Return an image without padding, uint8 (3, *info.valid), with how it was placed."""
        tensor = to_tensor(image)
        geometry = self.placement.place((tensor.shape[1], tensor.shape[2]))
        return geometry.image(tensor), geometry, ImageInfo(id=id, size=geometry.size, valid=geometry.valid)


class TrainTransform:
    """The random transform of training images.

    It draws from the global generators of torch, numpy and `random`: call it inside `nasmvt.seeding.seeded`.
    By default image and labels are flipped, scaled and cropped together by `config.train_placement`; a kind may have
    its own transform (classification has timm's).

    Raises:
        UserError: if `augmentation.auto_augment` is not a timm policy.
    """

    def __init__(self, config: DataConfig, targets: Targets) -> None:
        self._targets = targets
        self._placement = config.train_placement
        self._own: Callable[[Sample], Placed] | None = targets.train_transform(config)
        strength = config.augmentation.color_jitter
        self._jitter = v2.ColorJitter(strength, strength, strength) if strength else None

    def __call__(self, sample: Sample) -> Placed:
        """Return the placed image without padding, with its target in its pixels."""
        if self._own is not None:
            return self._own(sample)
        image = to_tensor(sample.image)
        geometry = self._placement.place((image.shape[1], image.shape[2]))
        image = geometry.image(image)
        if self._jitter is not None:
            image = self._jitter(image)
        info = ImageInfo(id=sample.id, size=geometry.size, valid=geometry.valid)
        return Placed(image, self._targets.move(sample.target, geometry), info)


def collate(
    placed: Sequence[Placed],
    gather: Callable[[Sequence[Any], Size], Any],
    placement: Placement,
    colour: torch.Tensor,
) -> Batch:
    """Return placed images as a batch on one canvas (H, W), padded with a colour.

    Args:
        placed: the images.
        gather: collates their targets, given the canvas.
        placement: gives the canvas.
        colour: of the padding, uint8 (3, 1, 1).
    """
    canvas = placement.canvas([info.valid for _, _, info in placed])
    return Batch(
        images=torch.stack([pad(image, canvas, colour.to(image.dtype)) for image, _, _ in placed]),
        targets=gather([target for _, target, _ in placed], canvas),
        infos=[info for _, _, info in placed],
    )


def mean_colour(config: DataConfig) -> torch.Tensor:
    """Return the colour of padding, uint8 (3, 1, 1)."""
    return (torch.tensor(config.mean) * 255).round().to(torch.uint8).view(3, 1, 1)
