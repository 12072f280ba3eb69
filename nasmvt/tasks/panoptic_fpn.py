"""Panoptic FPN: settings, and how it is built."""

from collections.abc import Mapping, Sequence
from typing import Annotated, ClassVar

from pydantic import Field

from nasmvt.data.types import DataInfo
from nasmvt.errors import UserError
from nasmvt.heads import MaskRCNNHead
from nasmvt.heads.fusion import Fusion
from nasmvt.heads.layers import start_normal
from nasmvt.heads.mask_rcnn import Convention
from nasmvt.heads.panoptic_fpn import PanopticFPNHead
from nasmvt.tasks.heads import HeadParts, register_head
from nasmvt.tasks.region_heads import Count, RegionHeadConfig

Share = Annotated[float, Field(ge=0.0, le=1.0)]


class PanopticFPNConfig(RegionHeadConfig):
    """Panoptic head: Mask R-CNN and a semantic branch. The defaults suit small backbones; docs/heads.md has the
    published settings."""

    choices: ClassVar[Mapping[str, str]] = {**RegionHeadConfig.choices, "head.semantic_channels": "semantic_channels"}

    type: str = "panoptic_fpn"

    convention: Convention = "mmdetection"
    """Whose rules the detector follows (see `mask_rcnn`)."""

    semantic_channels: Count = 48
    """Channels of the semantic branch."""

    semantic_groups: Count = 12
    """Groups of its GroupNorm, which divide the channels."""

    semantic_weight: Annotated[float, Field(ge=0.0)] = 0.5
    """Weight of its loss."""

    semantic_std: Annotated[float, Field(gt=0.0)] | None = None
    """Standard deviation of the weights that its classifier starts with, 0.01 as published; null: PyTorch's usual
    start."""

    score_threshold: Share = 0.6
    """Detections with a lower score are dropped."""

    overlap: Share = 0.5
    """An object of which more than this part is covered by better ones is dropped."""

    least_stuff: Annotated[int, Field(ge=0)] = 4096
    """Least number of pixels of a class of stuff in an image; what is smaller is left void."""

    def check_data(self, info: DataInfo) -> None:
        """Refuse groups that don't divide the channels."""
        if self.semantic_channels % self.semantic_groups:
            raise UserError(
                f"'head.semantic_groups' must divide 'head.semantic_channels', but {self.semantic_groups} does not "
                f"divide {self.semantic_channels}: change one of them"
            )
        if self.masks is False:
            raise UserError("a panoptic head needs masks of the things, but 'head.masks' is false: leave it out")


@register_head("panoptic_fpn", kind="panoptic", config=PanopticFPNConfig)
def build(widths: Sequence[int], strides: Sequence[int], config: PanopticFPNConfig, info: DataInfo) -> HeadParts:
    """Build a pyramid, Mask R-CNN for the things, and the semantic branch.

    Raises:
        UserError: if the neck does not fit the maps.
    """
    if len(set(strides)) == 1:  # a plain backbone may give several maps of one stride: the pyramid reads the last
        widths, strides = widths[-1:], strides[-1:]
    neck = config.neck(widths, strides)
    semantic = ("semantic_channels", "semantic_groups", "semantic_weight", "semantic_std")
    settings = config.own("masks", "strides", "overlap", "least_stuff", *semantic)
    detector = MaskRCNNHead(neck.strides, info.things, across_classes=True, **settings)
    levels = len(neck.strides) - 1  # the last one serves region proposals only
    head = PanopticFPNHead(
        detector,
        neck.widths[:levels],
        neck.strides[:levels],
        info.things,
        len(info.classes) - info.things,
        config.semantic_channels,
        config.semantic_groups,
        config.semantic_weight,
        Fusion(overlap=config.overlap, least_stuff=config.least_stuff),
    )
    if config.semantic_std is not None:
        start_normal(head.classifier, config.semantic_std)
    return HeadParts(neck=neck, head=head)
