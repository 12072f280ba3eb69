"""What the heads that look at regions, Mask R-CNN and Cascade Mask R-CNN, have in common: settings and neck."""

from collections.abc import Mapping, Sequence
from typing import Annotated, ClassVar

from pydantic import Field

from nasmvt.data.types import DataInfo
from nasmvt.errors import UserError
from nasmvt.heads import FeaturePyramid, SimpleFeaturePyramid, detection_neck
from nasmvt.heads.layers import start_xavier
from nasmvt.tasks.heads import HeadConfig

Count = Annotated[int, Field(ge=1)]
Positive = Annotated[float, Field(gt=0.0)]
Strides = Annotated[tuple[Count, ...], Field(min_length=1)]


class RegionHeadConfig(HeadConfig):
    """Settings of every head that looks at regions. The defaults suit small backbones."""

    choices: ClassVar[Mapping[str, str]] = {
        "neck.width": "width",
        "head.width": "width",
        "head.box_hidden": "box_hidden",
    }

    convention: str
    """Whose rules hold."""

    masks: bool | None = None
    """Whether to predict masks too; null does so if the data set has them."""

    width: Count = 96
    """Channels of the neck and of every convolution of the head."""

    strides: Strides = (4, 8, 16, 32)
    """Pixels per cell of the levels that are made from the one map of a plain backbone: its stride times or
    over powers of two. A hierarchical backbone has its own strides."""

    anchor_scale: Positive = 8
    """Side of the square anchor in cells of its level."""

    anchor_ratios: Annotated[tuple[Positive, ...], Field(min_length=1)] = (0.5, 1.0, 2.0)
    """Height divided by width of the anchors."""

    rpn_convs: Count = 1
    """3x3 convolutions of the region proposal head."""

    box_convs: Annotated[int, Field(ge=0)] = 1
    """3x3 convolutions of the box branch, with BatchNorm."""

    box_linears: Count = 1
    """Linear layers of the box branch."""

    box_hidden: Count = 256
    """Outputs of each of the box branch's linear layers."""

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

    def check_data(self, info: DataInfo) -> None:
        """Refuse data without masks where masks are asked for."""
        if self.masks and not info.has_masks:
            raise UserError("masks are asked for, but not every object has one: add them, or set 'head.masks' to false")

    def neck(self, widths: Sequence[int], strides: Sequence[int]) -> SimpleFeaturePyramid | FeaturePyramid:
        """Build a pyramid; its levels are made from one map, or are those of ascending strides.

        Raises:
            UserError: if the neck does not fit the maps.
        """
        neck = detection_neck(widths, strides, self.width, self.strides)
        if self.convention == "mmdetection" and isinstance(neck, FeaturePyramid):
            neck.apply(start_xavier)
        return neck

    def draws_masks(self, info: DataInfo) -> bool:
        """Return whether there is a mask branch."""
        return info.has_masks if self.masks is None else self.masks
