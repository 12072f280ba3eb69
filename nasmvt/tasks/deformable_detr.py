"""Deformable DETR: its settings, and how it is built."""

from collections.abc import Mapping, Sequence
from typing import Annotated, ClassVar, Self

from pydantic import Field, model_validator

from nasmvt.data.types import DataInfo
from nasmvt.heads.deformable_detr import DeformableDETRHead
from nasmvt.heads.necks import ProjectedLevels
from nasmvt.tasks.heads import HeadConfig, HeadParts, register_head

Count = Annotated[int, Field(ge=1)]


class DeformableDETRConfig(HeadConfig):
    """Detection head: Deformable DETR, boxes only. The defaults suit small backbones; docs/heads.md has the published
    sizes."""

    choices: ClassVar[Mapping[str, str]] = {"head.hidden": "hidden"}

    type: str = "deformable_detr"

    width: Count = 128
    """Channels of every level and query; a multiple of 4, of `heads` and of `groups`."""

    strides: Annotated[tuple[Count, ...], Field(min_length=1)] = (8, 16, 32)
    """Pixels per cell of the maps that are read from a hierarchical backbone, or made from the one map of a plain one:
    its stride times or over powers of two."""

    levels_above: Annotated[int, Field(ge=0)] = 1
    """Levels made from the last map by convolutions of stride 2."""

    groups: Count = 32
    """Groups of channels of the levels' norms, of two channels or more each."""

    heads: Count = 4
    """Attention heads."""

    points: Count = 4
    """Points that a head reads on each level."""

    encoder_layers: Count = 3
    """Layers of the encoder."""

    decoder_layers: Count = 3
    """Layers of the decoder; each is trained to say the objects."""

    hidden: Count = 256
    """Channels inside the feed-forward parts."""

    queries: Count = 100
    """Most objects that can be said of an image."""

    dropout: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.1
    """Probability of dropping a value while training."""

    refinement: bool = False
    """Whether each layer of the decoder corrects the boxes of the one before."""

    two_stage: bool = False
    """Whether the queries come from the best cells of the encoder; needs `refinement`."""

    detections: Count = 100
    """Detections per image; the metric reads 100."""

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.width % 4 or self.width % self.heads or self.width % (2 * self.groups):
            raise ValueError(
                f"'width' must be a multiple of 4, of 'heads' ({self.heads}) and of twice 'groups' ({self.groups}), "
                f"but is {self.width}: change one of them"
            )
        if self.two_stage and not self.refinement:
            raise ValueError("'two_stage' needs boxes that are refined: set 'refinement' to true, too")
        return self


@register_head("deformable_detr", kind="detection", config=DeformableDETRConfig)
def build(widths: Sequence[int], strides: Sequence[int], config: DeformableDETRConfig, info: DataInfo) -> HeadParts:
    """Build levels and Deformable DETR.

    Raises:
        UserError: if the levels do not fit the maps.
    """
    neck = ProjectedLevels(widths, strides, config.width, config.strides, config.levels_above, config.groups)
    settings = config.own("strides", "levels_above", "groups")
    head = DeformableDETRHead(neck.strides[0], len(info.classes), levels=len(neck.strides), **settings)
    return HeadParts(neck=neck, head=head)
