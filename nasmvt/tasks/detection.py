"""Detection with Mask R-CNN: network and prediction; its metric is in `coco_metric.py`.

Shapes: B batch, H, W of the image, n objects.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.ops import clip_boxes_to_image

from nasmvt.data.masks import encode_masks
from nasmvt.data.types import ImageInfo
from nasmvt.heads import MaskRCNNHead, detection_neck
from nasmvt.tasks.config import MaskRCNNConfig
from nasmvt.tasks.masks import paste_masks
from nasmvt.tasks.network import TaskNetwork, Triple


@dataclass(frozen=True, kw_only=True, eq=False)
class DetectionPrediction:
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
        """Return `size` and `objects` in the manner of COCO's result files.

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


class DetectionNetwork(TaskNetwork):
    """Backbone, pyramid and Mask R-CNN.

    Args:
        backbone: gives one map (the levels are then made), or maps of ascending strides.
        config: the head.
        classes: class names.
        masks: whether there is a mask branch.
        mean: mean of the colours in 0..1.
        std: standard deviation of the colours in 0..1.
    """

    head: MaskRCNNHead

    def __init__(
        self,
        backbone: nn.Module,
        config: MaskRCNNConfig,
        classes: Sequence[str],
        *,
        masks: bool,
        mean: Triple,
        std: Triple,
    ) -> None:
        widths: Any = backbone.widths
        strides: Any = backbone.strides
        neck = detection_neck(widths, strides, config.width, config.strides)
        settings = config.model_dump(exclude={"type", "masks", "strides"})
        head = MaskRCNNHead(neck.strides, len(classes), masks=masks, extra_level=neck.extra_level, **settings)
        super().__init__(backbone, neck, head, classes=classes, mean=mean, std=std)
        self.config = config

    def forward(self, images: Tensor) -> list[dict[str, Tensor]]:
        """Return `MaskRCNNHead.detect` of images (B, 3, H, W), in canvas pixels; needs evaluation mode."""
        return self.head.detect(self.maps(images), [(images.shape[2], images.shape[3])] * len(images))

    def workload(self, images: Tensor) -> None:
        """Run backbone, neck and proposals, the box branch on `post_nms` regions and the mask branch on `detections`.

        What is neither convolution nor matrix product, suppression and pooling for example, is left out.
        """
        maps = self.maps(images)
        self.head.rpn.head(list(maps))
        regions, config = self.head.roi_heads, self.config
        boxes, masks = (len(images) * n for n in (config.post_nms[1], config.detections))
        pooled = maps[0].new_zeros(boxes, maps[0].shape[1], config.box_size, config.box_size)
        regions.box_predictor(regions.box_head(pooled))
        if regions.mask_head is not None:
            pooled = maps[0].new_zeros(masks, maps[0].shape[1], config.mask_size, config.mask_size)
            regions.mask_predictor(regions.mask_head(pooled))

    def loss(self, images: Tensor, targets: Sequence[dict[str, Tensor]]) -> dict[str, Tensor]:
        """Return Mask R-CNN's losses (see `MaskRCNNHead.losses`).

        Objects that are crowds or have no area are left out; an image may have no object at all.
        """
        sizes = [(images.shape[2], images.shape[3])] * len(images)
        return self.head.losses(self.maps(images), sizes, [_trainable(target) for target in targets])

    def _predict(self, images: Tensor, infos: Sequence[ImageInfo]) -> list[DetectionPrediction]:
        found = self.head.detect(self.maps(images), [info.valid for info in infos])
        return [self._to_original(item, info) for item, info in zip(found, infos, strict=True)]

    def _to_original(self, found: dict[str, Tensor], info: ImageInfo) -> DetectionPrediction:
        height, width = info.size
        scale_y, scale_x = height / info.valid[0], width / info.valid[1]
        boxes = found["boxes"] * found["boxes"].new_tensor((scale_x, scale_y, scale_x, scale_y))
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
    """Keep the objects that are no crowds and have an area."""
    boxes = target["boxes"]
    keep = (boxes[:, 2:] > boxes[:, :2]).all(dim=1)
    if "crowd" in target:
        keep &= ~target["crowd"].bool()
    return {key: target[key][keep] for key in ("boxes", "labels", "masks") if key in target}
