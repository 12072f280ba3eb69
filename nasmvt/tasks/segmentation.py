"""Semantic segmentation with UPerNet: network, prediction, metric.

Shapes: B batch, K classes, H, W of canvas or image, h, w of a map.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nasmvt.data.types import IGNORE, ImageInfo
from nasmvt.heads import FCNHead, UPerNetHead, segmentation_neck
from nasmvt.tasks.config import UPerNetConfig
from nasmvt.tasks.network import TaskMetric, TaskNetwork, Triple

_VALUES_AT_ONCE = 2**26


@dataclass(frozen=True, kw_only=True, eq=False)
class SegmentationPrediction:
    """The class of every pixel of one image."""

    labels: Tensor
    """(H, W) uint8."""
    classes: tuple[str, ...]
    """Class names."""

    def to_json(self) -> dict[str, Any]:
        """Return `size` and `shares`, the part of the pixels (0..1) of each class that occurs, largest first.

        The label map itself is an image: write `labels` as PNG.
        """
        counts = torch.bincount(self.labels.cpu().flatten().long(), minlength=len(self.classes))
        order = counts.argsort(descending=True, stable=True).tolist()
        shares = {self.classes[i]: int(counts[i]) / self.labels.numel() for i in order if counts[i]}
        return {"size": list(self.labels.shape), "shares": shares}


class SegmentationNetwork(TaskNetwork):
    """Backbone, neck, UPerNet and, unless its weight is 0, an auxiliary head that only the loss reads.

    Args:
        backbone: gives one map, or one per level of equal stride (the levels are then made), or maps of
            ascending strides.
        config: the head.
        classes: class names, 255 at most.
        mean: mean of the colours in 0..1.
        std: standard deviation of the colours in 0..1.
    """

    def __init__(
        self, backbone: nn.Module, config: UPerNetConfig, classes: Sequence[str], *, mean: Triple, std: Triple
    ) -> None:
        widths: Any = backbone.widths
        strides: Any = backbone.strides
        neck = segmentation_neck(widths, strides, config.strides)
        head = UPerNetHead(neck.widths, len(classes), config.channels, config.pool_scales, config.dropout)
        super().__init__(backbone, neck, head, classes=classes, mean=mean, std=std)
        self.aux_weight = config.aux_weight
        self.auxiliary: FCNHead | None = None
        if config.aux_weight:
            self.auxiliary = FCNHead(neck.widths[-1], len(classes), config.aux_channels, config.dropout)

    def forward(self, images: Tensor) -> Tensor:
        """Turn images (B, 3, H, W) into logits (B, K, h, w) at the stride of the finest map."""
        logits_BKhw: Tensor = self.head(self.maps(images))
        return logits_BKhw

    def loss(self, images: Tensor, targets: Tensor) -> dict[str, Tensor]:
        """Return `loss_seg` and maybe `loss_aux`: cross-entropy over the pixels that are not `IGNORE`.

        Targets are (B, H, W) uint8. If every pixel is ignored the losses are 0.
        """
        maps = self.maps(images)
        losses = {"loss_seg": _cross_entropy(self.head(maps), targets)}
        if self.auxiliary is not None:
            losses["loss_aux"] = self.aux_weight * _cross_entropy(self.auxiliary(maps), targets)
        return losses

    def _predict(self, images: Tensor, infos: Sequence[ImageInfo]) -> list[SegmentationPrediction]:
        logits_BKhw = self(images).float()
        canvas = (images.shape[2], images.shape[3])
        return [
            SegmentationPrediction(labels=_label_map(logits, canvas, info), classes=self.classes)
            for logits, info in zip(logits_BKhw, infos, strict=True)
        ]


def _cross_entropy(logits_BKhw: Tensor, targets_BHW: Tensor) -> Tensor:
    logits = F.interpolate(logits_BKhw, size=targets_BHW.shape[1:], mode="bilinear", align_corners=False)
    total = F.cross_entropy(logits, targets_BHW.long(), ignore_index=IGNORE, reduction="sum")
    return total / (targets_BHW != IGNORE).sum().clamp(min=1)


def _label_map(logits_Khw: Tensor, canvas: tuple[int, int], info: ImageInfo) -> Tensor:
    """Return the best class of each pixel of the original image.

    The logits are resized to the canvas, cut to the image and resized to its original size, a few
    classes at a time: 150 classes of a large photograph would fill gigabytes.
    """
    step = max(_VALUES_AT_ONCE // (info.size[0] * info.size[1]), 1)
    best, labels = None, None
    for start in range(0, len(logits_Khw), step):
        part = F.interpolate(logits_Khw[None, start : start + step], size=canvas, mode="bilinear", align_corners=False)
        part = part[:, :, : info.valid[0], : info.valid[1]]
        if info.size != info.valid:
            part = F.interpolate(part, size=info.size, mode="bilinear", align_corners=False)
        values, indices = part[0].max(dim=0)
        indices = indices.to(torch.uint8) + start
        if best is None or labels is None:
            best, labels = values, indices
        else:
            higher = values > best
            best, labels = torch.where(higher, values, best), torch.where(higher, indices, labels)
    if labels is None:
        raise ValueError("there must be at least one class")
    return labels


class SegmentationMetric(TaskMetric):
    """Mean IoU over the classes, and pixel accuracy, in percent, from one confusion matrix of all pixels.

    A class that neither occurs nor is predicted has no IoU and is not averaged.

    Args:
        classes: number K of classes.
    """

    primary = "miou"

    def __init__(self, classes: int) -> None:
        self._classes = classes
        self._confusion_KK = torch.zeros(classes, classes, dtype=torch.int64)

    def update(self, predictions: Sequence[SegmentationPrediction], targets: Sequence[Tensor] | Tensor) -> None:
        """Take in predictions and label maps (H, W) of the same sizes; `IGNORE` counts for nothing."""
        for prediction, target in zip(predictions, targets, strict=True):
            truth, guess = target.cpu().long(), prediction.labels.cpu().long()
            counted = truth != IGNORE
            pairs = truth[counted] * self._classes + guess[counted]
            counts = torch.bincount(pairs, minlength=self._classes**2)
            self._confusion_KK += counts.reshape(self._classes, self._classes)

    def compute(self) -> dict[str, float]:
        """Return `miou` and `pixel_accuracy`; 0 if no pixel counted."""
        hits_K = self._confusion_KK.diagonal().double()
        union_K = self._confusion_KK.sum(0) + self._confusion_KK.sum(1) - self._confusion_KK.diagonal()
        total = int(self._confusion_KK.sum())
        if not total:
            return {"miou": 0.0, "pixel_accuracy": 0.0}
        iou = hits_K[union_K > 0] / union_K[union_K > 0]
        return {"miou": 100 * float(iou.mean()), "pixel_accuracy": 100 * float(hits_K.sum()) / total}
