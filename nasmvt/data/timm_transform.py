"""timm's training pipeline of classification."""

import random
from collections.abc import Sequence
from typing import Any

import torch
from PIL import Image
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as F

from nasmvt.data.config import DataConfig
from nasmvt.data.geometry import Size
from nasmvt.data.targets import Placed
from nasmvt.data.types import ImageInfo, Sample
from nasmvt.errors import UserError

Box = tuple[int, int, int, int]
"""Top, left, height and width of a part of an image, in pixels."""


def timm_stages(config: DataConfig) -> "tuple[list[Any], list[Any], Finish]":
    """Return timm's transforms in three stages.

    These are the random resized crop and the flip; the automatic augmentation or the change of colours; erasing.

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
    """Erases a part of an image, uint8 (3, H, W), by the last of timm's stages.

    timm erases normalised images with normal noise, which is turned into grey levels around the mean here.
    """

    def __init__(self, last: Any, config: DataConfig) -> None:
        from timm.data.random_erasing import RandomErasing

        self._erasing = next((stage for stage in last.transforms if isinstance(stage, RandomErasing)), None)
        self._mean, self._std = (torch.tensor(values).view(3, 1, 1) * 255 for values in (config.mean, config.std))

    def __call__(self, image: torch.Tensor) -> torch.Tensor:
        """Return the image, part of which may be erased."""
        if self._erasing is None:
            return image
        noise: torch.Tensor = self._erasing(torch.full(image.shape, torch.nan))
        levels = (noise * self._std + self._mean).round().clamp(0, 255)
        return torch.where(noise.isnan(), image, levels.nan_to_num().to(torch.uint8))


def resized_crop(image: Image.Image, box: Box, size: Size, how: InterpolationMode) -> torch.Tensor:
    """Cut a part out of an image and resize it, to uint8 (3, *size).

    torch resizes bytes as Pillow does, to within 3 grey levels (0.02 in the mean of photos), in half the time.

    Args:
        image: RGB.
        box: the part; at least a pixel is cut, where a side of a narrow image rounds to none.
        size: height and width of the result.
        how: bilinear or bicubic; antialiased.
    """
    top, left, height, width = box
    part = F.pil_to_tensor(image.crop((left, top, left + max(1, width), top + max(1, height))))
    resized: torch.Tensor = F.resize(part, list(size), how, antialias=True)
    return resized


class TimmTransform:
    """timm's pipeline, from a sample to uint8 (3, H, W).

    Raises:
        UserError: if `augmentation.auto_augment` is not a policy of timm's.
    """

    def __init__(self, config: DataConfig) -> None:
        self._canvas = config.image_size
        (self._crop, *self._flips), self._colours, self._finish = timm_stages(config)

    def __call__(self, sample: Sample) -> Placed:
        """Return the augmented image with its target."""
        box = self._crop.get_params(sample.image, self._crop.scale, self._crop.ratio)
        image = resized_crop(sample.image, box, self._canvas, random.choice(self._crop.interpolation))
        for flip in self._flips:
            image = flip(image)
        if self._colours:  # they are made for images of Pillow
            image = F.pil_to_tensor(apply(self._colours, F.to_pil_image(image)))
        info = ImageInfo(id=sample.id, size=(sample.image.height, sample.image.width), valid=self._canvas)
        return Placed(self._finish(image), sample.target, info)


def apply(stages: Sequence[Any], image: Image.Image) -> Image.Image:
    """Apply transforms one after the other."""
    for stage in stages:
        image = stage(image)
    return image
