"""Detection: network and prediction; its metric is in `coco_metric.py`.

Shapes: B batch, H, W of the image, n objects.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from torchvision.ops import clip_boxes_to_image

from nasmvt.data.masks import encode_masks
from nasmvt.data.protocols import KeepRatioProtocol
from nasmvt.data.types import DataInfo, ImageInfo
from nasmvt.errors import UserError
from nasmvt.tasks.coco_metric import CocoMetric
from nasmvt.tasks.drawing import draw_objects
from nasmvt.tasks.kinds import KINDS, Kind
from nasmvt.tasks.lessons import Learned
from nasmvt.tasks.masks import paste_masks
from nasmvt.tasks.matching import counted, disagreement, with_count
from nasmvt.tasks.modes import evaluating
from nasmvt.tasks.network import Prediction, TaskNetwork, valid_sizes, whole


@dataclass(frozen=True, kw_only=True, eq=False)
class DetectionPrediction(Prediction):
    """The objects of one image, best score first."""

    size: tuple[int, int]
    """Height and width of the image in pixels."""
    boxes: Tensor
    """(n, 4) xyxy in pixels."""
    labels: Tensor
    """(n,) int64."""
    scores: Tensor
    """(n,) in 0..1."""
    masks: Tensor | None
    """(n, H, W) bool, or None without a mask branch."""
    classes: tuple[str, ...]
    """Class names."""

    def to_json(self) -> dict[str, Any]:
        """Return `size` and `objects`, similar to COCO's result files.

        Each object has `category` (the name), `score`, `bbox` (x, y, width, height) and, with a mask
        branch, `segmentation` (compressed run lengths).
        """
        x0, y0, x1, y1 = self.boxes.cpu().unbind(1)
        boxes_xywh = torch.stack((x0, y0, x1 - x0, y1 - y0), dim=1).tolist()
        objects: list[dict[str, Any]] = [
            {"category": self.classes[label], "score": score, "bbox": box}
            for label, score, box in zip(self.labels.tolist(), self.scores.tolist(), boxes_xywh, strict=True)
        ]
        if self.masks is not None:
            for item, rle in zip(objects, encode_masks(self.masks), strict=True):
                item["segmentation"] = rle
        return {"size": list(self.size), "objects": objects}

    def draw(self, image: Tensor, min_score: float) -> Image.Image:
        """Draw boxes, masks, class names and scores."""
        keep = (self.scores >= min_score).cpu()
        labels, scores = self.labels.cpu()[keep].tolist(), self.scores.cpu()[keep].tolist()
        masks = None if self.masks is None else self.masks.cpu()[keep]
        return draw_objects(image, self.boxes.cpu()[keep], labels, self.classes, masks, scores)

    def object_scores(self) -> list[float]:
        """Return the scores."""
        scores: list[float] = self.scores.tolist()
        return scores


class DetectionNetwork(TaskNetwork):
    """A network whose head has `detect(maps, sizes)`.

    It returns for each image `boxes` (n, 4) xyxy, `labels` (n,), `scores` (n,) in 0..1 and optionally `masks` (n, M,
    M), the probability of the object inside its box; best score first.
    """

    static_inputs = ("images", "sizes")

    def forward(self, images: Tensor) -> list[dict[str, Tensor]]:
        """Return the head's detections of images (B, 3, H, W), in canvas pixels; needs evaluation mode."""
        found: list[dict[str, Tensor]] = self.head.detect(self.maps(images), whole(images))
        return found

    def learn(self, images: Tensor, targets: Any, infos: Sequence[ImageInfo] | None = None) -> Learned:
        """Return losses and maps; crowds and empty boxes are left out, an image may have no objects."""
        return super().learn(images, [_trainable(target) for target in targets], infos)

    def _predict(self, images: Tensor, infos: Sequence[ImageInfo]) -> list[DetectionPrediction]:
        found = self.head.detect(self.maps(images), valid_sizes(images, infos))
        return [self._to_original(item, info) for item, info in zip(found, infos, strict=True)]

    def static(self, images: Tensor, sizes: Tensor) -> dict[str, Tensor]:
        """Return the head's `detect_static` of maps and sizes, and `count` (B,) int64.

        These are D places per image, best score first: `boxes` (B, D, 4) xyxy on the canvas, `labels` (B, D) int64,
        `scores` (B, D) and maybe `masks` (B, D, M, M). The first `count` of an image are detections; the scores of
        the others are 0.
        """
        if not hasattr(self.head, "detect_static"):
            raise UserError(
                f"the head {type(self.head).__name__} has no form of static shapes: export with a head that has a "
                "method 'detect_static', or run the model in PyTorch"
            )
        return with_count(self.head.detect_static(self._maps(images), sizes))

    def read(
        self, outputs: Mapping[str, Tensor], infos: Sequence[ImageInfo], canvas: tuple[int, int]
    ) -> list[DetectionPrediction]:
        """Cut the detections to their count and move them into the pixels of the original images."""
        return [self._to_original(item, info) for item, info in zip(counted(outputs), infos, strict=True)]

    def disagreement(self, outputs: Mapping[str, Tensor], images: Tensor, infos: Sequence[ImageInfo]) -> float:
        """Compare with the detections of `detect` (see `nasmvt.tasks.matching`)."""
        with evaluating(self), torch.inference_mode():
            ours = self.head.detect(self.maps(images), valid_sizes(images, infos))
        side = float(max(images.shape[2:]))
        return max(disagreement(own, other, side) for own, other in zip(ours, counted(outputs), strict=True))

    def _to_original(self, found: dict[str, Tensor], info: ImageInfo) -> DetectionPrediction:
        height, width = info.size
        scale_y, scale_x = height / info.valid[0], width / info.valid[1]
        x0, y0, x1, y1 = found["boxes"].unbind(1)
        boxes = torch.stack((x0 * scale_x, y0 * scale_y, x1 * scale_x, y1 * scale_y), dim=1)
        boxes = clip_boxes_to_image(boxes, info.size)
        return DetectionPrediction(
            size=info.size,
            boxes=boxes,
            labels=found["labels"],
            scores=found["scores"],
            masks=paste_masks(found["masks"], boxes, info.size) if "masks" in found else None,
            classes=self.classes,
        )


def _trainable(target: dict[str, Tensor]) -> dict[str, Tensor]:
    """Keep the objects that are neither crowds nor empty."""
    boxes = target["boxes"]
    keep = (boxes[:, 2:] > boxes[:, :2]).all(dim=1)
    if "crowd" in target:
        keep &= ~target["crowd"].bool()
    return {key: target[key][keep] for key in ("boxes", "labels", "masks") if key in target}


def draw_target(image: Tensor, target: dict[str, Tensor], info: DataInfo) -> Image.Image:
    """Draw boxes, class names and masks on an image uint8 (3, H, W)."""
    labels = target["labels"].tolist()
    masks = target["masks"].cpu() if "masks" in target else None
    return draw_objects(image, target["boxes"].cpu(), labels, info.classes, masks)


KINDS.add(
    "detection",
    Kind(
        network=DetectionNetwork,
        metric=lambda info: CocoMetric(len(info.classes)),
        primary=CocoMetric.primary,
        head="mask_rcnn",
        draw_target=draw_target,
        count_objects=lambda target: len(target["boxes"]),
        placements=("fit", "short_side", "range_crop"),
        protocols=("fit", "keep_ratio"),
        paper=KeepRatioProtocol(short=800, long=1333, divisor=32),
        nominal=DataInfo(kind="detection", classes=tuple(map(str, range(80))), has_masks=True),
    ),
    __name__,
)
