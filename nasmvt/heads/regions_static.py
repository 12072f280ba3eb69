"""The detections of detectors that look at regions, with static shapes: nothing is dropped but scored 0.

Shapes: B images, A anchors of a level, R regions of an image, K classes, D detections of an image, M side of a mask.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from nasmvt.heads.proposals import RegionProposals
from nasmvt.heads.static import best, clip, large, pool, survivors

if TYPE_CHECKING:
    from nasmvt.heads.regions import RegionDetector


def detect_static(head: "RegionDetector", maps: Sequence[Tensor], sizes_B2: Tensor) -> dict[str, Tensor]:
    """Return what `RegionDetector.detect_static` says."""
    regions_BR4, found_BR = _propose(head.rpn, maps, sizes_B2)
    scores_BRK, boxes_BRK4 = _candidates(head, maps, sizes_B2, regions_BR4)
    counts_BRK = found_BR[:, :, None] & (scores_BRK > head.score_threshold) & large(boxes_BRK4, head.rules.min_size)
    scores_BKR = torch.where(counts_BRK, scores_BRK, 0).transpose(1, 2)
    boxes_BKR4 = boxes_BRK4.transpose(1, 2)
    batch, classes, regions = scores_BKR.shape
    rivals = (1, 2) if head.across_classes else (0, 1)  # candidates of one image, or of one class of it
    kept_BKR = survivors(boxes_BKR4.flatten(*rivals), scores_BKR.flatten(*rivals), head.nms).view_as(scores_BKR)
    labels_K1 = torch.arange(classes, device=scores_BKR.device)[:, None]
    scores_BD, boxes_BD4, labels_BD = best(
        torch.where(kept_BKR, scores_BKR, 0).flatten(1),
        head.detections,
        boxes_BKR4.flatten(1, 2),
        labels_K1.expand(batch, -1, regions).flatten(1),
    )
    found_BD = scores_BD > 0
    result = {
        "boxes": torch.where(found_BD[:, :, None], boxes_BD4, 0),
        "labels": torch.where(found_BD, labels_BD, 0),
        "scores": scores_BD,
    }
    return result | _masks(head, maps, result["boxes"], result["labels"])


def _propose(rpn: RegionProposals, maps: Sequence[Tensor], sizes_B2: Tensor) -> tuple[Tensor, Tensor]:
    """Return the proposals (B, R, 4) of each image, best first, and which of them there are, bool (B, R)."""
    objectness, offsets = rpn.head(list(maps))
    anchors = rpn.anchor_generator.levels(maps)
    boxes, scores = [], []
    for logits_BAHW, offsets_BAHW, anchors_A4 in zip(objectness, offsets, anchors, strict=True):
        batch = logits_BAHW.shape[0]
        logits_BA = logits_BAHW.permute(0, 2, 3, 1).flatten(1)
        offsets_BA4 = offsets_BAHW.unflatten(1, (-1, 4)).permute(0, 3, 4, 1, 2).reshape(batch, -1, 4)
        logits, offsets_n, anchors_n = best(
            logits_BA, rpn.pre_nms_top_n(), offsets_BA4, anchors_A4.expand(batch, -1, 4)
        )
        decoded = rpn.box_coder.decode_single(offsets_n.flatten(0, 1), anchors_n.flatten(0, 1)).view_as(anchors_n)
        clipped = clip(decoded, sizes_B2)
        rated = torch.where(large(clipped, rpn.min_size), logits.sigmoid(), 0)
        boxes.append(clipped)
        scores.append(torch.where(survivors(clipped, rated, rpn.nms_thresh), rated, 0))
    scores_BR, boxes_BR4 = best(torch.cat(scores, dim=1), rpn.post_nms_top_n(), torch.cat(boxes, dim=1))
    found_BR = scores_BR > 0
    return torch.where(found_BR[:, :, None], boxes_BR4, 0), found_BR


def _candidates(
    head: "RegionDetector", maps: Sequence[Tensor], sizes_B2: Tensor, regions_BR4: Tensor
) -> tuple[Tensor, Tensor]:
    """Return the probabilities (B, R, K) of every class in every region, and the boxes (B, R, K, 4), clipped."""
    every: list[Tensor] = []
    for number, stage in enumerate(head.stages):
        logits, offsets = stage.box_predictor(stage.box_head(pool(stage.box_roi_pool, maps, regions_BR4)))
        boxes = stage.coder.decode_single(offsets, regions_BR4.flatten(0, 1))
        boxes_BRK4 = clip(boxes.view(*regions_BR4.shape[:2], -1, 4)[:, :, 1:], sizes_B2)  # the background comes first
        every.append(logits.view(*regions_BR4.shape[:2], -1))
        if number + 1 < len(head.stages):
            likeliest_BR = every[-1][:, :, 1:].argmax(dim=2)
            regions_BR4 = boxes_BRK4.gather(2, likeliest_BR[:, :, None, None].expand(-1, -1, 1, 4))[:, :, 0]
    if head.rules.mean_logits:
        scores = torch.stack(every).mean(dim=0).softmax(dim=2)
    else:
        scores = torch.stack([logits.softmax(dim=2) for logits in every]).mean(dim=0)
    return scores[:, :, 1:], boxes_BRK4


def _masks(head: "RegionDetector", maps: Sequence[Tensor], boxes_BD4: Tensor, labels_BD: Tensor) -> dict[str, Tensor]:
    """Return the `masks` (B, D, M, M) of detections, probabilities inside their boxes, if there is a mask branch."""
    drawn = []
    for stage in head.stages:
        if stage.mask_head is not None:
            logits = stage.mask_predictor(stage.mask_head(pool(stage.mask_roi_pool, maps, boxes_BD4)))
            own = (labels_BD + 1).view(-1, 1, 1, 1).expand(-1, 1, *logits.shape[2:])
            drawn.append(logits.gather(1, own).sigmoid().view(*labels_BD.shape, *logits.shape[2:]))
    return {"masks": torch.stack(drawn).mean(dim=0)} if drawn else {}
