"""A stage of a detector that looks at regions again, and its losses.

Shapes: R regions of all images, n of one, P those of them that are an object's, K classes, C channels, S side of a
pooled region, M side of a mask, G objects of an image, H, W of an image. Labels count the background as 0 in here.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.detection._utils import BoxCoder
from torchvision.models.detection.image_list import ImageList
from torchvision.ops import MultiScaleRoIAlign, clip_boxes_to_image
from torchvision.ops import roi_align as align_regions

from nasmvt.heads.boxes import giou
from nasmvt.heads.roi import BoxHead, BoxPredictor, MaskHead, MaskPredictor

Sizes = Sequence[tuple[int, int]]


@dataclass(frozen=True, kw_only=True)
class Samples:
    """Regions of an image in the loss."""

    boxes: Tensor
    """(n, 4) xyxy."""
    labels: Tensor
    """(n,) int64, 0 for the background."""
    objects: Tensor
    """(n,) int64: the object of each region; without meaning for the background."""
    true: Tensor
    """(n,) bool: whether the region is a true box itself."""

    def __getitem__(self, places: Tensor) -> "Samples":
        return Samples(
            boxes=self.boxes[places], labels=self.labels[places], objects=self.objects[places], true=self.true[places]
        )


class RegionStage(nn.Module):
    """Classes and boxes of regions, and their masks where there is a mask branch.

    Args:
        box_pool: pools regions for the box branch.
        box_head: turns pooled regions (R, C, S, S) into features.
        box_predictor: turns features into logits and offsets.
        mask_pool: pools regions for the mask branch; None: there is none.
        mask_head: turns pooled regions into maps.
        mask_predictor: turns maps into logits of masks.
        coder: the code of boxes by offsets.
        box_loss: the loss of boxes, see `BOX_LOSSES`.
        box_weight: its factor.
        overlap: IoU from which a region is an object's.
        weight: factor of all losses of the stage.
    """

    def __init__(
        self,
        box_pool: MultiScaleRoIAlign,
        box_head: BoxHead,
        box_predictor: BoxPredictor,
        mask_pool: MultiScaleRoIAlign | None,
        mask_head: MaskHead | None,
        mask_predictor: MaskPredictor | None,
        *,
        coder: BoxCoder,
        box_loss: "BoxLoss",
        box_weight: float = 1.0,
        overlap: float = 0.5,
        weight: float = 1.0,
    ) -> None:
        super().__init__()
        self.box_roi_pool, self.box_head, self.box_predictor = box_pool, box_head, box_predictor
        self.mask_roi_pool, self.mask_head, self.mask_predictor = mask_pool, mask_head, mask_predictor
        self.coder, self.overlap, self.weight = coder, overlap, weight
        self.box_loss, self.box_weight = box_loss, box_weight

    def boxes(
        self, features: dict[str, Tensor], regions: list[Tensor], sizes: Sizes, gradient: float = 1.0
    ) -> tuple[Tensor, Tensor]:
        """Return logits (R, K + 1) and offsets (R, K + 1, 4) of regions, one (n, 4) per image."""
        pooled = self.box_roi_pool(features, regions, list(sizes))
        if gradient != 1 and pooled.requires_grad:
            pooled.register_hook(lambda grad: grad * gradient)
        logits, offsets = self.box_predictor(self.box_head(pooled))
        return logits, offsets.unflatten(1, (-1, 4))

    def masks(self, features: dict[str, Tensor], regions: list[Tensor], sizes: Sizes, labels_R: Tensor) -> Tensor:
        """Return the logits (R, M, M) of the masks of labelled regions."""
        assert self.mask_roi_pool is not None  # built together
        assert self.mask_head is not None
        assert self.mask_predictor is not None
        logits = self.mask_predictor(self.mask_head(self.mask_roi_pool(features, regions, list(sizes))))
        chosen: Tensor = logits[torch.arange(len(labels_R), device=labels_R.device), labels_R]
        return chosen

    def moved(self, regions: list[Tensor], offsets_RK4: Tensor, labels_R: Tensor, sizes: Sizes) -> list[Tensor]:
        """Return regions moved by the offsets of their labels, clipped to their images."""
        chosen_R4 = offsets_RK4[torch.arange(len(labels_R), device=labels_R.device), labels_R]
        boxes = self.coder.decode_single(chosen_R4, torch.cat(regions)).split([len(region) for region in regions])
        return [clip_boxes_to_image(box, size) for box, size in zip(boxes, sizes, strict=True)]


BoxLoss = Callable[[BoxCoder, Tensor, Tensor, Tensor], Tensor]
"""`loss(coder, offsets_P4, regions_P4, objects_P4)`: the sum over regions of the loss of their offsets."""


def _smooth_l1(beta: float) -> BoxLoss:
    def loss(coder: BoxCoder, offsets_P4: Tensor, regions_P4: Tensor, objects_P4: Tensor) -> Tensor:
        return F.smooth_l1_loss(offsets_P4, coder.encode_single(objects_P4, regions_P4), beta=beta, reduction="sum")

    return loss


def _giou(coder: BoxCoder, offsets_P4: Tensor, regions_P4: Tensor, objects_P4: Tensor) -> Tensor:
    return (1 - giou(coder.decode_single(offsets_P4, regions_P4), objects_P4, floor=1e-6)).sum()


BOX_LOSSES: Mapping[str, BoxLoss] = {"smooth_l1": _smooth_l1(1 / 9), "l1": _smooth_l1(0), "giou": _giou}
"""The loss of a region's box: of its offsets, or of the box that they give."""


