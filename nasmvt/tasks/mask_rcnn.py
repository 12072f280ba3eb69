"""Mask R-CNN: its settings, and how it is built."""

from collections.abc import Sequence
from typing import Annotated

from pydantic import Field

from nasmvt.data.types import DataInfo
from nasmvt.errors import UserError
from nasmvt.heads import MaskRCNNHead, detection_neck
from nasmvt.tasks.heads import HeadConfig, HeadParts, register_head

Count = Annotated[int, Field(ge=1)]
Strides = Annotated[tuple[Count, ...], Field(min_length=1)]


class MaskRCNNConfig(HeadConfig):
    """Detection head: Mask R-CNN. The defaults suit small backbones; `experiments/vit_mvt.yaml` has the paper's."""

    type: str = "mask_rcnn"

    masks: bool | None = None
    """Whether to predict masks too; null does so if the data set has them."""

    width: Count = 96
    """Channels of the neck and of every convolution of the head."""

    strides: Strides = (4, 8, 16, 32)
    """Pixels per cell of the levels that are made from the one map of a plain backbone: its stride times or
    over powers of two. A hierarchical backbone has its own strides."""

    anchor_scale: Annotated[float, Field(gt=0)] = 8
    """Side of the square anchor in cells of its level."""

    anchor_ratios: Annotated[tuple[Annotated[float, Field(gt=0)], ...], Field(min_length=1)] = (0.5, 1.0, 2.0)
    """Height divided by width of the anchors."""

    rpn_convs: Count = 1
    """3x3 convolutions of the region proposal head."""

    box_convs: Annotated[int, Field(ge=0)] = 1
    """3x3 convolutions of the box branch, with BatchNorm."""

    box_hidden: Count = 256
    """Outputs of the box branch's linear layer."""

    mask_convs: Annotated[int, Field(ge=0)] = 2
    """3x3 convolutions of the mask branch."""

    box_size: Count = 7
    """Side of a region pooled for the box branch."""

    mask_size: Count = 14
    """Side of a region pooled for the mask branch; masks have twice that side."""

    rpn_batch: Count = 128
    """Anchors per image that enter the loss."""

    roi_batch: Count = 128
    """Regions per image that enter the loss."""

    pre_nms: tuple[Count, Count] = (1000, 500)
    """Proposals kept per level before suppression: while training, while predicting."""

    post_nms: tuple[Count, Count] = (500, 300)
    """Proposals kept per image after suppression: while training, while predicting."""

    score_threshold: Annotated[float, Field(ge=0.0, le=1.0)] = 0.05
    """Detections with a lower score are dropped."""

    nms: Annotated[float, Field(gt=0.0, le=1.0)] = 0.5
    """Overlap (IoU) above which the weaker of two detections of a class is dropped."""

    detections: Count = 100
    """Most detections kept per image; the metric reads 100."""

    anchor_rounding: bool = True
    """Whether anchors are rounded to whole pixels, as in torchvision; mmdetection does not round."""

    roi_aligned: bool = False
    """Whether pooled regions are shifted by half a cell to its centre and may be smaller than a cell, as in
    mmdetection 2; torchvision does neither."""

    clip_shrinking: bool = False
    """Whether the offsets that shrink a box are bounded (at 62.5 times) like those that enlarge it, as in
    mmdetection; torchvision bounds only the latter."""

    def check_data(self, info: DataInfo) -> None:
        """Refuse data without masks where masks are asked for."""
        if self.masks and not info.has_masks:
            raise UserError("masks are asked for, but not every object has one: add them, or set 'head.masks' to false")


@register_head("mask_rcnn", kind="detection", config=MaskRCNNConfig)
def build(widths: Sequence[int], strides: Sequence[int], config: MaskRCNNConfig, info: DataInfo) -> HeadParts:
    """Build a pyramid and Mask R-CNN; the levels are made from one map, or are those of ascending strides.

    Raises:
        UserError: if the neck does not fit the maps.
    """
    neck = detection_neck(widths, strides, config.width, config.strides)
    masks = info.has_masks if config.masks is None else config.masks
    settings = config.model_dump(exclude={"type", "masks", "strides"})
    head = MaskRCNNHead(neck.strides, len(info.classes), masks=masks, **settings)
    return HeadParts(neck=neck, head=head)
