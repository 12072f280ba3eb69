"""Plain backbones, one file each, and the registry that finds them by name."""

from nasmvt.families.published import published, published_names
from nasmvt.families.registry import Family, family, register
from nasmvt.families.vit_mvt import ViTMVT

__all__ = ["Family", "ViTMVT", "family", "published", "published_names", "register"]
