"""Mask R-CNN on a pyramid, by the rules of torchvision, detectron2 or mmdetection.

torchvision's own `MaskRCNN` also resizes and pads images; here they already are on a fixed canvas.

Sources: Mask R-CNN (arXiv:1703.06870); torchvision 0.29, detectron2 0.5 (MPViT), mmdetection 2.11 (ViTAEv2,
ScalableViT).

Shapes: C channels, K classes.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor, nn

from nasmvt.heads.anchors import StridedAnchors
from nasmvt.heads.boxes import box_coder
from nasmvt.heads.layers import uniform_by_fan_in
from nasmvt.heads.proposals import ProposalHead, ProposalRules, RegionProposals
from nasmvt.heads.region_stage import BOX_LOSSES, RegionStage
from nasmvt.heads.regions import RegionDetector, RegionRules
from nasmvt.heads.roi import BoxHead, BoxPredictor, MaskHead, MaskPredictor, roi_align

Convention = Literal["torchvision", "detectron2", "mmdetection"]

TINY = torch.finfo(torch.float32).tiny
"""What a box with an area is wider than."""


@dataclass(frozen=True, kw_only=True)
class Rules:
    """What a convention says of Mask R-CNN."""

    proposals: ProposalRules
    regions: RegionRules
    box_loss: str
    """A name of `BOX_LOSSES`."""
    start: Callable[[Tensor], object]
    """Draws the weights of the box branch's linear layers."""
    anchor_rounding: bool
    """Whether anchors are rounded to whole pixels."""
    roi_aligned: bool
    """Whether regions are read at the centres of cells."""
    clip_shrinking: bool
    """Whether the offsets that shrink a box are bounded like those that enlarge it."""


_D2_PROPOSALS = ProposalRules(
    beta=0, sampled=False, least_one=False, low_quality=0, moving=False, anchors="all", min_size=TINY
)
_MM_PROPOSALS = ProposalRules(
    beta=0, sampled=True, least_one=True, low_quality=0.3, moving=True, anchors="padded", min_size=0
)
_REGIONS = RegionRules(
    low_quality=None, binary_masks=True, min_size=0, draws_anew=True, mean_logits=True, shares_gradient=False
)

RULES: Mapping[Convention, Rules] = {
    "torchvision": Rules(
        proposals=replace(_D2_PROPOSALS, beta=1 / 9, sampled=True, min_size=1e-3),
        regions=replace(_REGIONS, binary_masks=False, min_size=1e-2),
        box_loss="smooth_l1",
        start=nn.init.xavier_uniform_,
        anchor_rounding=True,
        roi_aligned=False,
        clip_shrinking=False,
    ),
    "detectron2": Rules(
        proposals=_D2_PROPOSALS,
        regions=replace(_REGIONS, min_size=TINY),
        box_loss="l1",
        start=uniform_by_fan_in,
        anchor_rounding=False,
        roi_aligned=True,
        clip_shrinking=False,
    ),
    "mmdetection": Rules(
        proposals=_MM_PROPOSALS,
        regions=replace(_REGIONS, low_quality=0.5),
        box_loss="l1",
        start=nn.init.xavier_uniform_,
        anchor_rounding=False,
        roi_aligned=True,
        clip_shrinking=True,
    ),
}

CASCADE_RULES: Mapping[Convention, Rules] = {
    "detectron2": replace(
        RULES["detectron2"],
        regions=replace(RULES["detectron2"].regions, draws_anew=False, mean_logits=False, shares_gradient=True),
    ),
    "mmdetection": replace(
        RULES["mmdetection"],
        proposals=replace(_MM_PROPOSALS, beta=1 / 9, anchors="inside"),
        regions=_REGIONS,
    ),
}
"""What the conventions say of Cascade Mask R-CNN."""


