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
from nasmvt.data.geometry import Balanced, Geometry, Placement, Size, always, pad
from nasmvt.data.photometric import distort
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

    An image is placed as `config.test` says; by default it is resized to fit the canvas (bilinear, antialiased, up or
    down), keeping its aspect ratio, put at the top left, and padded with the mean colour.
    """

    def __init__(self, config: DataConfig) -> None:
        self.placement = config.test_placement
        self.placements = config.test_placements
        self.colour = mean_colour(config)

    def __call__(self, image: Any, id: int | str = 0) -> tuple[torch.Tensor, ImageInfo]:
        """Return the canvas of a single image that is read once, uint8 (3, H, W), and the image's position on it.

        Args:
            image: a PIL image, a uint8 array (h, w, 3) or a uint8 tensor (3, h, w).
            id: the image's id in the info.

        Raises:
            UserError: if the image is something else.
        """
        placed, _, info = _place(to_tensor(image), self.placement, id)
        return pad(placed, self.placement.canvas([info.valid]), self.colour), info

    def views(self, image: Any, id: int | str = 0) -> tuple[torch.Tensor, list[ImageInfo]]:
        """Return every view of a single image on a common canvas, uint8 (V, 3, H, W), and where the image lies on each.

        Arguments and errors are those of a call.
        """
        batch = collate(self.placed(image, None, id), lambda targets, canvas: None, self.placement, self.colour)
        return batch.images, list(batch.infos)

    def placed(self, image: Any, target: Any, id: int | str) -> list[Placed]:
        """Return every view of an image without padding, with the target as it is given."""
        tensor = to_tensor(image)
        views = (_place(tensor, placement, id) for placement in self.placements)
        return [Placed(image, target, info) for image, _, info in views]

    def place(self, image: Any, id: int | str = 0) -> tuple[torch.Tensor, Geometry, ImageInfo]:
        """Return an image that is read once, without padding, uint8 (3, *info.valid), with how it was placed."""
        return _place(to_tensor(image), self.placement, id)


def _place(
    image: torch.Tensor, placement: Placement, id: int | str, balanced: Balanced = always
) -> tuple[torch.Tensor, Geometry, ImageInfo]:
    geometry = placement.place((image.shape[1], image.shape[2]), balanced)
    canvas = placement.canvas([geometry.valid])
    info = ImageInfo(id=id, size=geometry.size, valid=geometry.valid, canvas=canvas, flip=geometry.flip)
    return geometry.image(image), geometry, info


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
        self._photometric = config.augmentation.photometric

    def __call__(self, sample: Sample) -> Placed:
        """Return the placed image without padding, with its target in its pixels."""
        if self._own is not None:
            return self._own(sample)

        def balanced(geometry: Geometry, most: float) -> bool:
            return self._targets.balanced(self._targets.move(sample.target, geometry), most)

        image, geometry, info = _place(to_tensor(sample.image), self._placement, sample.id, balanced)
        if self._jitter is not None:
            image = self._jitter(image)
        if self._photometric:
            image = distort(image)
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
