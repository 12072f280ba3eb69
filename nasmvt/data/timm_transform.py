"""timm's training pipeline of classification."""

from typing import Any

import torch
from PIL import Image

from nasmvt.data.config import DataConfig
from nasmvt.data.targets import Placed
from nasmvt.data.types import ImageInfo, Sample
from nasmvt.errors import UserError


def timm_stages(config: DataConfig) -> "tuple[list[Any], list[Any], Finish]":
    """Return timm's transforms in three stages.

    These are the random resized crop and the flip; the automatic augmentation or the change of colours; what turns an
    image into a tensor, erasing included.

    Raises:
        UserError: if `augmentation.auto_augment` is not a policy of timm's.
    """
    from timm.data import create_transform

    augmentation = config.augmentation
    try:
        stages: Any = create_transform(
            input_size=(3, *config.image_size),
            is_training=True,
            scale=(augmentation.crop_scale, 1.0),
            hflip=augmentation.hflip,
            color_jitter=augmentation.color_jitter or None,
            auto_augment=augmentation.auto_augment,
            interpolation="random",
            mean=config.mean,
            std=config.std,
            re_prob=augmentation.erasing,
            re_mode="pixel",
            separate=True,
        )
    except (AssertionError, KeyError, ValueError):
        raise UserError(
            f"auto_augment must be a policy of timm's, but is {augmentation.auto_augment!r}: use one such as "
            f"'rand-m9-mstd0.5', or null for none"
        ) from None
    first, second, last = stages

    return first.transforms, second.transforms, Finish(last, config)


class Finish:
    """Turns an image into float32 (3, H, W) in 0..1 by the last of timm's stages.

    It normalises, which is undone here: timm fills what a rotation uncovers, and erases, around the mean it is given,
    which would be black with a mean of 0.
    """

    def __init__(self, last: Any, config: DataConfig) -> None:
        self._last = last
        self._mean, self._std = (torch.tensor(values).view(3, 1, 1) for values in (config.mean, config.std))

    def __call__(self, image: Image.Image) -> torch.Tensor:
        """Return the tensor of an image."""
        tensor: torch.Tensor = (self._last(image) * self._std + self._mean).clamp(0.0, 1.0)
        return tensor


class TimmTransform:
    """timm's pipeline, from a sample to float32 (3, H, W) in 0..1.

    Raises:
        UserError: if `augmentation.auto_augment` is not a policy of timm's.
    """

    def __init__(self, config: DataConfig) -> None:
        self._canvas = config.image_size
        first, second, self._finish = timm_stages(config)
        self._transforms = [*first, *second]

    def __call__(self, sample: Sample) -> Placed:
        """Return the augmented image with its target."""
        image, size = sample.image, (sample.image.height, sample.image.width)
        for transform in self._transforms:
            image = transform(image)
        return Placed(self._finish(image), sample.target, ImageInfo(id=sample.id, size=size, valid=self._canvas))
