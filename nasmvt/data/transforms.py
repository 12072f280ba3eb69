"""From a decoded image and its labels to the canvas of a batch.

Shapes: H, W canvas height and width, h, w image height and width, n objects.
"""

from typing import Any

import numpy as np
import torch
from PIL import Image
from torchvision.transforms import InterpolationMode, v2
from torchvision.transforms.v2 import functional as F

from nasmvt.data.config import DataConfig
from nasmvt.data.geometry import Geometry, fit_size, pad
from nasmvt.data.pictures import to_rgb
from nasmvt.data.types import ImageInfo, Kind, Sample
from nasmvt.errors import UserError


def to_tensor(picture: Any) -> torch.Tensor:
    """Return a PIL image, a uint8 array (h, w, 3) or a uint8 tensor (3, h, w) as a tensor (3, h, w).

    Raises:
        UserError: if it is something else.
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

    The image is resized (bilinear, antialiased, up or down) to fit the canvas, keeping its aspect, put
    at the top left, and padded with the mean colour.
    """

    def __init__(self, config: DataConfig) -> None:
        self._canvas = config.image_size
        self._padding = _mean_colour(config)

    def __call__(self, picture: Any, id: int | str = 0) -> tuple[torch.Tensor, ImageInfo]:
        """Return the canvas, uint8 (3, H, W), and where the image lies on it.

        Args:
            image: a PIL image, a uint8 array (h, w, 3) or a uint8 tensor (3, h, w).
            id: what the image is called in the info.

        Raises:
            UserError: if the image is something else.
        """
        image = to_tensor(picture)
        size = (image.shape[1], image.shape[2])
        valid = fit_size(size, self._canvas)
        image = F.resize(image, list(valid), interpolation=InterpolationMode.BILINEAR, antialias=True)
        return pad(image, self._canvas, self._padding), ImageInfo(id=id, size=size, valid=valid)


class TrainTransform:
    """The random transform of training images of one kind of task.

    It draws from the global generators of torch, numpy and `random`: call it inside `nasmvt.seeding.seeded`.
    Classification is timm's pipeline; detection and segmentation are flipped, scaled, cropped or padded,
    image and labels alike.

    Raises:
        UserError: if `augmentation.auto_augment` is no policy of timm's.
    """

    def __init__(self, config: DataConfig, kind: Kind) -> None:
        self._kind = kind
        self._canvas = config.image_size
        self._padding = _mean_colour(config)
        self._augmentation = config.augmentation
        strength = config.augmentation.color_jitter
        self._jitter = v2.ColorJitter(strength, strength, strength) if strength else None
        self._mean = torch.tensor(config.mean).view(3, 1, 1)
        self._std = torch.tensor(config.std).view(3, 1, 1)
        self._classification = _timm_transform(config) if kind == "classification" else None

    def __call__(self, sample: Sample) -> tuple[torch.Tensor, Any, ImageInfo]:
        """Return the canvas, the target in its pixels, and where the image lies on it.

        Returns:
            classification: float32 (3, H, W) in 0..1 and the class index; detection: uint8 (3, H, W) and a
            dict of `boxes` (n, 4) float32 xyxy, `labels` (n,) int64 and, where the sample has them, `masks`
            (n, H, W) bool, without crowds and without objects that are cropped away; segmentation: uint8
            (3, H, W) and the uint8 label map (H, W), `IGNORE` on the padding.
        """
        size = (sample.image.height, sample.image.width)
        if self._classification is not None:
            normalised = self._classification(sample.image)
            image = (normalised * self._std + self._mean).clamp(0.0, 1.0)
            return image, sample.target, ImageInfo(id=sample.id, size=size, valid=self._canvas)
        image = to_tensor(sample.image)
        geometry = Geometry(size, self._canvas, self._augmentation.scale, self._augmentation.hflip)
        info = ImageInfo(id=sample.id, size=size, valid=geometry.valid)
        image = geometry.image(image)
        if self._jitter is not None:
            image = self._jitter(image)
        image = pad(image, self._canvas, self._padding)
        if self._kind == "segmentation":
            return image, geometry.labels(sample.target), info
        return image, geometry.objects(sample.target), info


def _mean_colour(config: DataConfig) -> torch.Tensor:
    return (torch.tensor(config.mean) * 255).round().to(torch.uint8).view(3, 1, 1)


def _timm_transform(config: DataConfig) -> Any:
    """Return timm's training pipeline, from a PIL image to a normalised tensor.

    It normalises, and the caller undoes that: timm fills what a rotation uncovers, and erases, around the
    mean it is given, which would be black if it were told a mean of 0.
    """
    from timm.data import create_transform

    augmentation = config.augmentation
    try:
        return create_transform(
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
        )
    except (AssertionError, KeyError, ValueError):
        raise UserError(
            f"auto_augment must be a policy of timm's, but is {augmentation.auto_augment!r}: use one such as "
            f"'rand-m9-mstd0.5', or null for none"
        ) from None
