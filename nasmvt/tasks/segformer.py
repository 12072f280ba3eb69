"""SegFormer's head: settings, and how it is built."""

from collections.abc import Mapping, Sequence
from typing import Annotated, ClassVar

from pydantic import Field

from nasmvt.data.types import DataInfo
from nasmvt.heads import SegFormerHead, segmentation_neck
from nasmvt.heads.upernet import NORMS
from nasmvt.tasks.heads import HeadParts, register_head
from nasmvt.tasks.segmentation_heads import Count, SegmentationHeadConfig


class SegFormerConfig(SegmentationHeadConfig):
    """Segmentation head: SegFormer's, a linear layer per level and one fusion. The defaults suit small backbones;
    published networks have 256 channels."""

    choices: ClassVar[Mapping[str, str]] = {**SegmentationHeadConfig.choices, "head.channels": "channels"}

    type: str = "segformer"

    channels: Count = 96
    """Channels of every layer of the head."""

    unused: Annotated[int, Field(ge=0)] = 0
    """Channels of a second classifier that is never called. The released code holds one of 128, so its checkpoints and
    published counts of parameters do too; 0 builds none."""


@register_head("segformer", kind="segmentation", config=SegFormerConfig)
def build(widths: Sequence[int], strides: Sequence[int], config: SegFormerConfig, info: DataInfo) -> HeadParts:
    """Build a neck and SegFormer's head.

    The levels are made from one map, or from one per level of equal stride, or are maps of ascending strides.

    Raises:
        UserError: if the neck does not fit the maps.
    """
    neck = segmentation_neck(widths, strides, config.strides, config.neck_width)
    head = SegFormerHead(
        neck.widths,
        len(info.classes),
        config.channels,
        NORMS[config.norm][0],
        config.dropout,
        config.unused,
        config.loss(info),
    )
    return config.parts(neck, neck.widths, head, info)
