"""The linear classification head: its settings, and how it is built."""

from collections.abc import Sequence
from typing import Annotated

from pydantic import Field
from torch import nn

from nasmvt.data.types import DataInfo
from nasmvt.heads import LinearHead
from nasmvt.tasks.heads import HeadConfig, HeadParts, register_head

Probability = Annotated[float, Field(ge=0.0, lt=1.0)]


class LinearConfig(HeadConfig):
    """Classification head: the mean over the last map, then a linear layer or an MLP."""

    type: str = "linear"

    dropout: Probability = 0.0
    """Probability of dropping a pooled channel while training."""

    label_smoothing: Probability = 0.1
    """Fraction of a label that is spread over all classes in the loss, also for mixed images."""

    hidden: Annotated[int, Field(ge=1)] | None = None
    """Hidden width of an MLP with a norm in place of the linear layer (ScalableViT: 4096); null: none."""


@register_head("linear", kind="classification", config=LinearConfig)
def build(widths: Sequence[int], strides: Sequence[int], config: LinearConfig, info: DataInfo) -> HeadParts:
    """Build a linear layer, or an MLP, on the last map."""
    head = LinearHead(widths[-1], len(info.classes), config.dropout, config.label_smoothing, config.hidden)
    return HeadParts(neck=nn.Identity(), head=head)
