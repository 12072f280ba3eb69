"""Classification: network, prediction, metric.

Shapes: B batch, K classes.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nasmvt.data.types import ImageInfo
from nasmvt.heads import LinearHead
from nasmvt.tasks.config import LinearConfig
from nasmvt.tasks.network import TaskMetric, TaskNetwork, Triple


@dataclass(frozen=True, kw_only=True, eq=False)
class ClassificationPrediction:
    """The probabilities of one image."""

    probabilities: Tensor
    """(K,), in 0..1, of sum 1."""
    classes: tuple[str, ...]
    """Class names."""

    def top(self, n: int = 5) -> list[tuple[str, float]]:
        """Return the `n` most probable classes with their probabilities, best first."""
        values, labels = self.probabilities.topk(min(n, len(self.classes)))
        return [(self.classes[i], p) for i, p in zip(labels.tolist(), values.tolist(), strict=True)]

    def to_json(self) -> dict[str, Any]:
        """Return `{"top": [{"class": name, "probability": p}, ...]}`, five classes at most."""
        return {"top": [{"class": name, "probability": p} for name, p in self.top()]}


class ClassificationNetwork(TaskNetwork):
    """Backbone and linear head, trained by cross-entropy with label smoothing.

    Args:
        backbone: gives maps; the last one is read.
        config: the head.
        classes: class names.
        mean: mean of the colours in 0..1.
        std: standard deviation of the colours in 0..1.
    """

    def __init__(
        self, backbone: nn.Module, config: LinearConfig, classes: Sequence[str], *, mean: Triple, std: Triple
    ) -> None:
        head = LinearHead(_widths(backbone)[-1], len(classes), config.dropout)
        super().__init__(backbone, nn.Identity(), head, classes=classes, mean=mean, std=std)
        self.label_smoothing = config.label_smoothing

    def forward(self, images: Tensor) -> Tensor:
        """Turn images (B, 3, H, W) into logits (B, K)."""
        logits_BK: Tensor = self.head(self.maps(images))
        return logits_BK

    def loss(self, images: Tensor, targets: Tensor) -> dict[str, Tensor]:
        """Return `loss_class`; targets are (B,) int64, which are smoothed, or soft (B, K), which are not."""
        smoothing = 0.0 if targets.is_floating_point() else self.label_smoothing
        return {"loss_class": F.cross_entropy(self(images), targets, label_smoothing=smoothing)}

    def _predict(self, images: Tensor, infos: Sequence[ImageInfo]) -> list[ClassificationPrediction]:
        probabilities_BK = self(images).float().softmax(dim=1)
        return [ClassificationPrediction(probabilities=p, classes=self.classes) for p in probabilities_BK]


class ClassificationMetric(TaskMetric):
    """Top-1 and, with more than five classes, top-5 accuracy in percent.

    Args:
        classes: number K of classes.
    """

    primary = "top1"

    def __init__(self, classes: int) -> None:
        from torchmetrics.classification import MulticlassAccuracy  # slow to import

        ranks = [1, 5] if classes > 5 else [1]
        self._accuracies = {f"top{k}": MulticlassAccuracy(num_classes=classes, top_k=k, average="micro") for k in ranks}
        self._pictures = 0

    def update(self, predictions: Sequence[ClassificationPrediction], targets: Tensor) -> None:
        """Take in predictions and class indices (B,)."""
        if not predictions:
            return
        probabilities_BK = torch.stack([p.probabilities for p in predictions]).cpu()
        self._pictures += len(predictions)
        for accuracy in self._accuracies.values():
            accuracy.update(probabilities_BK, torch.as_tensor(targets).cpu())

    def compute(self) -> dict[str, float]:
        """Return `top1` and maybe `top5`; 0 if there was no image."""
        if not self._pictures:
            return dict.fromkeys(self._accuracies, 0.0)
        return {name: 100 * float(accuracy.compute()) for name, accuracy in self._accuracies.items()}


def _widths(backbone: nn.Module) -> tuple[int, ...]:
    widths: Any = backbone.widths
    return tuple(widths)
