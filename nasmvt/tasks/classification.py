"""Classification: network, prediction, metric.

Shapes: B batch, K classes.
"""

from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from inspect import signature
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from nasmvt.data.protocols import CentreCropProtocol
from nasmvt.data.types import DataInfo, ImageInfo
from nasmvt.tasks.drawing import enlarge, with_caption
from nasmvt.tasks.kinds import KINDS, Kind
from nasmvt.tasks.lessons import Features, Learned
from nasmvt.tasks.logits import LogitsNetwork
from nasmvt.tasks.network import Prediction, TaskMetric, valid_sizes


@dataclass(frozen=True, kw_only=True, eq=False)
class ClassificationPrediction(Prediction):
    """The probabilities of one image."""

    probabilities: Tensor
    """(K,), in 0..1, summing to 1."""
    classes: tuple[str, ...]
    """Class names."""

    def top(self, n: int = 5) -> list[tuple[str, float]]:
        """Return the `n` most probable classes with their probabilities, best first."""
        values, labels = self.probabilities.topk(min(n, len(self.classes)))
        return [(self.classes[i], p) for i, p in zip(labels.tolist(), values.tolist(), strict=True)]

    def to_json(self) -> dict[str, Any]:
        """Return `{"top": [{"class": name, "probability": p}, ...]}`, five classes at most."""
        return {"top": [{"class": name, "probability": p} for name, p in self.top()]}

    def draw(self, image: Tensor, min_score: float) -> Image.Image:
        """Write the two most probable classes below the image."""
        return with_caption(enlarge(image), *(f"{name} {p:.2f}" for name, p in self.top(2)))


class ClassificationNetwork(LogitsNetwork):
    """A network whose head has `classify(maps, sizes) -> logits (B, K)`."""

    def logits(self, maps: tuple[Tensor, ...], sizes: Any) -> Tensor:
        """Return logits (B, K)."""
        logits: Tensor = self.head.classify(maps, sizes)
        return logits

    def learn(self, images: Tensor, targets: Any, infos: Sequence[ImageInfo] | None = None) -> Learned:
        """Return the head's losses and the lesson; a head with a `mixing` mixes the images of the batch.

        They are mixed where the backbone takes it, in its patch embedding (`forward(images, mix)`), else as pixels.
        """
        mixing = getattr(self.head, "mixing", None)
        mix = None if mixing is None else mixing(self.backbone.strides[-1])  # type: ignore[index]
        if mix is None:
            return super().learn(images, targets, infos)
        normed, sizes = self.normalize(images), valid_sizes(images, infos)
        embeds = "mix" in signature(self.backbone.forward).parameters
        maps = self._maps(normed, mix=mix) if embeds else self._maps(mix(normed, 1))
        return Learned(self.head.losses(maps, targets, sizes, box=mix.box), Features(maps, sizes))

    def read(
        self, outputs: Mapping[str, Tensor], infos: Sequence[ImageInfo], canvas: tuple[int, int]
    ) -> list[ClassificationPrediction]:
        """Turn logits into probabilities."""
        probabilities_BK = outputs["logits"].float().softmax(dim=1)
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
        # Several processes may evaluate different networks: torchmetrics must not sum over them.
        settings: dict[str, Any] = {"num_classes": classes, "average": "micro", "sync_on_compute": False}
        self._accuracies = {f"top{k}": MulticlassAccuracy(top_k=k, **settings) for k in ranks}
        self._pictures = 0

    def update(self, predictions: Sequence[ClassificationPrediction], targets: Tensor) -> None:
        """Add predictions and class indices (B,)."""
        if not predictions:
            return
        probabilities_BK = torch.stack([p.probabilities for p in predictions]).cpu()
        self._pictures += len(predictions)
        for accuracy in self._accuracies.values():
            accuracy.update(probabilities_BK, torch.as_tensor(targets).cpu())

    def add(self, other: "ClassificationMetric") -> None:
        """Add the images of another metric."""
        if not self._pictures:  # torchmetrics warns of a metric that was merged but never updated
            self._accuracies = deepcopy(other._accuracies)
        elif other._pictures:
            for name, accuracy in self._accuracies.items():
                accuracy.merge_state(other._accuracies[name])
        self._pictures += other._pictures

    def compute(self) -> dict[str, float]:
        """Return `top1` and, with more than five classes, `top5`; 0 without images."""
        if not self._pictures:
            return dict.fromkeys(self._accuracies, 0.0)
        return {name: 100 * float(accuracy.compute()) for name, accuracy in self._accuracies.items()}


def draw_target(image: Tensor, target: Any, info: DataInfo) -> Image.Image:
    """Write the class below an image uint8 (3, H, W), or the two largest class proportions of a mixed image."""
    target = torch.as_tensor(target["labels"] if isinstance(target, dict) else target).cpu()
    if target.ndim == 0:
        return with_caption(enlarge(image), info.classes[int(target)])
    shares, labels = target.topk(min(2, len(info.classes)))
    pairs = zip(labels.tolist(), shares.tolist(), strict=True)
    return with_caption(enlarge(image), *(f"{info.classes[i]} {p:.2f}" for i, p in pairs))


KINDS.add(
    "classification",
    Kind(
        network=ClassificationNetwork,
        metric=lambda info: ClassificationMetric(len(info.classes)),
        primary=ClassificationMetric.primary,
        head="linear",
        draw_target=draw_target,
        protocols=("fit", "centre_crop"),
        paper=CentreCropProtocol(),
        nominal=DataInfo(kind="classification", classes=tuple(map(str, range(1000)))),
    ),
    __name__,
)
