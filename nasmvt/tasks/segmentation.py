"""Semantic segmentation: network, prediction, metric.

Shapes: B batch, K classes, H, W of canvas or image, h, w of a map.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from nasmvt.data.segmentation import PackedLabels
from nasmvt.data.types import IGNORE, DataInfo, ImageInfo
from nasmvt.tasks.drawing import draw_regions
from nasmvt.tasks.kinds import KINDS, Kind
from nasmvt.tasks.network import Prediction, TaskMetric, TaskNetwork, whole

_VALUES_AT_ONCE = 2**24


@dataclass(frozen=True, kw_only=True, eq=False)
class SegmentationPrediction(Prediction):
    """The class of every pixel of one image."""

    labels: Tensor
    """(H, W) uint8."""
    classes: tuple[str, ...]
    """Class names."""

    def to_json(self) -> dict[str, Any]:
        """Return `size` and `shares`, the fraction of the pixels (0..1) of each class that occurs, largest first.

        The label map itself is in `images`.
        """
        counts = torch.bincount(self.labels.cpu().flatten().long(), minlength=len(self.classes))
        order = counts.argsort(descending=True, stable=True).tolist()
        shares = {self.classes[i]: int(counts[i]) / self.labels.numel() for i in order if counts[i]}
        return {"size": list(self.labels.shape), "shares": shares}

    def draw(self, image: Tensor, min_score: float) -> Image.Image:
        """Colour the pixels by class."""
        return draw_regions(image, self.labels.cpu().long(), self.classes)

    def images(self) -> dict[str, Image.Image]:
        """Return the label map: the class index of every pixel."""
        return {"labels": Image.fromarray(self.labels.cpu().numpy())}


class SegmentationNetwork(TaskNetwork):
    """A network whose head has `segment(maps, sizes) -> logits (B, K, h, w)` at the stride of the finest map."""

    def forward(self, images: Tensor) -> Tensor:
        """Turn images (B, 3, H, W) into logits (B, K, h, w)."""
        logits_BKhw: Tensor = self.head.segment(self.maps(images), whole(images))
        return logits_BKhw

    def _predict(self, images: Tensor, infos: Sequence[ImageInfo]) -> list[SegmentationPrediction]:
        logits_BKhw: Tensor = self.head.segment(self.maps(images), [info.valid for info in infos]).float()
        canvas = (images.shape[2], images.shape[3])
        return [
            SegmentationPrediction(labels=_label_map(logits, canvas, info), classes=self.classes)
            for logits, info in zip(logits_BKhw, infos, strict=True)
        ]


def _label_map(logits_Khw: Tensor, canvas: tuple[int, int], info: ImageInfo) -> Tensor:
    """Return the best class of each pixel of the original image.

    The logits are resized to the canvas, cropped to the image and resized to its original size, a few
    classes at a time: 150 classes of a large photograph would take gigabytes.
    """
    step = max(_VALUES_AT_ONCE // (info.size[0] * info.size[1]), 1)
    best, labels = None, None
    for start in range(0, len(logits_Khw), step):
        part = F.interpolate(logits_Khw[None, start : start + step], size=canvas, mode="bilinear", align_corners=False)
        part = part[:, :, : info.valid[0], : info.valid[1]]
        if info.size != info.valid:
            part = F.interpolate(part, size=info.size, mode="bilinear", align_corners=False)
        if part.shape[1] == 1:  # a large image: its indices alone would take eight bytes a pixel
            values, indices = part[0, 0], torch.full_like(part[0, 0], start, dtype=torch.uint8)
        else:
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

    def update(
        self, predictions: Sequence[SegmentationPrediction], targets: Sequence[PackedLabels | Tensor] | Tensor
    ) -> None:
        """Add predictions and label maps (H, W) of the same sizes; `IGNORE` is not counted."""
        for prediction, given in zip(predictions, targets, strict=True):
            target = given.dense() if isinstance(given, PackedLabels) else given
            parts = (labels.cpu().flatten().split(_VALUES_AT_ONCE // 8) for labels in (target, prediction.labels))
            for truth, guess in zip(*parts, strict=True):
                counted = truth != IGNORE
                pairs = truth[counted].long() * self._classes + guess[counted].long()
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


def draw_target(image: Tensor, target: Tensor, info: DataInfo) -> Image.Image:
    """Colour the pixels of an image uint8 (3, H, W) by its label map (H, W)."""
    return draw_regions(image, target.cpu().long(), info.classes)


KINDS.add(
    "segmentation",
    Kind(
        network=SegmentationNetwork,
        metric=lambda info: SegmentationMetric(len(info.classes)),
        primary=SegmentationMetric.primary,
        head="upernet",
        draw_target=draw_target,
        nominal=DataInfo(kind="segmentation", classes=tuple(map(str, range(150)))),
        most_classes=IGNORE,
    ),
    __name__,
)
