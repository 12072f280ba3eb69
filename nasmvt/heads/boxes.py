"""What detectors do with boxes: match them with objects, decode them, suppress the weaker ones.

Boxes are xyxy in pixels. Shapes: A anchors or regions, G objects, K classes, n boxes.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torchvision.models.detection._utils import BoxCoder
from torchvision.ops import batched_nms, box_area, box_iou

BACKGROUND, IGNORED = -1, -2
"""What stands for an object in a match: none, or none that counts."""


def assign(
    boxes_A4: Tensor,
    objects_G4: Tensor,
    positive: float,
    negative: float,
    *,
    low_quality: float | None = None,
    moving: bool = False,
    usable_A: Tensor | None = None,
) -> Tensor:
    """Match each anchor with the object of the highest overlap (IoU).

    Args:
        boxes_A4: anchors or regions.
        objects_G4: true boxes.
        positive: least overlap of a match.
        negative: below this an anchor is background; in between it is ignored.
        low_quality: every object also takes the anchors that reach its own best overlap, if that is at least this;
            None: it does not.
        moving: whether such an anchor is matched with that very object, later ones winning (mmdetection), or with the
            object that it overlaps most (detectron2, torchvision).
        usable_A: anchors that take part; the others are ignored.

    Returns:
        The object's index of each anchor (A,) int64, or `BACKGROUND`, or `IGNORED`.
    """
    if len(objects_G4):
        overlaps_GA = box_iou(objects_G4, boxes_A4)
        if usable_A is not None:
            overlaps_GA = overlaps_GA.where(usable_A, -1.0)
        best_A, object_A = overlaps_GA.max(dim=0)
        match_A = object_A.where(best_A >= positive, IGNORED)
        match_A[best_A < negative] = BACKGROUND
        if low_quality is not None and len(boxes_A4):
            best_G1 = overlaps_GA.max(dim=1, keepdim=True).values
            reached_GA = (overlaps_GA == best_G1) & (best_G1 >= low_quality) & (best_G1 > 0)
            for number, reached_A in enumerate(reached_GA):
                match_A = torch.where(reached_A, number if moving else object_A, match_A)
    else:
        match_A = torch.full((len(boxes_A4),), BACKGROUND, device=boxes_A4.device)
    return match_A if usable_A is None else match_A.where(usable_A, IGNORED)


class TwoSidedBoxCoder(BoxCoder):
    """torchvision's box offsets, with the same bound for shrinking (by 62.5) as for growing, as in mmdetection."""

    def decode_single(self, rel_codes: Tensor, boxes: Tensor) -> Tensor:
        """Turn offsets (R, 4 * K) from boxes (R, 4) into boxes (R, 4 * K)."""
        *_, width, height = self.weights
        lowest = rel_codes.new_tensor(
            [-math.inf, -math.inf, -self.bbox_xform_clip * width, -self.bbox_xform_clip * height]
        )
        codes = torch.maximum(rel_codes.unflatten(1, (-1, 4)), lowest).flatten(1)
        decoded: Tensor = super().decode_single(codes, boxes)
        return decoded


def box_coder(weights: Sequence[float] = (1, 1, 1, 1), *, clip_shrinking: bool) -> BoxCoder:
    """Return the code of boxes by offsets from others.

    Args:
        weights: factors of the offsets x, y, width, height.
        clip_shrinking: whether offsets that shrink a box are bounded like those that enlarge it.
    """
    return (TwoSidedBoxCoder if clip_shrinking else BoxCoder)(tuple(weights))


def cells_inside(anchors_A4: Tensor, size: tuple[int, int], divisor: int) -> Tensor:
    """Return which anchors (A,) stand on a cell that an image padded to a multiple of `divisor` covers."""
    rows, columns = (-(-side // divisor) * divisor for side in size)
    x_A, y_A = (anchors_A4[:, :2] + anchors_A4[:, 2:]).unbind(1)  # twice the centre, a whole number but for rounding
    return (x_A < 2 * columns - 1) & (y_A < 2 * rows - 1)


def giou(a_n4: Tensor, b_n4: Tensor, floor: float = 0.0) -> Tensor:
    """Return the generalized IoU (n,) of pairs of boxes (arXiv:1902.09630).

    torchvision's loss adds an epsilon to union and hull; here they are at least `floor`.
    """
    overlap_n2 = torch.minimum(a_n4[:, 2:], b_n4[:, 2:]) - torch.maximum(a_n4[:, :2], b_n4[:, :2])
    hull_n2 = torch.maximum(a_n4[:, 2:], b_n4[:, 2:]) - torch.minimum(a_n4[:, :2], b_n4[:, :2])
    shared_n, hull_n = overlap_n2.clamp(min=0).prod(dim=1), hull_n2.clamp(min=0).prod(dim=1).clamp(min=floor)
    union_n = (box_area(a_n4) + box_area(b_n4) - shared_n).clamp(min=floor)
    return shared_n / union_n - (hull_n - union_n) / hull_n


def suppress(boxes_n4: Tensor, scores_n: Tensor, labels_n: Tensor, overlap: float, most: int) -> Tensor:
    """Return the places of the boxes that no better one of their class overlaps (IoU) by more, best score first.

    torchvision moves the classes apart by the largest coordinate, which is too little where some are negative: the
    boxes are moved first.
    """
    if not len(boxes_n4):
        return torch.zeros(0, dtype=torch.int64, device=boxes_n4.device)
    return batched_nms(boxes_n4 - boxes_n4.min().clamp(max=0), scores_n, labels_n, overlap)[:most]
