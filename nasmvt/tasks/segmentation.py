"""Semantic segmentation: network, prediction, metric.

Shapes: B batch, K classes, H, W of canvas or image, h, w of a map.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from nasmvt.data.geometry import Size
from nasmvt.data.protocols import KeepRatioProtocol
from nasmvt.data.segmentation import PackedLabels
from nasmvt.data.types import IGNORE, DataInfo, ImageInfo
from nasmvt.tasks.drawing import draw_regions
from nasmvt.tasks.kinds import KINDS, Kind
from nasmvt.tasks.logits import LogitsNetwork
from nasmvt.tasks.modes import evaluating
from nasmvt.tasks.network import Prediction, TaskMetric
from nasmvt.tasks.pixels import label_map, shares, slide
from nasmvt.tasks.predictor import Predictor

_PIXELS_AT_ONCE = 2**21


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


class SegmentationNetwork(LogitsNetwork):
    """A network whose head has `segment(maps, sizes) -> logits (B, K, h, w)` at the stride of the finest map."""

    def logits(self, maps: tuple[Tensor, ...], sizes: Any) -> Tensor:
        """Return logits (B, K, h, w)."""
        logits: Tensor = self.head.segment(maps, sizes)
        return logits

    def read(
        self, outputs: Mapping[str, Tensor], infos: Sequence[ImageInfo], canvas: tuple[int, int]
    ) -> list[SegmentationPrediction]:
        """Turn logits into the best class of each pixel of the original images."""
        return [
            SegmentationPrediction(labels=label_map(logits, canvas, info), classes=self.classes)
            for logits, info in zip(outputs["logits"].float(), infos, strict=True)
        ]


class SegmentationPredictor(Predictor):
    """Averages logits over sliding windows, and probabilities over the views of an image, at its original size."""

    def predict(self, images: Tensor, infos: Sequence[ImageInfo]) -> list[SegmentationPrediction]:
        """Return the label map of each image, of its original size (see `Predictor`)."""
        with evaluating(self.network), torch.inference_mode():
            return [
                SegmentationPrediction(labels=self._labels(views, lie), classes=self.network.classes)
                for views, lie in self.views(images, infos)
            ]

    def _labels(self, views: Tensor, infos: Sequence[ImageInfo]) -> Tensor:
        if len(views) == 1:
            return label_map(*self._logits(views[0], infos[0]), infos[0])
        return self.probabilities(views, infos).argmax(dim=0).to(torch.uint8)

    def probabilities(self, views: Tensor, infos: Sequence[ImageInfo]) -> Tensor:
        """Return the mean probability (K, H, W) of each class at each pixel of an original image.

        Args:
            views: (V, 3, h, w), the views of the image.
            infos: where each lies on its canvas.
        """
        passes = (shares(*self._logits(view, info), info) for view, info in zip(views, infos, strict=True))
        return reduce(torch.add, passes) / len(views)

    def _logits(self, image: Tensor, info: ImageInfo) -> tuple[Tensor, Size]:
        """Return the logits (K, h, w) of a view, and the size of the canvas that they cover."""
        height, width = canvas = info.canvas or (image.shape[1], image.shape[2])
        if self.protocol.window is None:
            return self._segment(image[:, :height, :width], info.valid), canvas
        valid = image[:, : info.valid[0], : info.valid[1]]
        return slide(self._segment, valid, *self.protocol.window), info.valid

    def _segment(self, image: Tensor, valid: Size) -> Tensor:
        info = ImageInfo(id=0, size=valid, valid=valid)
        return self.network.outputs(image[None], [info])["logits"][0].float()


class SegmentationMetric(TaskMetric):
    """Mean IoU and accuracy over the classes, and pixel accuracy, in percent, from one confusion matrix of all pixels.

    A class that neither occurs nor is predicted has no IoU and is not averaged. The accuracy of a class is the part of
    its pixels that is found; the mean accuracy is that of the classes that occur.

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
            parts = (labels.cpu().flatten().split(_PIXELS_AT_ONCE) for labels in (target, prediction.labels))
            for truth, guess in zip(*parts, strict=True):
                counted = truth != IGNORE
                pairs = truth[counted].long() * self._classes + guess[counted].long()
                counts = torch.bincount(pairs, minlength=self._classes**2)
                self._confusion_KK += counts.reshape(self._classes, self._classes)

    def add(self, other: "SegmentationMetric") -> None:
        """Add the pixels of another metric."""
        self._confusion_KK += other._confusion_KK

    def compute(self) -> dict[str, float]:
        """Return `miou`, `mean_accuracy` and `pixel_accuracy`; 0 if no pixel counted."""
        hits_K = self._confusion_KK.diagonal().double()
        target_K = self._confusion_KK.sum(1)
        union_K = self._confusion_KK.sum(0) + target_K - self._confusion_KK.diagonal()
        total = int(target_K.sum())
        if not total:
            return {"miou": 0.0, "mean_accuracy": 0.0, "pixel_accuracy": 0.0}
        iou, found = hits_K[union_K > 0] / union_K[union_K > 0], hits_K[target_K > 0] / target_K[target_K > 0]
        return {
            "miou": 100 * float(iou.mean()),
            "mean_accuracy": 100 * float(found.mean()),
            "pixel_accuracy": 100 * float(hits_K.sum()) / total,
        }


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
        predictor=SegmentationPredictor,
        placements=("fit", "short_side", "range_crop"),
        protocols=("fit", "keep_ratio"),
        paper=KeepRatioProtocol(short=512, long=2048),
        nominal=DataInfo(kind="segmentation", classes=tuple(map(str, range(150)))),
        most_classes=IGNORE,
    ),
    __name__,
)
