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
from nasmvt.data.timm_transform import TimmTransform
from nasmvt.data.token_labels import TokenLabel, TokenLabelTransform, check_classes, collate_labels
from nasmvt.data.types import Sample


class ClassTargets(Targets):
    """A sample holds a class index; a batch holds indices (B,) int64, or shares (B, K) float32 after mixing.

    With `data.token_labels` a training batch holds a dictionary (see `nasmvt.data.token_labels`).
    """

    advice_for_one_class = "set root to the folder that holds the splits, and give every class a folder"

    def move(self, target: int, geometry: Geometry) -> int:
        """Return the class, which placing an image does not change."""
        return target

    def collate(self, targets: Sequence[int | TokenLabel], canvas: Size) -> torch.Tensor | dict[str, torch.Tensor]:
        """Return the indices (B,) int64, or the token labels."""
        labelled = [target for target in targets if isinstance(target, TokenLabel)]
        return collate_labels(labelled) if labelled else torch.tensor(targets, dtype=torch.int64)

    def gather(self, targets: Sequence[int], canvas: Size) -> torch.Tensor:
        """Return the indices (B,) int64."""
        return torch.tensor(targets, dtype=torch.int64)

    def count(self, targets: Iterable[int], classes: int) -> LabelCounts:
        """Count the images of each class."""
        labels = np.fromiter(targets, dtype=np.int64)
        return LabelCounts(unit="images", images=len(labels), classes=count_indices(labels, classes))

    def train_transform(self, config: DataConfig) -> Callable[[Sample], Placed]:
        """Return timm's training pipeline: random resized crop, flip, automatic augmentation, erasing."""
        if config.token_labels is not None:
            return TokenLabelTransform(config, config.token_labels)
        return TimmTransform(config)

    def mixes(self, augmentation: AugmentationConfig) -> bool:
        """Return whether mixup or cutmix is on."""
        return bool(augmentation.mixup or augmentation.cutmix)

    def mix(
        self, images: torch.Tensor, targets: Any, augmentation: AugmentationConfig, classes: int
    ) -> tuple[torch.Tensor, Any]:
        """Mix pairs of images, uint8 (B, 3, H, W), by timm's Mixup; of an odd number the last one is left unchanged.

        Labels are smoothed by the loss, for hard and soft targets alike: smoothing before the mixing gives the same.
        """
        if isinstance(targets, dict):
            check_classes(targets["maps"], classes)
        if not self.mixes(augmentation):
            return images, targets
        from timm.data import Mixup

        images, soft = images.float() / 255, torch.nn.functional.one_hot(targets, classes).float()
        even = len(images) - len(images) % 2
        if even:
            mixup = Mixup(augmentation.mixup, augmentation.cutmix, label_smoothing=0.0, num_classes=classes)
            images[:even], soft[:even] = mixup(images[:even], targets[:even])
        return images, soft


TARGETS.add("classification", ClassTargets(), __name__)
