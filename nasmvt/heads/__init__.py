"""Plain necks and heads, by task network: linear; Mask R-CNN, its cascade, RetinaNet, Deformable DETR; UPerNet,
Semantic FPN, SegFormer.

A backbone gives them a tuple of maps.
"""

from nasmvt.heads.cascade import CascadeMaskRCNNHead as CascadeMaskRCNNHead
from nasmvt.heads.deformable_detr import DeformableDETRHead as DeformableDETRHead
from nasmvt.heads.linear import LinearHead as LinearHead
from nasmvt.heads.map_norms import MapNorms as MapNorms
from nasmvt.heads.mask_rcnn import MaskRCNNHead as MaskRCNNHead
from nasmvt.heads.necks import FeaturePyramid as FeaturePyramid
from nasmvt.heads.necks import MultiScaleNeck as MultiScaleNeck
from nasmvt.heads.necks import SameMaps as SameMaps
from nasmvt.heads.necks import SimpleFeaturePyramid as SimpleFeaturePyramid
from nasmvt.heads.necks import detection_neck as detection_neck
from nasmvt.heads.necks import segmentation_neck as segmentation_neck
from nasmvt.heads.retinanet import RetinaNetHead as RetinaNetHead
from nasmvt.heads.segformer import SegFormerHead as SegFormerHead
from nasmvt.heads.semantic_fpn import SemanticFPNHead as SemanticFPNHead
from nasmvt.heads.upernet import FCNHead as FCNHead
from nasmvt.heads.upernet import FCNHeads as FCNHeads
from nasmvt.heads.upernet import UPerNetHead as UPerNetHead
