"""Plain backbones, one file each, and the registry that finds them by name."""

from nasmvt.families.convnext import ConvNeXt as ConvNeXt
from nasmvt.families.efficientnet import EfficientNet as EfficientNet
from nasmvt.families.lvt import LVT as LVT
from nasmvt.families.mpvit import MPViT as MPViT
from nasmvt.families.published import published as published
from nasmvt.families.published import published_names as published_names
from nasmvt.families.registry import Family as Family
from nasmvt.families.registry import family as family
from nasmvt.families.registry import register as register
from nasmvt.families.scalable_vit import ScalableViT as ScalableViT
from nasmvt.families.timm_resized import TimmNetwork as TimmNetwork
from nasmvt.families.vit import ViT as ViT
from nasmvt.families.vit_mvt import ViTMVT as ViTMVT
from nasmvt.families.vit_published import DistilledLinear as DistilledLinear
from nasmvt.families.vitae_v2 import ViTAEv2 as ViTAEv2
