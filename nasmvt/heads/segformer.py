"""The head of SegFormer: a linear layer per level, resized to the finest and fused by one 1x1 convolution.

Source: SegFormer (arXiv:2105.15203), section 3.2, as LVT (CVPR 2022) uses it: dropout of whole channels, levels
concatenated from the coarsest to the finest.

Shapes: B batch, C channels, H height, W width, K classes.
"""

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn

from nasmvt.heads.layers import Norm, conv_norm_relu
from nasmvt.heads.segmentation import PixelLoss, SegmentationHead, resize


class SegFormerHead(SegmentationHead):
    """A linear layer per level, one fusion, then the classifier.

    Args:
        widths: channels of each map, finest first.
        classes: number K of classes.
        channels: channels of every layer inside.
        norm: makes the norm of the fusion.
        dropout: probability of dropping a channel before the classifier while training.
        unused: channels of a second classifier, which is never called; the released code holds one of 128, and so do
            its checkpoints and published counts of parameters. 0: none.
        loss: what it learns by.
    """

    heavy: ClassVar[tuple[str, ...]] = ("fusion",)
    """Patterns of the modules whose activations may be recomputed."""

    def __init__(
        self,
        widths: Sequence[int],
        classes: int,
        channels: int = 256,
        norm: Norm = nn.BatchNorm2d,
        dropout: float = 0.1,
        unused: int = 0,
        loss: PixelLoss | None = None,
    ) -> None:
        super().__init__(loss)
        self.linears = nn.ModuleList(nn.Linear(width, channels) for width in widths)
        self.fusion = conv_norm_relu(len(widths) * channels, channels, 1, norm)
        self.dropout = nn.Dropout2d(dropout)
        self.classifier = nn.Conv2d(channels, classes, 1)
        self.unused = nn.Conv2d(unused, classes, 1) if unused else None

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Turn one map (B, C_i, H_i, W_i) per width into logits (B, K, H, W) of the first map's size."""
        size = maps[0].shape[2:]
        levels = [
            resize(linear(map_BCHW.movedim(1, -1)).movedim(-1, 1), size)
            for linear, map_BCHW in zip(self.linears, maps, strict=True)
        ]
        fused = self.fusion(torch.cat(levels[::-1], dim=1))
        logits_BKHW: Tensor = self.classifier(self.dropout(fused))
        return logits_BKHW
