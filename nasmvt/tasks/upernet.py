"""UPerNet with an auxiliary FCN head: settings, and how it is built."""

from collections.abc import Mapping, Sequence
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from nasmvt.data.types import DataInfo
from nasmvt.heads import UPerNetHead, segmentation_neck
from nasmvt.tasks.heads import HeadParts, register_head
from nasmvt.tasks.segmentation_heads import Count, SegmentationHeadConfig, Weight

_LEAST_BATCH = 3
"""Minimum number of images per step for BatchNorm over one value per image: of two, only the sign would be left."""


class UPerNetConfig(SegmentationHeadConfig):
    """Segmentation head: UPerNet with an auxiliary FCN head. The defaults suit small backbones;
    `experiments/vit_mvt.yaml` has the paper's."""

    choices: ClassVar[Mapping[str, str]] = {**SegmentationHeadConfig.choices, "head.channels": "channels"}

    type: str = "upernet"

    channels: Count = 96
    """Channels of every convolution of UPerNet."""

    pool_scales: Annotated[tuple[Count, ...], Field(min_length=1)] = (1, 2, 3, 6)
    """Sides of the grids that the last map is averaged to."""

    norm: Literal["mixed", "batch", "group"] = "mixed"
    """Norm of the convolutions: `batch` is the paper's; `mixed` is the same except for the branch that is pooled to
    a single cell, where BatchNorm sees one value per image: it has GroupNorm; `group` is GroupNorm everywhere."""

    aux_weight: Weight = 0.4
    """Weight in the loss of auxiliary heads, which are used in training only; 0 builds none."""

    def check_batch(self, images: int) -> None:
        """Refuse BatchNorm over two values, which gives +1 and -1 whatever they are, and over one."""
        if self.norm == "batch" and 1 in self.pool_scales and images < _LEAST_BATCH:
            raise ValueError(
                f"UPerNet's BatchNorm in the branch pooled to a single cell learns nothing from fewer than "
                f"{_LEAST_BATCH} images at a time, but 'batch_size' is {images}: set 'head.norm' to mixed or group, "
                f"raise 'batch_size', or take 1 out of 'head.pool_scales'"
            )


@register_head("upernet", kind="segmentation", config=UPerNetConfig)
def build(widths: Sequence[int], strides: Sequence[int], config: UPerNetConfig, info: DataInfo) -> HeadParts:
    """Build a neck, UPerNet and, unless their weight is 0, auxiliary heads.

    The levels are made from one map, or from one per level of equal stride, or are maps of ascending strides.

    Raises:
        UserError: if the neck does not fit the maps.
    """
    neck = segmentation_neck(widths, strides, config.strides, config.neck_width)
    head = UPerNetHead(
        neck.widths,
        len(info.classes),
        config.channels,
        config.pool_scales,
        config.dropout,
        norm=config.norm,
        loss=config.loss(info),
    )
    return config.parts(neck, neck.widths, head, info)
