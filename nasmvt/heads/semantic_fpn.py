"""The head of Semantic FPN: every level brought to the finest by convolutions and doublings, then their sum.

Source: Panoptic Feature Pyramid Networks (arXiv:1901.02446), section 3.1, settings of mmsegmentation 0.x.

Shapes: B batch, C channels, H height, W width, K classes.
"""

from collections.abc import Sequence
from typing import ClassVar

from torch import Tensor, nn

from nasmvt.heads.layers import Norm, conv_norm_relu
from nasmvt.heads.segmentation import PixelLoss, SegmentationHead, classifier, resize


class SemanticFPNHead(SegmentationHead):
    """One branch per level, summed, then the classifier.

    Args:
        widths: channels of each map, finest first.
        strides: pixels per cell of each map, the first one's times powers of two.
        classes: number K of classes.
        channels: channels of every convolution inside.
        norm: makes the norm of the convolutions.
        dropout: probability of dropping a channel before the classifier while training.
        loss: what it learns by.
    """

    heavy: ClassVar[tuple[str, ...]] = ("branches.*",)
    """Patterns of the modules whose activations may be recomputed."""

    def __init__(
        self,
        widths: Sequence[int],
        strides: Sequence[int],
        classes: int,
        channels: int = 128,
        norm: Norm = nn.BatchNorm2d,
        dropout: float = 0.1,
        loss: PixelLoss | None = None,
    ) -> None:
        super().__init__(loss)
        self.branches = branches(widths, strides, channels, norm)
        self.dropout = nn.Dropout2d(dropout)
        self.classifier = classifier(channels, classes)

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Turn one map (B, C_i, H_i, W_i) per width into logits (B, K, H, W) of the first map's size."""
        levels = [branch(map_BCHW) for branch, map_BCHW in zip(self.branches, maps, strict=True)]
        summed = levels[0]
        for level in levels[1:]:
            summed = summed + resize(level, summed.shape[2:])
        logits_BKHW: Tensor = self.classifier(self.dropout(summed))
        return logits_BKHW


def branches(widths: Sequence[int], strides: Sequence[int], channels: int, norm: Norm) -> nn.ModuleList:
    """Make a branch per level: 3x3 convolutions, each but the finest level's followed by a bilinear doubling."""
    built = nn.ModuleList()
    for width, stride in zip(widths, strides, strict=True):
        doublings = (stride // strides[0]).bit_length() - 1
        layers: list[nn.Module] = []
        for step in range(max(doublings, 1)):
            layers.append(conv_norm_relu(width if step == 0 else channels, channels, 3, norm))
            if doublings:
                layers.append(nn.Upsample(scale_factor=2, mode="bilinear", align_corners=False))
        built.append(nn.Sequential(*layers))
    return built
