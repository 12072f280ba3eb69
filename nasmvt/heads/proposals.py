"""Region proposals: torchvision's network, by the rules of torchvision, detectron2 or mmdetection.

Source: Faster R-CNN (arXiv:1506.01497).

Shapes: B batch, C channels, H, W of a level, A anchors, n objects of an image.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.models.detection.rpn import RegionProposalNetwork, RPNHead

from nasmvt.heads.anchors import StridedAnchors
from nasmvt.heads.boxes import BACKGROUND, IGNORED, assign, box_coder, cells_inside
from nasmvt.heads.layers import in_float32


@dataclass(frozen=True, kw_only=True)
class ProposalRules:
    """What a convention says."""

    beta: float
    """Where smooth L1 of the offsets turns from a square into a line; 0: L1."""
    sampled: bool
    """Whether losses are divided by the number of anchors drawn, or by the most that may be drawn."""
    least_one: bool
    """Whether an image without anchors for an object, or for the background, counts as if it had one."""
    low_quality: float
    """Least overlap (IoU) at which an object takes its best anchors, though they overlap it less than 0.7."""
    moving: bool
    """Whether it takes them from objects that they overlap more."""
    anchors: str
    """Which anchors are used in training: "all", "padded" (cells inside the image padded to a multiple of 32) or
    "inside" (whole anchor inside the image)."""
    min_size: float
    """Narrower proposals are dropped; 0 keeps those without an area, too."""


def _inside(anchors_A4: Tensor, size: tuple[int, int]) -> Tensor:
    height, width = size
    low = (anchors_A4[:, :2] >= 0).all(dim=1)
    return low & (anchors_A4[:, 2] < width) & (anchors_A4[:, 3] < height)


_USED: Mapping[str, Callable[[Tensor, tuple[int, int]], Tensor | None]] = {
    "all": lambda anchors, size: None,
    "padded": lambda anchors, size: cells_inside(anchors, size, 32),
    "inside": _inside,
}


class ProposalHead(RPNHead):
    """torchvision's proposal head; what it says is in float32, for the boxes are computed from it."""

    def forward(self, x: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """Turn maps (B, C, H, W) into logits (B, A, H, W) and box offsets (B, 4 * A, H, W) of A anchors per cell."""
        logits, offsets = super().forward(x)
        return [in_float32(logit) for logit in logits], [in_float32(offset) for offset in offsets]


class RegionProposals(RegionProposalNetwork):
    """torchvision's region proposals; in training, targets hold the `size` (height, width) of their image, too.

    Args:
        anchors: the anchors.
        head: turns the pyramid into logits and offsets.
        rules: what the convention says.
        batch: anchors per image in the loss, at most half of them positive.
        pre_nms: proposals kept per level before suppression, while training and while predicting.
        post_nms: proposals kept per image after it, while training and while predicting.
        clip_shrinking: whether offsets that shrink a box are bounded.
    """

    def __init__(
        self,
        anchors: StridedAnchors,
        head: ProposalHead,
        rules: ProposalRules,
        *,
        batch: int,
        pre_nms: tuple[int, int],
        post_nms: tuple[int, int],
        clip_shrinking: bool,
    ) -> None:
        super().__init__(
            anchors,
            head,
            fg_iou_thresh=0.7,
            bg_iou_thresh=0.3,
            batch_size_per_image=batch,
            positive_fraction=0.5,
            pre_nms_top_n={"training": pre_nms[0], "testing": pre_nms[1]},
            post_nms_top_n={"training": post_nms[0], "testing": post_nms[1]},
            nms_thresh=0.7,
        )
        self.rules, self.batch = rules, batch
        self.min_size = rules.min_size
        self.box_coder = box_coder(clip_shrinking=clip_shrinking)

    def assign_targets_to_anchors(
        self, anchors: Sequence[Tensor], targets: Sequence[dict[str, Tensor]]
    ) -> tuple[list[Tensor], list[Tensor]]:
        """Return for each image labels (A,), 1 for an object, 0 for background, -1 ignored, and boxes (A, 4)."""
        labels, boxes = [], []
        for anchors_A4, target in zip(anchors, targets, strict=True):
            size = (int(target["size"][0]), int(target["size"][1]))
            match_A = assign(
                anchors_A4,
                target["boxes"],
                0.7,
                0.3,
                low_quality=self.rules.low_quality,
                moving=self.rules.moving,
                usable_A=_USED[self.rules.anchors](anchors_A4, size),
            )
            labels.append((match_A > BACKGROUND).float() - (match_A == IGNORED).float())
            objects = target["boxes"] if len(target["boxes"]) else torch.zeros_like(anchors_A4[:1])
            boxes.append(objects[match_A.clamp(min=0)])
        return labels, boxes

    def compute_loss(
        self, objectness: Tensor, pred_bbox_deltas: Tensor, labels: list[Tensor], regression_targets: list[Tensor]
    ) -> tuple[Tensor, Tensor]:
        """Return the losses of logits and offsets over anchors drawn at random."""
        masks = self.fg_bg_sampler(labels)
        positive, negative = (torch.where(torch.cat(drawn))[0] for drawn in masks)
        drawn = torch.cat((positive, negative))
        number = len(drawn) if self.rules.sampled else self.batch * len(labels)
        if self.rules.least_one:
            number += sum(int(not mask_A.any()) for drawn_B in masks for mask_A in drawn_B)
        boxes = F.smooth_l1_loss(
            pred_bbox_deltas[positive], torch.cat(regression_targets)[positive], beta=self.rules.beta, reduction="sum"
        )
        logits, wanted = objectness.flatten()[drawn], torch.cat(labels)[drawn]
        scores = F.binary_cross_entropy_with_logits(logits, wanted, reduction="sum")
        return scores / max(number, 1), boxes / max(number, 1)
