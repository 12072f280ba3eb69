"""Plain backbones, one file each, and the registry that finds them by name."""

from nasmvt.families.lvt import LVT
from nasmvt.families.mpvit import MPViT
from nasmvt.families.published import published, published_names
from nasmvt.families.registry import Family, family, register
from nasmvt.families.scalable_vit import ScalableViT
from nasmvt.families.vit_mvt import ViTMVT
from nasmvt.families.vitae_v2 import ViTAEv2

__all__ = [
    "LVT",
    "Family",
    "MPViT",
    "ScalableViT",
    "ViTAEv2",
    "ViTMVT",
    "family",
    "published",
    "published_names",
    "register",
]
