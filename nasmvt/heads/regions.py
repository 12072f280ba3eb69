"""Detectors that look at regions again: Mask R-CNN in one stage, Cascade Mask R-CNN in several.

A stage classifies regions, moves them to the objects and maybe draws masks in them; the next one looks at what it has
moved. Sources: Mask R-CNN (arXiv:1703.06870), Cascade R-CNN (arXiv:1712.00726).

Shapes: B batch, R regions of all images, n of one, P those of them that are an object's, K classes, S side of a pooled
region, M side of a mask. Labels count the background as 0 in here.
"""

from collections import OrderedDict
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torchvision.models.detection._utils import BalancedPositiveNegativeSampler
from torchvision.models.detection.image_list import ImageList
from torchvision.ops import clip_boxes_to_image, remove_small_boxes

from nasmvt.heads.boxes import BACKGROUND, assign, suppress
from nasmvt.heads.proposals import RegionProposals
from nasmvt.heads.region_stage import RegionStage, Samples, Sizes, box_losses, mask_loss
from nasmvt.heads.regions_static import detect_static


@dataclass(frozen=True, kw_only=True)
class RegionRules:
    """What a convention says."""

    low_quality: float | None
    """Least overlap (IoU) at which an object takes its best region from another one; None: it does not."""
    binary_masks: bool
    """Whether target masks are read at the centres of cells and are 0 or 1 (detectron2, mmdetection), or neither."""
    min_size: float
    """Detections that are narrower are dropped."""
    draws_anew: bool
    """Whether every stage adds the true boxes and draws regions (mmdetection), or later ones keep those of the first
    (detectron2)."""
    mean_logits: bool
    """Whether the stages' logits are averaged, or their probabilities."""
    shares_gradient: bool
    """Whether each of n stages sends but the nth part of its gradient through its pooled regions."""


