"""RetinaNet: its settings, and how it is built."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Annotated, ClassVar, Self

from pydantic import Field, model_validator

from nasmvt.data.types import DataInfo
from nasmvt.heads.layers import start_xavier
from nasmvt.heads.necks import ConvLevels, FeaturePyramid, detection_neck
from nasmvt.heads.retinanet import Convention, RetinaNetHead
from nasmvt.tasks.heads import HeadConfig, HeadParts, register_head

Count = Annotated[int, Field(ge=1)]
Strides = Annotated[tuple[Count, ...], Field(min_length=1)]
Overlap = Annotated[float, Field(ge=0.0, le=1.0)]


class RetinaNetConfig(HeadConfig):
    """Detection head: RetinaNet, boxes only. The defaults suit small backbones; `width: 256`, `pre_nms: 1000` are the
    published ones."""

    choices: ClassVar[Mapping[str, str]] = {"neck.width": "width", "head.width": "width"}

    type: str = "retinanet"

    width: Count = 96
    """Channels of the neck and of every convolution of the head."""

    strides: Strides = (8, 16, 32)
    """Pixels per cell of the maps that are read from a hierarchical backbone, or made from the one map of a plain one:
    its stride times or over powers of two. Two levels by convolutions of stride 2 come above."""

    anchor_scale: Annotated[float, Field(gt=0)] = 4
    """Side of the smallest square anchor in cells of its level."""

    anchor_octaves: Count = 3
    """Sizes of anchors per octave."""

    anchor_ratios: Annotated[tuple[Annotated[float, Field(gt=0)], ...], Field(min_length=1)] = (0.5, 1.0, 2.0)
    """Height divided by width of the anchors."""

    positive: Overlap = 0.5
    """Overlap (IoU) from which an anchor is an object's."""

    negative: Overlap = 0.4
    """Overlap (IoU) below which an anchor is background; in between it does not count."""

    alpha: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.25
    """Weight of the positives in the focal loss; the negatives' is 1 - alpha."""

    gamma: Annotated[float, Field(ge=0.0)] = 2.0
    """Exponent of the focal loss."""

    pre_nms: Count = 500
    """Candidates kept per level before suppression."""

    score_threshold: Overlap = 0.05
    """Detections with a lower score are dropped."""

    nms: Annotated[float, Field(gt=0.0, le=1.0)] = 0.5
    """Overlap (IoU) above which the weaker of two detections of a class is dropped."""

    detections: Count = 100
    """Most detections kept per image; the metric reads 100."""

    convention: Convention = "detectron2"
    """Whose rules hold where the two differ: order of the anchors, ReLU before the last level, starting values of the
    neck, bound of the offsets, low-quality matches, anchors in the padding, normaliser of the losses, choice of the
    candidates, clipping."""

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.negative > self.positive:
            raise ValueError(
                f"an anchor is background below 'negative', at most 'positive' ({self.positive:g}), but 'negative' is "
                f"{self.negative:g}: exchange them"
            )
        return self


@register_head("retinanet", kind="detection", config=RetinaNetConfig)
def build(widths: Sequence[int], strides: Sequence[int], config: RetinaNetConfig, info: DataInfo) -> HeadParts:
    """Build a pyramid and RetinaNet.

    Raises:
        UserError: if the neck does not fit the maps.
    """
    mmdetection = config.convention == "mmdetection"
    top = partial(ConvLevels, relu=not mmdetection)
    neck = detection_neck(widths, strides, config.width, config.strides, top, only=True)
    if mmdetection and isinstance(neck, FeaturePyramid):
        neck.apply(start_xavier)
    head = RetinaNetHead(neck.strides, len(info.classes), **config.own("strides"))
    return HeadParts(neck=neck, head=head)
