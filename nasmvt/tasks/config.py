"""What a user may say about one task: its data, its head, its weight."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from nasmvt.config import Config
from nasmvt.data.config import DataConfig

Count = Annotated[int, Field(ge=1)]
Probability = Annotated[float, Field(ge=0.0, lt=1.0)]
Weight = Annotated[float, Field(ge=0.0)]
Strides = Annotated[tuple[Annotated[int, Field(ge=1)], ...], Field(min_length=1)]

HEAD_OF_KIND: dict[str, str] = {
    "classification": "linear",
    "detection": "mask_rcnn",
    "segmentation": "upernet",
}
"""The head that each kind of task has."""


class LinearConfig(Config):
    """Classification head: the mean over the last map, then a linear layer."""

    type: Literal["linear"] = "linear"
    """Which head this is."""

    dropout: Probability = 0.0
    """Probability of dropping a pooled channel while training."""

    label_smoothing: Probability = 0.1
    """Part of a hard label that is spread over all classes in the loss; soft labels (mixup) stay."""


class MaskRCNNConfig(Config):
    """Detection head: Mask R-CNN. The defaults suit small backbones; `experiments/vit_mvt.yaml` has the paper's."""

    type: Literal["mask_rcnn"] = "mask_rcnn"
    """Which head this is."""

    masks: bool | None = None
    """Whether to predict masks too; null does so if the data set has them."""

    width: Count = 96
    """Channels of the neck and of every convolution of the head."""

    strides: Strides = (4, 8, 16, 32)
    """Pixels per cell of the levels that are made from the one map of a plain backbone: its stride times or
    over powers of two. A hierarchical backbone has its own strides."""

    anchor_scale: Annotated[float, Field(gt=0)] = 8
    """Side of the square anchor in cells of its level."""

    anchor_ratios: Annotated[tuple[Annotated[float, Field(gt=0)], ...], Field(min_length=1)] = (0.5, 1.0, 2.0)
    """Height divided by width of the anchors."""

    rpn_convs: Count = 1
    """3x3 convolutions of the region proposal head."""

    box_convs: Annotated[int, Field(ge=0)] = 1
    """3x3 convolutions of the box branch, with BatchNorm."""

    box_hidden: Count = 256
    """Outputs of the box branch's linear layer."""

    mask_convs: Annotated[int, Field(ge=0)] = 2
    """3x3 convolutions of the mask branch."""

    box_size: Count = 7
    """Side of a region pooled for the box branch."""

    mask_size: Count = 14
    """Side of a region pooled for the mask branch; masks have twice that side."""

    rpn_batch: Count = 128
    """Anchors per image that enter the loss."""

    roi_batch: Count = 128
    """Regions per image that enter the loss."""

    pre_nms: tuple[Count, Count] = (1000, 500)
    """Proposals kept per level before suppression: while training, while predicting."""

    post_nms: tuple[Count, Count] = (500, 300)
    """Proposals kept per image after suppression: while training, while predicting."""

    score_threshold: Annotated[float, Field(ge=0.0, le=1.0)] = 0.05
    """Detections with a lower score are dropped."""

    nms: Annotated[float, Field(gt=0.0, le=1.0)] = 0.5
    """Overlap (IoU) above which the weaker of two detections of a class is dropped."""

    detections: Count = 100
    """Most detections kept per image; the metric reads 100."""

    anchor_rounding: bool = True
    """Whether anchors are rounded to whole pixels, as in torchvision; mmdetection does not round."""

    roi_aligned: bool = False
    """Whether pooled regions are shifted by half a cell to its centre and may be smaller than a cell, as in
    mmdetection 2; torchvision does neither."""

    clip_shrinking: bool = False
    """Whether the offsets that shrink a box are bounded (at 62.5 times) like those that enlarge it, as in
    mmdetection; torchvision bounds only the latter."""


class UPerNetConfig(Config):
    """Segmentation head: UPerNet with an auxiliary FCN head. The defaults suit small backbones;
    `experiments/vit_mvt.yaml` has the paper's."""

    type: Literal["upernet"] = "upernet"
    """Which head this is."""

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


HeadConfig = LinearConfig | MaskRCNNConfig | UPerNetConfig


class TaskConfig(Config):
    """One task: its kind, data and head, and what it counts."""

    kind: Literal["classification", "detection", "segmentation"]
    """`classification`, `detection` or `segmentation`."""

    data: DataConfig = DataConfig()
    """Where the images come from."""

    head: HeadConfig = Field(default=None, discriminator="type", validate_default=True)
    """The head; its `type` is `linear`, `mask_rcnn` or `upernet`, and by default the one of the kind."""

    batch_size: Count = 16
    """Images per training step; 2 or more for UPerNet with a pool scale of 1."""

    eval_batch_size: Count = 16
    """Images per step of an evaluation; has no influence on the metrics."""

    loss_weight: Weight = 1.0
    """Weight of the task's loss in the sum over the tasks."""

    score_weight: Weight = 1.0
    """Weight of the task's metric in the T-score."""

    @model_validator(mode="before")
    @classmethod
    def _head_of_kind(cls, values: Any) -> Any:
        if not isinstance(values, Mapping) or values.get("kind") not in HEAD_OF_KIND:
            return values
        head = values.get("head")
        head = {} if head is None else head
        if isinstance(head, Mapping):
            head = {"type": HEAD_OF_KIND[values["kind"]], **head}
        return {**values, "head": head}

    @model_validator(mode="after")
    def _check_head(self) -> Self:
        expected = HEAD_OF_KIND[self.kind]
        if self.head.type != expected:
            raise ValueError(
                f"a {self.kind} task has the head '{expected}', but 'head.type' is '{self.head.type}': "
                f"change it to '{expected}' or leave it out"
            )
        if isinstance(self.head, UPerNetConfig) and 1 in self.head.pool_scales and self.batch_size < 2:
            raise ValueError(
                "UPerNet with a pool scale of 1 trains on 2 or more images at a time, but 'batch_size' is "
                f"{self.batch_size}: raise it, or take 1 out of 'head.pool_scales'"
            )
        return self