class RegionDetector(nn.Module):
    """Proposals, and stages that look at them: a subclass holds these as `stages`.

    Args:
        rpn: the region proposals.
        rules: what the convention says.
        regions: most regions of an image that are looked at while predicting.
        roi_batch: regions per image in the loss, a quarter of them at most objects'.
        score_threshold: detections with a lower score are dropped.
        nms: overlap (IoU) above which the weaker of two detections of a class is dropped.
        detections: most detections kept per image.
        across_classes: whether detections of other classes are dropped, too.
    """

    heavy: ClassVar[tuple[str, ...]] = ("rpn.head", "**.box_head", "**.mask_head")
    """Patterns of the modules whose activations may be recomputed."""

    stages: Any  # a sequence of RegionStage, of the subclass

    def __init__(
        self,
        rpn: RegionProposals,
        rules: RegionRules,
        *,
        regions: int,
        roi_batch: int,
        score_threshold: float,
        nms: float,
        detections: int,
        across_classes: bool = False,
    ) -> None:
        super().__init__()
        self.across_classes = across_classes
        self.rpn, self.rules, self.regions = rpn, rules, regions
        self.sampler = BalancedPositiveNegativeSampler(roi_batch, 0.25)
        self.score_threshold, self.nms, self.detections = score_threshold, nms, detections

    def strip(self, parts: Collection[str]) -> None:
        """Drop the mask branches, if `parts` names `masks`: detections and losses have none then."""
        if "masks" in parts:
            for stage in self.stages:
                stage.mask_roi_pool = stage.mask_head = stage.mask_predictor = None

    def losses(self, maps: Sequence[Tensor], targets: Sequence[dict[str, Tensor]], sizes: Sizes) -> dict[str, Tensor]:
        """Return the losses of a batch, drawing anchors and regions at random; needs `train()`.

        Args:
            maps: the pyramid, one (B, C, H, W) per stride.
            targets: for each image `boxes` (n, 4) float xyxy of positive width and height, `labels` (n,)
                int64 from 0, and `masks` (n, H, W) if there is a mask branch; n may be 0.
            sizes: height and width of each image on the canvas.

        Returns:
            `loss_objectness`, `loss_rpn_box_reg`, and of every stage `loss_classifier`, `loss_box_reg` and, with masks,
            `loss_mask`; where there are several stages, their number follows (`loss_mask_1`).

        Raises:
            RuntimeError: if the head is not in training mode.
        """
        if not self.training:
            raise RuntimeError(f"{type(self).__name__}.losses needs training mode: call train() before it")
        features, images = _torchvision_inputs(maps, sizes)
        targets = [
            {**target, "labels": target["labels"] + 1, "size": torch.tensor(size)}
            for target, size in zip(targets, sizes, strict=True)
        ]
        regions, losses = self.rpn(images, features, targets)
        gradient = 1 / len(self.stages) if self.rules.shares_gradient else 1.0
        for number, stage in enumerate(self.stages):
            draws = self.rules.draws_anew or number == 0
            samples = [self._sample(stage, *image, draws=draws) for image in zip(regions, targets, strict=True)]
            boxes = [sample.boxes for sample in samples]
            logits, offsets = stage.boxes(features, boxes, images.image_sizes, gradient)
            suffix = f"_{number + 1}" if len(self.stages) > 1 else ""
            own = box_losses(stage, logits, offsets, samples, targets)
            if stage.mask_head is not None:
                own["loss_mask"] = mask_loss(stage, features, images, samples, targets, self.rules.binary_masks)
            losses.update({name + suffix: stage.weight * loss for name, loss in own.items()})
            if number + 1 < len(self.stages):
                regions = self._next(stage, samples, logits, offsets, images.image_sizes)
        result: dict[str, Tensor] = losses
        return result

    @torch.no_grad()
    def _sample(self, stage: RegionStage, boxes_n4: Tensor, target: dict[str, Tensor], *, draws: bool) -> Samples:
        """Match the regions of an image with its objects; if asked, add the true boxes and draw some at random."""
        objects_G4, number = target["boxes"], len(target["boxes"])
        match_n = assign(
            boxes_n4, objects_G4, stage.overlap, stage.overlap, low_quality=self.rules.low_quality, moving=True
        )
        true_n = torch.zeros_like(match_n, dtype=torch.bool)
        if draws:
            boxes_n4 = torch.cat((boxes_n4, objects_G4))
            match_n = torch.cat((match_n, torch.arange(number, device=match_n.device)))
            true_n = torch.cat((true_n, true_n.new_ones(number)))
        labels_n = torch.zeros_like(match_n)
        own = match_n > BACKGROUND
        labels_n[own] = target["labels"][match_n[own]]
        samples = Samples(boxes=boxes_n4, labels=labels_n, objects=match_n, true=true_n)
        if not draws:
            return samples
        (positive,), (negative,) = self.sampler([labels_n])
        return samples[torch.cat((positive.nonzero(), negative.nonzero())).squeeze(1)]

    @torch.no_grad()
    def _next(
        self, stage: RegionStage, samples: Sequence[Samples], logits_RK: Tensor, offsets_RK4: Tensor, sizes: Sizes
    ) -> list[Tensor]:
        """Return the regions of the next stage: those of this one, moved for their class or else the likeliest."""
        labels_R = torch.cat([sample.labels for sample in samples])
        labels_R = labels_R.where(labels_R > 0, _likeliest(logits_RK))
        moved = stage.moved([sample.boxes for sample in samples], offsets_RK4, labels_R, sizes)
        if self.rules.draws_anew:  # the true boxes will be added again
            return [boxes_n4[~sample.true] for boxes_n4, sample in zip(moved, samples, strict=True)]
        return [boxes_n4[(boxes_n4[:, 2:] > boxes_n4[:, :2]).all(dim=1)] for boxes_n4 in moved]

    def detect(self, maps: Sequence[Tensor], sizes: Sizes) -> list[dict[str, Tensor]]:
        """Return the detections of each image, best score first; needs `eval()`.

        Args:
            maps: the pyramid, one (B, C, H, W) per stride.
            sizes: height and width of each image on the canvas; boxes are clipped to it.

        Returns:
            For each image `boxes` (n, 4) xyxy, `labels` (n,) from 0, `scores` (n,) in 0..1 and, with a mask
            branch, `masks` (n, M, M), the probability of the object inside its box.

        Raises:
            RuntimeError: if the head is in training mode.
        """
        if self.training:
            raise RuntimeError(f"{type(self).__name__}.detect needs evaluation mode: call eval() before it")
        features, images = _torchvision_inputs(maps, sizes)
        regions, _ = self.rpn(images, features)
        scores_RK, boxes_RK4 = self.candidates(features, regions, images.image_sizes)
        counts = [len(region) for region in regions]
        found = [
            self._kept(*image) for image in zip(scores_RK.split(counts), boxes_RK4.split(counts), sizes, strict=True)
        ]
        self._draw_masks(features, found, images.image_sizes)
        return [{**detection, "labels": detection["labels"] - 1} for detection in found]

    def candidates(self, features: dict[str, Tensor], regions: list[Tensor], sizes: Sizes) -> tuple[Tensor, Tensor]:
        """Return probabilities (R, K + 1) and boxes (R, K + 1, 4), not clipped, after the last stage."""
        every = []
        for number, stage in enumerate(self.stages):
            logits_RK, offsets_RK4 = stage.boxes(features, regions, sizes)
            every.append(logits_RK)
            if number + 1 < len(self.stages):
                regions = stage.moved(regions, offsets_RK4, _likeliest(logits_RK), sizes)
        boxes_RK4 = stage.coder.decode_single(offsets_RK4.flatten(1), torch.cat(regions)).unflatten(1, (-1, 4))
        if self.rules.mean_logits:
            return torch.stack(every).mean(0).softmax(-1), boxes_RK4
        return torch.stack([logits_RK.softmax(-1) for logits_RK in every]).mean(0), boxes_RK4

    def _kept(self, scores_nK: Tensor, boxes_nK4: Tensor, size: tuple[int, int]) -> dict[str, Tensor]:
        """Return what is detected in an image, labels from 1."""
        region, label = (scores_nK[:, 1:] > self.score_threshold).nonzero(as_tuple=True)
        label = label + 1
        boxes, scores = clip_boxes_to_image(boxes_nK4[region, label], size), scores_nK[region, label]
        wide = remove_small_boxes(boxes, self.rules.min_size)
        boxes, scores, label = boxes[wide], scores[wide], label[wide]
        groups = torch.zeros_like(label) if self.across_classes else label
        kept = suppress(boxes, scores, groups, self.nms, self.detections)
        return {"boxes": boxes[kept], "labels": label[kept], "scores": scores[kept]}

    def _draw_masks(self, features: dict[str, Tensor], found: list[dict[str, Tensor]], sizes: Sizes) -> None:
        """Add the masks to detections: the mean of the probabilities of all stages that draw any."""
        boxes = [detection["boxes"] for detection in found]
        labels_R = torch.cat([detection["labels"] for detection in found])
        drawn = [
            stage.masks(features, boxes, sizes, labels_R).sigmoid()
            for stage in self.stages
            if stage.mask_head is not None
        ]
        if drawn:
            masks = torch.stack(drawn).mean(0).split([len(box) for box in boxes])
            for detection, masks_nMM in zip(found, masks, strict=True):
                detection["masks"] = masks_nMM

    def detect_static(self, maps: Sequence[Tensor], sizes: Tensor) -> dict[str, Tensor]:
        """Return the detections of `detect` with shapes that depend on no values; needs `eval()`.

        Args:
            maps: the pyramid, one (B, C, H, W) per stride.
            sizes: (B, 2) int64, height and width of each image on the canvas; boxes are clipped to it.

        Returns:
            D places per image, best score first: `boxes` (B, D, 4) xyxy, `labels` (B, D) from 0, `scores` (B, D) and,
            with a mask branch, `masks` (B, D, M, M). The score of a place without a detection is 0.
        """
        return detect_static(self, maps, sizes)

    def workload(self, maps: Sequence[Tensor]) -> None:
        """Run the proposals, the box branches on all regions kept by suppression, the mask branches on all detections.

        What is neither convolution nor matrix product, suppression and pooling for example, is left out.
        """
        self.rpn.head(list(maps))
        images, width = maps[0].shape[:2]
        for stage in self.stages:
            pooled = maps[0].new_zeros(images * self.regions, width, *stage.box_roi_pool.output_size)
            stage.box_predictor(stage.box_head(pooled))
            if stage.mask_head is not None:
                pooled = maps[0].new_zeros(images * self.detections, width, *stage.mask_roi_pool.output_size)
                stage.mask_predictor(stage.mask_head(pooled))

    def forward(self, maps: Sequence[Tensor], sizes: Sizes) -> list[dict[str, Tensor]]:
        """Return `detect(maps, sizes)`."""
        return self.detect(maps, sizes)


def _likeliest(logits_RK: Tensor) -> Tensor:
    """Return the class of the highest logit (R,), the background left aside."""
    return logits_RK[:, 1:].argmax(1) + 1


def _torchvision_inputs(maps: Sequence[Tensor], sizes: Sizes) -> tuple[dict[str, Tensor], ImageList]:
    """Name the levels and wrap the sizes; the list's tensors are never read, so the first map stands in."""
    features = OrderedDict((str(i), map_BCHW) for i, map_BCHW in enumerate(maps))
    return features, ImageList(maps[0], [(int(height), int(width)) for height, width in sizes])
