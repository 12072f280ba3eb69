"""Plain necks and heads: linear, Mask R-CNN, UPerNet. A backbone gives them a tuple of maps."""

from nasmvt.heads.linear import LinearHead
from nasmvt.heads.mask_rcnn import MaskRCNNHead
from nasmvt.heads.necks import (
    FeaturePyramid,
    MultiScaleNeck,
    SameMaps,
    SimpleFeaturePyramid,
    detection_neck,
    segmentation_neck,
)
from nasmvt.heads.upernet import FCNHead, UPerNetHead

__all__ = [
    "FCNHead",
    "FeaturePyramid",
    "LinearHead",
    "MaskRCNNHead",
    "MultiScaleNeck",
    "SameMaps",
    "SimpleFeaturePyramid",
    "UPerNetHead",
    "detection_neck",
    "segmentation_neck",
]
