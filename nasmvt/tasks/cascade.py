"""Cascade Mask R-CNN: its settings, and how it is built."""

from collections.abc import Sequence
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from nasmvt.data.types import DataInfo
from nasmvt.heads.cascade import STDS, CascadeMaskRCNNHead, Convention
from nasmvt.tasks.heads import HeadParts, register_head
from nasmvt.tasks.region_heads import Positive, RegionHeadConfig

Overlap = Annotated[float, Field(gt=0.0, le=1.0)]
Weight = Annotated[float, Field(ge=0.0)]


class CascadeMaskRCNNConfig(RegionHeadConfig):
    """Detection head: Cascade Mask R-CNN. The defaults suit small backbones and are otherwise ViTAEv2's; docs/heads.md
    has MPViT's."""

    type: str = "cascade_mask_rcnn"

    convention: Convention = "mmdetection"
    """Whose rules hold where they differ: starting values, proposals and their loss, whether every stage draws regions
    anew, whether logits or probabilities of the stages are averaged, the gradient that stages send back."""

    overlaps: Annotated[tuple[Overlap, ...], Field(min_length=1)] = (0.5, 0.6, 0.7)
    """Overlap (IoU) from which a region is an object's, of each stage."""

    weights: tuple[Weight, ...] = (1.0, 0.5, 0.25)
    """Factors of the losses of each stage."""

    stds: tuple[tuple[Positive, Positive, Positive, Positive], ...] = STDS
    """Standard deviations of the offsets x, y, width, height of each stage: what the offsets are divided by."""

    box_loss: Literal["giou", "l1", "smooth_l1"] = "giou"
    """The loss of a box: of its overlap with the true one, or of its offsets."""

    box_weight: Weight = 10.0
    """Factor of the loss of boxes."""

    shared_box: bool = False
    """Whether the classes have one box in common."""

    mask_stages: Annotated[int, Field(ge=1)] = 3
    """Stages with a mask branch, from the first; their probabilities are averaged."""

    @model_validator(mode="after")
    def _same_length(self) -> Self:
        stages = len(self.overlaps)
        if len(self.weights) != stages or len(self.stds) != stages:
            raise ValueError(
                f"'overlaps', 'weights' and 'stds' of the stages must be equally many, but are {stages}, "
                f"{len(self.weights)} and {len(self.stds)}: give each stage one of each"
            )
        return self


@register_head("cascade_mask_rcnn", kind="detection", config=CascadeMaskRCNNConfig)
def build(widths: Sequence[int], strides: Sequence[int], config: CascadeMaskRCNNConfig, info: DataInfo) -> HeadParts:
    """Build a pyramid and Cascade Mask R-CNN.

    Raises:
        UserError: if the neck does not fit the maps.
    """
    neck = config.neck(widths, strides)
    settings = config.own("masks", "strides")
    head = CascadeMaskRCNNHead(neck.strides, len(info.classes), masks=config.draws_masks(info), **settings)
    return HeadParts(neck=neck, head=head)
