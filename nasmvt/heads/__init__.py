"""Plain necks and heads: linear, Mask R-CNN, UPerNet. A backbone gives them a tuple of maps."""

from nasmvt.heads.linear import LinearHead as LinearHead
from nasmvt.heads.mask_rcnn import MaskRCNNHead as MaskRCNNHead
from nasmvt.heads.necks import FeaturePyramid as FeaturePyramid
from nasmvt.heads.necks import MultiScaleNeck as MultiScaleNeck
from nasmvt.heads.necks import SameMaps as SameMaps
from nasmvt.heads.necks import SimpleFeaturePyramid as SimpleFeaturePyramid
from nasmvt.heads.necks import detection_neck as detection_neck
from nasmvt.heads.necks import segmentation_neck as segmentation_neck
from nasmvt.heads.upernet import FCNHead as FCNHead
from nasmvt.heads.upernet import UPerNetHead as UPerNetHead
