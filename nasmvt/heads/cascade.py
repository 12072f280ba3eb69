"""Cascade Mask R-CNN on a pyramid, by mmdetection's rules (ViTAEv2) or detectron2's (MPViT).

Source: Cascade R-CNN (arXiv:1712.00726); mmdetection 2.11, detectron2 0.5.

Shapes: C channels, K classes.
"""

from collections.abc import Sequence
from typing import Literal

from torch import nn

from nasmvt.heads.boxes import box_coder
from nasmvt.heads.mask_rcnn import CASCADE_RULES, proposals
from nasmvt.heads.region_stage import BOX_LOSSES, RegionStage
from nasmvt.heads.regions import RegionDetector
from nasmvt.heads.roi import BoxHead, BoxPredictor, MaskHead, MaskPredictor, roi_align

Convention = Literal["detectron2", "mmdetection"]
Four = tuple[float, float, float, float]

STDS: tuple[Four, ...] = ((0.1, 0.1, 0.2, 0.2), (0.05, 0.05, 0.1, 0.1), (0.033, 0.033, 0.067, 0.067))


class CascadeMaskRCNNHead(RegionDetector):
    """Mask R-CNN in stages: each looks at the regions that the one before has moved, and is stricter.

    Args:
        strides: pixels of the image per cell of each level of the pyramid; the last one serves proposals only.
        classes: number K of classes, background not counted.
        masks: whether there is a mask branch.
        width: channels C of the pyramid and of every convolution here.
        anchor_scale: side of the square anchor in cells.
        anchor_ratios: height divided by width of the anchors.
        rpn_convs: 3x3 convolutions of the proposal head.
        box_convs: 3x3 convolutions of a box branch.
        box_linears: linear layers of a box branch.
        box_hidden: outputs of each of them.
        mask_convs: 3x3 convolutions of a mask branch.
        box_size: side of a region pooled for the box branch.
        mask_size: side of a region pooled for the mask branch; masks have twice that side.
        rpn_batch: anchors per image in the loss.
        roi_batch: regions per image and stage in the loss.
        pre_nms: proposals kept per level before suppression, while training and while predicting.
        post_nms: proposals kept per image after it, while training and while predicting.
        score_threshold: detections with a lower score are dropped.
        nms: overlap (IoU) above which the weaker of two detections of a class is dropped.
        detections: most detections kept per image.
        overlaps: IoU from which a region is an object's, of each stage.
        weights: factors of the losses of each stage.
        stds: standard deviations of the offsets x, y, width, height of each stage.
        box_loss: a name of `BOX_LOSSES`.
        box_weight: factor of the loss of boxes.
        shared_box: whether the classes have one box in common.
        mask_stages: stages with a mask branch, from the first.
        convention: whose rules hold, see `CASCADE_RULES`.
    """

    def __init__(
        self,
        strides: Sequence[int],
        classes: int,
        *,
        masks: bool = True,
        width: int = 256,
        anchor_scale: float = 8,
        anchor_ratios: Sequence[float] = (0.5, 1.0, 2.0),
        rpn_convs: int = 1,
        box_convs: int = 4,
        box_linears: int = 1,
        box_hidden: int = 1024,
        mask_convs: int = 4,
        box_size: int = 7,
        mask_size: int = 14,
        rpn_batch: int = 256,
        roi_batch: int = 512,
        pre_nms: tuple[int, int] = (2000, 1000),
        post_nms: tuple[int, int] = (2000, 1000),
        score_threshold: float = 0.05,
        nms: float = 0.5,
        detections: int = 100,
        overlaps: Sequence[float] = (0.5, 0.6, 0.7),
        weights: Sequence[float] = (1.0, 0.5, 0.25),
        stds: Sequence[Four] = STDS,
        box_loss: str = "giou",
        box_weight: float = 10.0,
        shared_box: bool = False,
        mask_stages: int = 3,
        convention: Convention = "mmdetection",
    ) -> None:
        rules = CASCADE_RULES[convention]
        super().__init__(
            proposals(
                strides,
                rules,
                width=width,
                anchor_scale=anchor_scale,
                anchor_ratios=anchor_ratios,
                convs=rpn_convs,
                batch=rpn_batch,
                pre_nms=pre_nms,
                post_nms=post_nms,
            ),
            rules.regions,
            regions=post_nms[1],
            roi_batch=roi_batch,
            score_threshold=score_threshold,
            nms=nms,
            detections=detections,
        )
        self.stages = nn.ModuleList()
        for number, (overlap, weight, std) in enumerate(zip(overlaps, weights, stds, strict=True)):
            draws = masks and number < mask_stages
            stage = RegionStage(
                roi_align(strides[:-1], box_size, aligned=rules.roi_aligned),
                BoxHead(width, box_size, box_convs, box_hidden, box_linears, rules.start),
                BoxPredictor(box_hidden, classes, shared_box=shared_box),
                roi_align(strides[:-1], mask_size, aligned=rules.roi_aligned) if draws else None,
                MaskHead(width, mask_convs) if draws else None,
                MaskPredictor(width, classes) if draws else None,
                coder=box_coder([1 / value for value in std], clip_shrinking=rules.clip_shrinking),
                box_loss=BOX_LOSSES[box_loss],
                box_weight=box_weight,
                overlap=overlap,
                weight=weight,
            )
            self.stages.append(stage)
