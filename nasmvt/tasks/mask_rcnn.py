"""Mask R-CNN: its settings, and how it is built."""

from collections.abc import Sequence

from nasmvt.data.types import DataInfo
from nasmvt.heads import MaskRCNNHead
from nasmvt.heads.mask_rcnn import Convention
from nasmvt.tasks.heads import HeadParts, register_head
from nasmvt.tasks.region_heads import RegionHeadConfig


class MaskRCNNConfig(RegionHeadConfig):
    """Detection head: Mask R-CNN. The defaults suit small backbones; `experiments/vit_mvt.yaml` has the paper's."""

    type: str = "mask_rcnn"

    convention: Convention = "torchvision"
    """Whose rules hold where they differ: starting values of the neck, proposals and their loss, low-quality matches,
    losses of boxes, targets of masks, and, unless they are set, the three that follow."""

    anchor_rounding: bool | None = None
    """Whether anchors are rounded to whole pixels, as in torchvision; detectron2 and mmdetection do not round. null: by
    the convention."""

    roi_aligned: bool | None = None
    """Whether pooled regions are shifted by half a cell to its centre and may be smaller than a cell, as in
    detectron2 and mmdetection 2; torchvision does neither. null: by the convention."""

    clip_shrinking: bool | None = None
    """Whether the offsets that shrink a box are bounded (at 62.5 times) like those that enlarge it, as in
    mmdetection; torchvision and detectron2 bound only the latter. null: by the convention."""


@register_head("mask_rcnn", kind="detection", config=MaskRCNNConfig)
def build(widths: Sequence[int], strides: Sequence[int], config: MaskRCNNConfig, info: DataInfo) -> HeadParts:
    """Build a pyramid and Mask R-CNN.

    Raises:
        UserError: if the neck does not fit the maps.
    """
    neck = config.neck(widths, strides)
    settings = config.own("masks", "strides")
    head = MaskRCNNHead(neck.strides, len(info.classes), masks=config.draws_masks(info), **settings)
    return HeadParts(neck=neck, head=head)
