"""What the heads of semantic segmentation have in common: the settings of their losses and of auxiliary heads."""

from collections.abc import Mapping, Sequence
from typing import Annotated, ClassVar, Literal

from pydantic import Field
from torch import nn

from nasmvt.data.types import IGNORE, DataInfo
from nasmvt.errors import UserError, listed, nearest
from nasmvt.heads import FCNHead, FCNHeads
from nasmvt.heads.layers import start_normal
from nasmvt.heads.segmentation import PixelLoss
from nasmvt.tasks.heads import HeadConfig, HeadParts

Count = Annotated[int, Field(ge=1)]
Probability = Annotated[float, Field(ge=0.0, lt=1.0)]
Strides = Annotated[tuple[Count, ...], Field(min_length=1)]
Weight = Annotated[float, Field(ge=0.0)]


class SegmentationHeadConfig(HeadConfig):
    """Settings that every head of semantic segmentation has."""

    choices: ClassVar[Mapping[str, str]] = {"neck.width": "neck_width", "head.aux_channels": "aux_channels"}

    strides: Strides = (4, 8, 16, 32)
    """Pixels per cell of the levels that are made from the maps of a plain backbone: their stride times or
    over powers of two. A hierarchical backbone has its own strides."""

    neck_width: Count | None = None
    """Channels of these levels; null: as many as the backbone's maps have."""

    dropout: Probability = 0.1
    """Probability of dropping a channel before the classifiers while training."""

    norm: Literal["mixed", "batch", "group"] = "batch"
    """Norm of the convolutions: BatchNorm or GroupNorm."""

    loss_over: Literal["counted", "all"] = "counted"
    """What the sum of the pixels' losses is divided by: the number of the pixels that count (weighted by
    `class_weights`), or that of all pixels, ignored ones too, as in mmsegmentation 0.x and the papers that use it."""

    class_weights: Mapping[str, Weight] | None = None
    """Weights of classes in the loss, by name; those not named have 1."""

    classifier_std: Annotated[float, Field(gt=0.0)] | None = None
    """Standard deviation of the weights that classifiers start with; published UPerNets and Semantic FPNs: 0.01, which
    suits long trainings. Null: PyTorch's usual start."""

    aux_weight: Weight = 0.0
    """Weight in the loss of auxiliary heads, which are used in training only; 0 builds none."""

    aux_levels: Annotated[tuple[int, ...], Field(min_length=1)] = (-1,)
    """The maps that have an auxiliary head, by their place: 0 is the finest, -1 the last."""

    aux_channels: Count = 48
    """Channels of an auxiliary head."""

    def check_data(self, info: DataInfo) -> None:
        """Refuse weights of classes that the data have not."""
        for name in self.class_weights or ():
            if name not in info.classes:
                raise UserError(
                    f"'head.class_weights' weights classes of the data, but there is no {name!r}"
                    f"{nearest(name, info.classes)} (classes: {listed(info.classes)})"
                )

    def loss(self, info: DataInfo, name: str = "loss_seg", weight: float = 1.0) -> PixelLoss:
        """Make the loss of a head."""
        given = self.class_weights
        weights = None if given is None else [given.get(label, 1.0) for label in info.classes]
        return PixelLoss(name, weight, self.loss_over, weights, IGNORE)

    def parts(self, neck: nn.Module, widths: Sequence[int], head: nn.Module, info: DataInfo) -> HeadParts:
        """Put neck and head together with the auxiliary heads that are asked for.

        Args:
            neck: the neck.
            widths: channels of the maps that it gives.
            head: the head.
            info: whose classes it tells apart.

        Raises:
            UserError: if one of them reads a map that the neck does not give.
        """
        self._start(head)
        if not self.aux_weight:
            return HeadParts(neck=neck, head=head)
        count = len(widths)
        for level in self.aux_levels:
            if not -count <= level < count:
                raise UserError(
                    f"'head.aux_levels' names maps of the neck, which gives {count} (0 to {count - 1}), but names "
                    f"{level}: correct it"
                )
        single = len(self.aux_levels) == 1
        heads = [
            FCNHead(
                widths,
                len(info.classes),
                self.aux_channels,
                level,
                self.dropout,
                norm=self.norm,
                loss=self.loss(info, "loss_aux" if single else f"loss_aux_{place}", self.aux_weight),
            )
            for place, level in enumerate(self.aux_levels)
        ]
        for auxiliary in heads:
            self._start(auxiliary)
        return HeadParts(neck=neck, head=head, auxiliary=heads[0] if single else FCNHeads(heads))

    def _start(self, head: nn.Module) -> None:
        """Draw the weights of a head's classifier."""
        classifier = head.get_submodule("classifier")
        if self.classifier_std is not None and isinstance(classifier, nn.Conv2d):
            start_normal(classifier, self.classifier_std)
