"""Panoptic FPN: Mask R-CNN, and a semantic branch on the same pyramid.

Source: Panoptic Feature Pyramid Networks (arXiv:1901.02446), as mmdetection and LVT have it.

Shapes: B batch, C channels, H, W canvas height and width, K things, S classes of stuff, h, w of the finest map.
"""

from collections.abc import Sequence
from functools import partial, reduce
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from nasmvt.heads.fusion import Fusion
from nasmvt.heads.mask_rcnn import MaskRCNNHead
from nasmvt.heads.segmentation import PixelLoss, classifier, resize
from nasmvt.heads.semantic_fpn import branches

Sizes = Sequence[tuple[int, int]]

IGNORE = 255


class PanopticFPNHead(nn.Module):
    """Objects of things, and a map of stuff in which all things are one class.

    Args:
        detector: finds the things.
        widths: channels of the levels that the semantic branch reads, finest first.
        strides: pixels per cell of each of them.
        things: number K of classes of things; labels below it are things.
        stuff: number S of classes of stuff.
        channels: channels of the semantic branch.
        groups: groups of its GroupNorm.
        weight: factor of its loss, `loss_semantic`.
        fusion: makes one map of objects and stuff.
    """

    heavy: ClassVar[tuple[str, ...]] = ("detector.rpn.head", "**.box_head", "**.mask_head", "branches.*")
    """Patterns of the modules whose activations may be recomputed."""

    def __init__(
        self,
        detector: MaskRCNNHead,
        widths: Sequence[int],
        strides: Sequence[int],
        things: int,
        stuff: int,
        channels: int = 128,
        groups: int = 32,
        weight: float = 0.5,
        fusion: Fusion | None = None,
    ) -> None:
        super().__init__()
        self.things, self.stuff = things, stuff
        self.fusion = fusion or Fusion()
        self.detector = detector
        self.branches = branches(widths, strides, channels, partial(nn.GroupNorm, groups))
        self.classifier = classifier(channels, stuff + 1)
        self.stride = strides[0]
        self.loss = PixelLoss("loss_semantic", weight, "all", ignore=IGNORE)

    def semantic(self, maps: Sequence[Tensor]) -> Tensor:
        """Return logits (B, S + 1, h, w) of the classes of stuff and, last, of any thing."""
        levels = [branch(map_BCHW) for branch, map_BCHW in zip(self.branches, maps, strict=False)]
        size = levels[0].shape[2:]
        logits_BShw: Tensor = self.classifier(reduce(torch.add, (resize(level, size) for level in levels)))
        return logits_BShw

    def losses(self, maps: Sequence[Tensor], targets: Sequence[dict[str, Any]], sizes: Sizes) -> dict[str, Tensor]:
        """Return the detector's losses, and the cross-entropy of the semantic branch over all pixels.

        Args:
            maps: the pyramid.
            targets: for each image what the detector learns by, and `semantic` (H, W) uint8, labels or 255.
            sizes: height and width of each image on the canvas.
        """
        objects = [{name: target[name] for name in ("boxes", "labels", "masks")} for target in targets]
        labels_BHW = torch.stack([target["semantic"] for target in targets])
        wanted_Bhw = self.reduced(labels_BHW[:, :: self.stride, :: self.stride])
        return self.detector.losses(maps, objects, sizes) | self.loss(self.semantic(maps), wanted_Bhw)

    def reduced(self, labels: Tensor) -> Tensor:
        """Return labels of the semantic branch: stuff from 0 on, then one for any thing; 255 stays."""
        labels = labels.long()
        reduced = torch.where(labels < self.things, self.stuff, labels - self.things)
        return torch.where(labels == IGNORE, IGNORE, reduced)

    def panoptic(self, maps: Sequence[Tensor], sizes: Sizes) -> tuple[list[dict[str, Tensor]], Tensor]:
        """Return the detections of each image (see `MaskRCNNHead.detect`), and the semantic logits."""
        return self.detector.detect(maps, sizes), self.semantic(maps)

    def panoptic_static(self, maps: Sequence[Tensor], sizes: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        """Return the same with shapes that depend on no values (see `MaskRCNNHead.detect_static`)."""
        return self.detector.detect_static(maps, sizes), self.semantic(maps)

    def workload(self, maps: Sequence[Tensor]) -> None:
        """Do the detector's work and the semantic branch."""
        self.detector.workload(maps)
        self.semantic(maps)