class MaskRCNNHead(RegionDetector):
    """Region proposals, boxes and, if wanted, masks of a pyramid of maps.

    Args:
        strides: pixels of the image per cell of each level of the pyramid.
        classes: number K of classes, background not counted.
        masks: whether there is a mask branch.
        extra_level: whether the last level serves region proposals only.
        width: channels C of the pyramid and of every convolution here.
        anchor_scale: side of the square anchor in cells.
        anchor_ratios: height divided by width of the anchors.
        rpn_convs: 3x3 convolutions of the proposal head.
        box_convs: 3x3 convolutions of the box branch.
        box_linears: linear layers of the box branch.
        box_hidden: outputs of each of them.
        mask_convs: 3x3 convolutions of the mask branch.
        box_size: side of a region pooled for the box branch.
        mask_size: side of a region pooled for the mask branch; masks have twice that side.
        rpn_batch: anchors per image in the loss.
        roi_batch: regions per image in the loss.
        pre_nms: proposals kept per level before suppression, while training and while predicting.
        post_nms: proposals kept per image after it, while training and while predicting.
        score_threshold: detections with a lower score are dropped.
        nms: overlap (IoU) above which the weaker of two detections of a class is dropped.
        detections: most detections kept per image.
        across_classes: whether detections of other classes are dropped, too.
        convention: whose rules hold, see `Rules`.
        anchor_rounding: whether anchors are rounded to whole pixels; None: by the convention.
        roi_aligned: whether regions are read at the centres of cells; None: by the convention.
        clip_shrinking: whether the offsets that shrink a box are bounded like those that enlarge it; None: by the
            convention.
    """

    def __init__(
        self,
        strides: Sequence[int],
        classes: int,
        *,
        masks: bool = True,
        extra_level: bool = True,
        width: int = 256,
        anchor_scale: float = 8,
        anchor_ratios: Sequence[float] = (0.5, 1.0, 2.0),
        rpn_convs: int = 2,
        box_convs: int = 4,
        box_linears: int = 1,
        box_hidden: int = 1024,
        mask_convs: int = 4,
        box_size: int = 7,
        mask_size: int = 14,
        rpn_batch: int = 256,
        roi_batch: int = 512,
        pre_nms: tuple[int, int] = (2000, 1000),
        post_nms: tuple[int, int] = (1000, 1000),
        score_threshold: float = 0.05,
        nms: float = 0.5,
        detections: int = 100,
        across_classes: bool = False,
        convention: Convention = "torchvision",
        anchor_rounding: bool | None = None,
        roi_aligned: bool | None = None,
        clip_shrinking: bool | None = None,
    ) -> None:
        own: dict[str, Any] = {
            "anchor_rounding": anchor_rounding,
            "roi_aligned": roi_aligned,
            "clip_shrinking": clip_shrinking,
        }
        rules = replace(RULES[convention], **{name: value for name, value in own.items() if value is not None})
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
            across_classes=across_classes,
        )
        levels = strides[:-1] if extra_level else strides
        self.roi_heads = RegionStage(
            roi_align(levels, box_size, aligned=rules.roi_aligned),
            BoxHead(width, box_size, box_convs, box_hidden, box_linears, rules.start),
            BoxPredictor(box_hidden, classes),
            roi_align(levels, mask_size, aligned=rules.roi_aligned) if masks else None,
            MaskHead(width, mask_convs) if masks else None,
            MaskPredictor(width, classes) if masks else None,
            coder=box_coder((10, 10, 5, 5), clip_shrinking=rules.clip_shrinking),
            box_loss=BOX_LOSSES[rules.box_loss],
        )

    @property
    def stages(self) -> Sequence[RegionStage]:
        """The one stage."""
        return (self.roi_heads,)


def proposals(
    strides: Sequence[int],
    rules: Rules,
    *,
    width: int,
    anchor_scale: float,
    anchor_ratios: Sequence[float],
    convs: int,
    batch: int,
    pre_nms: tuple[int, int],
    post_nms: tuple[int, int],
) -> RegionProposals:
    """Build the region proposals of a pyramid; the arguments are those of `MaskRCNNHead`."""
    return RegionProposals(
        StridedAnchors(strides, anchor_scale, anchor_ratios, rounding=rules.anchor_rounding),
        ProposalHead(width, len(anchor_ratios), conv_depth=convs),
        rules.proposals,
        batch=batch,
        pre_nms=pre_nms,
        post_nms=post_nms,
        clip_shrinking=rules.clip_shrinking,
    )
