"""Heuristic fusion of objects and a semantic map to one panoptic map.

Source: Panoptic Segmentation (arXiv:1801.00868), section 6, as mmdetection has it.

Shapes: n objects, H, W of the image.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

INSTANCES = 1000
"""An object's value is its class plus its number times this."""


@dataclass(frozen=True, kw_only=True)
class Fusion:
    """The rules by which objects and stuff share the pixels."""

    overlap: float = 0.5
    """An object of which more than this part is covered by better ones is dropped."""
    least_stuff: int = 4096
    """Classes of stuff with fewer pixels are left void."""

    def __call__(
        self, masks_nHW: Tensor, scores_n: Tensor, labels_n: Tensor, semantic_HW: Tensor, things: int, stuff: int
    ) -> Tensor:
        """Return the panoptic map (H, W) int64: `class + 1000 * number` of objects, the class of stuff, or void.

        Args:
            masks_nHW: bool, the pixels of each object.
            scores_n: better ones take their pixels first.
            labels_n: their classes.
            semantic_HW: integers, the class of stuff of every pixel from 0 on, or the number of them for any thing.
            things: number of classes of things.
            stuff: number of classes of stuff; void is `things + stuff`.
        """
        void = things + stuff
        panoptic = things + semantic_HW.long()
        objects = torch.zeros_like(panoptic)
        number = 0
        for place in scores_n.argsort(descending=True, stable=True).tolist():
            mask, taken = masks_nHW[place], objects > 0
            area = int(mask.sum())
            if not area or int((mask & taken).sum()) / (area + 1e-5) > self.overlap:
                continue
            number += 1
            free = mask & ~taken
            objects[free] = number
            panoptic[free] = int(labels_n[place]) + INSTANCES * number
        counts = torch.bincount(panoptic[objects == 0], minlength=void + 1)
        for label in range(things, void):
            if counts[label] < self.least_stuff:
                panoptic[panoptic == label] = void
        return panoptic