def box_losses(
    stage: RegionStage,
    logits_RK: Tensor,
    offsets_RK4: Tensor,
    samples: Sequence[Samples],
    targets: Sequence[dict[str, Tensor]],
) -> dict[str, Tensor]:
    """Return the losses of classes and boxes, each divided by the number of regions."""
    labels_R, number = torch.cat([sample.labels for sample in samples]), max(len(logits_RK), 1)
    own = labels_R > 0
    objects_P4 = torch.cat(
        [target["boxes"][s.objects[s.labels > 0]] for target, s in zip(targets, samples, strict=True)]
    )
    regions_P4 = torch.cat([sample.boxes for sample in samples])[own]
    boxes = stage.box_loss(stage.coder, offsets_RK4[own, labels_R[own]], regions_P4, objects_P4)
    return {
        "loss_classifier": F.cross_entropy(logits_RK, labels_R, reduction="sum") / number,
        "loss_box_reg": stage.box_weight * boxes / number,
    }


def mask_loss(
    stage: RegionStage,
    features: dict[str, Tensor],
    images: ImageList,
    samples: Sequence[Samples],
    targets: Sequence[dict[str, Tensor]],
    binary: bool,
) -> Tensor:
    """Return the mean cross-entropy over the masks of the regions that are an object's; 0 without any."""
    own = [sample[sample.labels > 0] for sample in samples]
    labels_P = torch.cat([sample.labels for sample in own])
    logits_PMM = stage.masks(features, [sample.boxes for sample in own], images.image_sizes, labels_P)
    wanted = [
        target_masks(target["masks"], sample, logits_PMM.shape[-1], binary)
        for target, sample in zip(targets, own, strict=True)
    ]
    if not len(labels_P):
        return logits_PMM.sum() * 0
    return F.binary_cross_entropy_with_logits(logits_PMM, torch.cat(wanted))


def target_masks(masks_GHW: Tensor, samples: Samples, side: int, binary: bool) -> Tensor:
    """Return the masks (P, M, M) of the objects of regions, inside these."""
    regions_P5 = torch.cat((samples.objects[:, None].to(samples.boxes), samples.boxes), dim=1)
    cut = align_regions(masks_GHW[:, None].to(samples.boxes), regions_P5, (side, side), aligned=binary).squeeze(1)
    return (cut >= 0.5).to(cut) if binary else cut
