"""UPerNet and the auxiliary FCN head.

Source: Unified Perceptual Parsing (arXiv:1807.10221), settings of mmsegmentation 0.x.

Shapes: B batch, C channels, H height, W width, K classes.
"""

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn

from nasmvt.heads.layers import Norm, conv_norm_relu, grid_means, group_norm
from nasmvt.heads.segmentation import PixelLoss, SegmentationHead, classifier, resize

NORMS: dict[str, tuple[Norm, Norm]] = {
    "batch": (nn.BatchNorm2d, nn.BatchNorm2d),
    "group": (group_norm, group_norm),
    "mixed": (nn.BatchNorm2d, group_norm),
}
"""The norm of the convolutions, and that of the branch that is pooled to a single cell, by name."""


class UPerNetHead(SegmentationHead):
    """Pyramid pooling on the last map, a top-down pyramid, fusion of all levels at the largest, classifier.

    Args:
        widths: channels of each map, finest first.
        classes: number K of classes.
        channels: channels of every convolution inside.
        pool_scales: sides of the grids that the last map is averaged to.
        dropout: probability of dropping a channel before the classifier while training.
        norm: "batch", "group", or "mixed": BatchNorm except for the branch that is pooled to a single cell, which
            has GroupNorm: BatchNorm sees one value per image and channel there, and turns those of two images into
            +1 and -1 whatever they are.
        loss: what it learns by.
    """

    heavy: ClassVar[tuple[str, ...]] = ("bottleneck", "fpn_convs.*", "fusion")
    """Patterns of the modules whose activations may be recomputed."""

    def __init__(
        self,
        widths: Sequence[int],
        classes: int,
        channels: int = 576,
        pool_scales: Sequence[int] = (1, 2, 3, 6),
        dropout: float = 0.1,
        norm: str = "batch",
        loss: PixelLoss | None = None,
    ) -> None:
        super().__init__(loss)
        usual, single = NORMS[norm]
        self.pool_scales = tuple(pool_scales)
        self.pools = nn.ModuleList(
            conv_norm_relu(widths[-1], channels, 1, single if scale == 1 else usual) for scale in self.pool_scales
        )
        self.bottleneck = conv_norm_relu(widths[-1] + len(self.pool_scales) * channels, channels, 3, usual)
        self.laterals = nn.ModuleList(conv_norm_relu(width, channels, 1, usual) for width in widths[:-1])
        self.fpn_convs = nn.ModuleList(conv_norm_relu(channels, channels, 3, usual) for _ in widths[:-1])
        self.fusion = conv_norm_relu(len(widths) * channels, channels, 3, usual)
        self.dropout = nn.Dropout2d(dropout)
        self.classifier = classifier(channels, classes)

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Turn one map (B, C_i, H_i, W_i) per width into logits (B, K, H, W) of the first map's size."""
        levels = [lateral(map_BCHW) for lateral, map_BCHW in zip(self.laterals, maps[:-1], strict=True)]
        levels.append(self._pool(maps[-1]))
        for i in range(len(levels) - 1, 0, -1):
            levels[i - 1] = levels[i - 1] + resize(levels[i], levels[i - 1].shape[2:])
        smoothed = [conv(level) for conv, level in zip(self.fpn_convs, levels[:-1], strict=True)]
        smoothed.append(levels[-1])
        size = smoothed[0].shape[2:]
        fused = self.fusion(torch.cat([resize(level, size) for level in smoothed], dim=1))
        logits_BKHW: Tensor = self.classifier(self.dropout(fused))
        return logits_BKHW

    def _pool(self, map_BCHW: Tensor) -> Tensor:
        pooled = [map_BCHW]
        for scale, conv in zip(self.pool_scales, self.pools, strict=True):
            pooled.append(resize(conv(grid_means(map_BCHW, scale)), map_BCHW.shape[2:]))
        result: Tensor = self.bottleneck(torch.cat(pooled, dim=1))
        return result


class FCNHead(SegmentationHead):
    """Auxiliary head, used in the loss only: one 3x3 convolution on one map, then the classifier.

    Args:
        widths: channels of each map.
        classes: number K of classes.
        channels: channels of the convolution.
        level: place of the map among all, negative from the last on.
        dropout: probability of dropping a channel before the classifier while training.
        norm: "batch" or "mixed" for BatchNorm, "group" for GroupNorm.
        loss: what it learns by; by default `loss_aux`.
    """

    def __init__(
        self,
        widths: Sequence[int],
        classes: int,
        channels: int = 256,
        level: int = -1,
        dropout: float = 0.1,
        norm: str = "batch",
        loss: PixelLoss | None = None,
    ) -> None:
        super().__init__(loss or PixelLoss("loss_aux"))
        self.level = level
        self.conv = conv_norm_relu(widths[level], channels, 3, NORMS[norm][0])
        self.dropout = nn.Dropout2d(dropout)
        self.classifier = classifier(channels, classes)

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Turn maps, of which that of the level is (B, C, H, W), into logits (B, K, H, W)."""
        logits_BKHW: Tensor = self.classifier(self.dropout(self.conv(maps[self.level])))
        return logits_BKHW


class FCNHeads(nn.Module):
    """Several auxiliary heads, each on a map of its own.

    Args:
        heads: the heads; their losses have different names.
    """

    def __init__(self, heads: Sequence[FCNHead]) -> None:
        super().__init__()
        self.heads = nn.ModuleList(heads)

    def losses(self, maps: Sequence[Tensor], targets: Tensor, sizes: Sequence[tuple[int, int]]) -> dict[str, Tensor]:
        """Return the losses of all of them."""
        losses: dict[str, Tensor] = {}
        for head in self.heads:
            losses.update(head.losses(maps, targets, sizes))  # type: ignore[operator]
        return losses
