"""Semantic FPN: settings, and how it is built."""

from collections.abc import Mapping, Sequence
from typing import ClassVar

from torch import nn

from nasmvt.data.types import DataInfo
from nasmvt.heads import FeaturePyramid, SemanticFPNHead, segmentation_neck
from nasmvt.heads.layers import start_xavier
from nasmvt.heads.upernet import NORMS
from nasmvt.tasks.heads import HeadParts, register_head
from nasmvt.tasks.segmentation_heads import Count, SegmentationHeadConfig


class SemanticFPNConfig(SegmentationHeadConfig):
    """Segmentation head: a feature pyramid, of which every level is brought to the finest and added. The defaults
    suit small backbones; published networks have a width of 256 and 128 channels."""

    choices: ClassVar[Mapping[str, str]] = {
        **SegmentationHeadConfig.choices,
        "neck.width": "width",
        "head.channels": "channels",
    }

    type: str = "semantic_fpn"

    width: Count = 96
    """Channels of every level of the pyramid."""

    channels: Count = 48
    """Channels of every convolution of the head."""


@register_head("semantic_fpn", kind="segmentation", config=SemanticFPNConfig)
def build(widths: Sequence[int], strides: Sequence[int], config: SemanticFPNConfig, info: DataInfo) -> HeadParts:
    """Build a feature pyramid and Semantic FPN's head.

    The levels are made from one map, or from one per level of equal stride, or are maps of ascending strides.

    Raises:
        UserError: if the neck does not fit the maps.
    """
    maps = segmentation_neck(widths, strides, config.strides, config.neck_width)
    pyramid = FeaturePyramid(maps.widths, maps.strides, config.width, top=None)
    pyramid.apply(start_xavier)
    head = SemanticFPNHead(
        pyramid.widths,
        pyramid.strides,
        len(info.classes),
        config.channels,
        NORMS[config.norm][0],
        config.dropout,
        config.loss(info),
    )
    return config.parts(nn.Sequential(maps, pyramid), pyramid.widths, head, info)
