"""Targets of detection: boxes, classes and masks of objects.

Shapes: n objects, H, W canvas height and width, h, w image height and width.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch
from torchvision.ops import masks_to_boxes

from nasmvt.data.geometry import Geometry, Size, pad, sides
from nasmvt.data.report import LabelCounts, count_indices
from nasmvt.data.targets import TARGETS, Targets

_MIN_SIDE = 1.0
"""Minimum width and height in pixels of an object that is trained on."""
_MIN_LEFT = 0.1
"""Minimum fraction of an object's box that a crop must leave."""

Objects = dict[str, Any]


class ObjectTargets(Targets):
    """A sample and a batch hold a dict per image: `boxes` (n, 4) float32 xyxy and `labels` (n,) int64.

    Where the data set has masks, `masks` are (n, H, W) bool in a training batch, else `ObjectMasks`. Samples and
    evaluation batches also have `crowd` (n,) bool.
    """

    def move(self, target: Objects, geometry: Geometry) -> Objects:
        """Return the objects of a placed image.

        Crowds, empty boxes, and objects of which the crop leaves too little are dropped. Where there are masks, a box
        is recomputed from what is left of its mask.
        """
        kept = ~target["crowd"] & (sides(target["boxes"]).amin(dim=1) > 0)
        boxes, left = geometry.boxes(target["boxes"][kept])
        seen = left >= _MIN_LEFT
        objects = {"boxes": boxes, "labels": target["labels"][kept]}
        if "masks" in target:
            objects["masks"] = geometry.masks(target["masks"][kept].dense().to(torch.uint8)).bool()
            seen = seen & objects["masks"].flatten(1).any(dim=1)
        objects = {name: value[seen] for name, value in objects.items()}
        if "masks" in objects:
            objects["boxes"] = mask_boxes(objects["masks"])
        large = sides(objects["boxes"]).amin(dim=1) >= _MIN_SIDE
        return {name: value[large] for name, value in objects.items()}

    def collate(self, targets: Sequence[Objects], canvas: Size) -> list[Objects]:
        """Return the objects of every image, masks (n, H, W) padded to the canvas."""
        return [
            {**target, "masks": pad(target["masks"], canvas, torch.tensor(False))} if "masks" in target else target
            for target in targets
        ]

    def count(self, targets: Iterable[Objects], classes: int) -> LabelCounts:
        """Count the objects of each class, the crowds, and the images without any."""
        labels, crowds, boxes, owners = [], [], [], []
        images = 0
        for target in targets:
            labels.append(target["labels"])
            crowds.append(target["crowd"])
            boxes.append(target["boxes"])
            owners += [images] * len(target["labels"])
            images += 1
        if not images:
            return LabelCounts(unit="objects", images=0, classes=(0,) * classes)
        return count_objects(
            torch.cat(labels).numpy(),
            torch.cat(crowds).numpy(),
            torch.cat(boxes).numpy(),
            np.array(owners, dtype=np.int64),
            images,
            classes,
        )


def count_objects(
    labels: np.ndarray, crowds: np.ndarray, boxes: np.ndarray, owners: np.ndarray, images: int, classes: int
) -> LabelCounts:
    """Count m objects.

    Args:
        labels: (m,) integers.
        crowds: (m,) bool.
        boxes: (m, 4) xyxy.
        owners: (m,) integers, one per image.
        images: number of images, also of those without objects.
        classes: number of classes.
    """
    flat = (boxes[:, 2:] <= boxes[:, :2]).any(axis=1) & ~crowds
    return LabelCounts(
        unit="objects",
        images=images,
        classes=count_indices(labels[~crowds], classes),
        ignored=int(crowds.sum()),
        odd={
            "images have no object": images - len(np.unique(owners)),
            "objects have an empty box and are not trained on": int(flat.sum()),
        },
    )


def mask_boxes(masks: torch.Tensor) -> torch.Tensor:
    """Return the boxes (n, 4) float32 xyxy around masks (n, H, W), from pixel edge to pixel edge."""
    boxes: torch.Tensor = masks_to_boxes(masks)
    return boxes + torch.tensor([0.0, 0.0, 1.0, 1.0])


TARGETS.add("detection", ObjectTargets(), __name__)
