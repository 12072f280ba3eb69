"""Targets of classification: class indices, or class proportions where images are mixed.

Shapes: B batch, H, W canvas height and width, K classes.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import torch

from nasmvt.data.config import AugmentationConfig, DataConfig
from nasmvt.data.geometry import Geometry, Size
from nasmvt.data.report import LabelCounts, count_indices
from nasmvt.data.targets import TARGETS, Placed, Targets
from nasmvt.data.types import ImageInfo, Sample
from nasmvt.errors import UserError


class ClassTargets(Targets):
    """A sample holds a class index; a batch holds indices (B,) int64, or shares (B, K) float32 after mixing."""

    advice_for_one_class = "set root to the folder that holds the splits, and give every class a folder"

    def move(self, target: int, geometry: Geometry) -> int:
        """Return the class, which placing an image does not change."""
        return target

    def collate(self, targets: Sequence[int], canvas: Size) -> torch.Tensor:
        """Return the indices (B,) int64."""
        return torch.tensor(targets, dtype=torch.int64)

    gather = collate

    def count(self, targets: Iterable[int], classes: int) -> LabelCounts:
        """Count the images of each class."""
        labels = np.fromiter(targets, dtype=np.int64)
        return LabelCounts(unit="images", images=len(labels), classes=count_indices(labels, classes))

    def train_transform(self, config: DataConfig) -> Callable[[Sample], Placed]:
        """Return timm's training pipeline: random resized crop, flip, automatic augmentation, erasing."""
        return _TimmTransform(config)

    def mixes(self, augmentation: AugmentationConfig) -> bool:
        """Return whether mixup or cutmix is on."""
        return bool(augmentation.mixup or augmentation.cutmix)

    def mix(
        self, images: torch.Tensor, targets: torch.Tensor, augmentation: AugmentationConfig, classes: int
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Mix pairs of images by timm's Mixup; in a batch of odd size the last image is left unchanged.

        Labels are smoothed by the loss, for hard and soft targets alike: smoothing before the mixing gives the same.
        """
        if not self.mixes(augmentation):
            return images, targets
        from timm.data import Mixup

        soft = torch.nn.functional.one_hot(targets, classes).float()
        even = len(images) - len(images) % 2
        if even:
            mixup = Mixup(augmentation.mixup, augmentation.cutmix, label_smoothing=0.0, num_classes=classes)
            images[:even], soft[:even] = mixup(images[:even], targets[:even])
        return images, soft


class _TimmTransform:
    """timm's training pipeline, from a sample to float32 (3, H, W) in 0..1.

    It normalises, which is undone here: timm fills what a rotation uncovers, and erases, around the mean it is given,
    which would be black with a mean of 0.
    """

    def __init__(self, config: DataConfig) -> None:
        from timm.data import create_transform

        augmentation = config.augmentation
        self._canvas = config.image_size
        self._mean = torch.tensor(config.mean).view(3, 1, 1)
        self._std = torch.tensor(config.std).view(3, 1, 1)
        try:
            self._pipeline: Any = create_transform(
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

    def __call__(self, sample: Sample) -> Placed:
        image = (self._pipeline(sample.image) * self._std + self._mean).clamp(0.0, 1.0)
        size = (sample.image.height, sample.image.width)
        return Placed(image, sample.target, ImageInfo(id=sample.id, size=size, valid=self._canvas))


TARGETS.add("classification", ClassTargets(), __name__)
