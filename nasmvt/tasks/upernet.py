"""UPerNet with an auxiliary FCN head: settings, and how it is built."""

from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import Field

from nasmvt.data.types import IGNORE, DataInfo
from nasmvt.heads import FCNHead, UPerNetHead, segmentation_neck
from nasmvt.tasks.heads import HeadConfig, HeadParts, register_head

Count = Annotated[int, Field(ge=1)]
Probability = Annotated[float, Field(ge=0.0, lt=1.0)]
Strides = Annotated[tuple[Count, ...], Field(min_length=1)]
Weight = Annotated[float, Field(ge=0.0)]

_LEAST_BATCH = 3
"""Images per step from which BatchNorm over one value per image says more than which of them is the larger."""


class UPerNetConfig(HeadConfig):
    """Segmentation head: UPerNet with an auxiliary FCN head. The defaults suit small backbones;
    `experiments/vit_mvt.yaml` has the paper's."""

    type: str = "upernet"

    channels: Count = 96
    """Channels of every convolution of UPerNet."""

    strides: Strides = (4, 8, 16, 32)
    """Pixels per cell of the levels that are made from the maps of a plain backbone: their stride times or
    over powers of two. A hierarchical backbone has its own strides."""

    pool_scales: Annotated[tuple[Count, ...], Field(min_length=1)] = (1, 2, 3, 6)
    """Sides of the grids that the last map is averaged to."""

    dropout: Probability = 0.1
    """Probability of dropping a channel before the classifiers while training."""

    aux_weight: Weight = 0.4
    """Weight of the auxiliary head in the loss; 0 builds no auxiliary head."""

    aux_channels: Count = 48
    """Channels of the auxiliary head."""

    norm: Literal["mixed", "batch", "group"] = "mixed"
    """Norm of the convolutions: `batch` is the paper's; `mixed` is the same but in the branch that is pooled to a
    single cell, where BatchNorm sees one value per image, and has GroupNorm there; `group` is GroupNorm everywhere."""

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
    """Build a neck, UPerNet and, unless its weight is 0, an auxiliary head.

    The levels are made from one map, or from one per level of equal stride, or are maps of ascending strides.

    Raises:
        UserError: if the neck does not fit the maps.
    """
    neck = segmentation_neck(widths, strides, config.strides)
    classes, norm = len(info.classes), config.norm
    head = UPerNetHead(
        neck.widths, classes, config.channels, config.pool_scales, config.dropout, norm=norm, ignore=IGNORE
    )
    if not config.aux_weight:
        return HeadParts(neck=neck, head=head)
    auxiliary = FCNHead(
        neck.widths[-1],
        classes,
        config.aux_channels,
        config.dropout,
        norm=norm,
        weight=config.aux_weight,
        ignore=IGNORE,
    )
    return HeadParts(neck=neck, head=head, auxiliary=auxiliary)
