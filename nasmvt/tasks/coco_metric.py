"""COCO's mean average precision, computed by faster-coco-eval with COCOeval's rules.

Shapes: H, W of the image, n objects.
"""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from nasmvt.data.masks import RunLengths, encode_masks
from nasmvt.tasks.network import TaskMetric


class CocoMetric(TaskMetric):
    """Box and, with masks, mask mAP in percent: over IoU 0.50 to 0.95, and at 0.50 (boxes also at 0.75).

    As in COCOeval, at most 100 detections of an image count, any number of detections may match a crowd,
    counting neither as hits nor as false positives, and classes without an object do not enter the mean.

    Masks are compared where predictions and targets have them.

    Args:
        classes: number of classes.
    """

    primary = "box_map"
    parts: ClassVar[Mapping[str, str]] = {"mask_map": "masks", "mask_ap50": "masks"}

    def __init__(self, classes: int) -> None:
        self._masks = True
        self._categories = [{"id": i + 1, "name": str(i)} for i in range(classes)]
        self._images: list[dict[str, Any]] = []
        self._objects: list[dict[str, Any]] = []
        self._detections: list[dict[str, Any]] = []

    def update(self, predictions: Sequence[Any], targets: Sequence[dict[str, Any]]) -> None:
        """Add detections and ground-truth objects, both in the pixels of the original images.

        A target has `boxes` (n, 4) xyxy and `labels` (n,), and may have `crowd` (n,) bool, `masks`
        (`ObjectMasks`; needed for mask mAP) and `area` (n,), which defaults to that of the mask, or else of the box.
        """
        for prediction, target in zip(predictions, targets, strict=True):
            height, width = prediction.size
            image = len(self._images) + 1
            self._images.append({"id": image, "height": height, "width": width})
            self._masks = self._masks and prediction.masks is not None and "masks" in target
            rles = encode_masks(prediction.masks) if self._masks else None
            found = _records(image, prediction.boxes, prediction.labels, rles)
            scores = prediction.scores.tolist()
            self._detections += [{**item, "score": s} for item, s in zip(found, scores, strict=True)]
            self._objects += _truth(image, target, self._masks, first_id=len(self._objects) + 1)

    def add(self, other: "CocoMetric") -> None:
        """Add the images of another metric."""
        images, objects = len(self._images), len(self._objects)
        self._masks = self._masks and other._masks
        self._images += [{**item, "id": item["id"] + images} for item in other._images]
        self._objects += [
            {**item, "id": item["id"] + objects, "image_id": item["image_id"] + images} for item in other._objects
        ]
        self._detections += [{**item, "image_id": item["image_id"] + images} for item in other._detections]

    def compute(self) -> dict[str, float]:
        """Return `box_map`, `box_ap50`, `box_ap75` and, with masks, `mask_map`, `mask_ap50`.

        Without detections, or without objects, all are 0.
        """
        box = self._average_precision("bbox")
        figures = dict(zip(("box_map", "box_ap50", "box_ap75"), box, strict=True))
        if self._masks:
            figures["mask_map"], figures["mask_ap50"], _ = self._average_precision("segm")
        return figures

    def _average_precision(self, kind: str) -> tuple[float, float, float]:
        from faster_coco_eval import COCO, COCOeval_faster  # imported only where mAP is computed

        if not self._detections or not any(not item["iscrowd"] for item in self._objects):
            return 0.0, 0.0, 0.0
        hidden = "segmentation" if kind == "bbox" else "bbox"
        detections = [{k: v for k, v in item.items() if k != hidden} for item in self._detections]
        truth = COCO(
            {
                "info": {},
                "images": self._images,
                "categories": self._categories,
                "annotations": [dict(item) for item in self._objects],
            }
        )
        evaluation = COCOeval_faster(truth, truth.loadRes(detections), kind)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
        ap, ap50, ap75 = (100 * max(float(value), 0.0) for value in evaluation.stats[:3])
        return ap, ap50, ap75


def _records(image: int, boxes: Tensor, labels: Tensor, rles: list[RunLengths] | None) -> list[dict[str, Any]]:
    """Return objects in COCO's format: class ids from 1, boxes as x, y, width, height."""
    x0, y0, x1, y1 = boxes.cpu().double().unbind(1)
    boxes_xywh = torch.stack((x0, y0, x1 - x0, y1 - y0), dim=1).tolist()
    records: list[dict[str, Any]] = [
        {"image_id": image, "category_id": label + 1, "bbox": box}
        for label, box in zip(labels.tolist(), boxes_xywh, strict=True)
    ]
    if rles is not None:
        for record, rle in zip(records, rles, strict=True):
            record["segmentation"] = rle
    return records


def _truth(image: int, target: dict[str, Any], masks: bool, first_id: int) -> list[dict[str, Any]]:
    boxes = target["boxes"]
    if "area" in target:
        areas = target["area"]
    elif masks:
        areas = target["masks"].areas()
    else:
        areas = (boxes[:, 2:] - boxes[:, :2]).prod(dim=1)
    crowd = target["crowd"].tolist() if "crowd" in target else [False] * len(boxes)
    records = _records(image, boxes, target["labels"], target["masks"].rles() if masks else None)
    for i, record in enumerate(records):
        record.update(id=first_id + i, iscrowd=int(crowd[i]), area=float(areas[i]))
    return records
