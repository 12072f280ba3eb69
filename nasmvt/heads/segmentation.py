"""The base of semantic segmentation heads: losses, logits, and how they are resized.

Bilinear resizes use align_corners=False. Shapes: B batch, C channels, H height, W width, K classes, h, w of the finest
map.
"""

from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nasmvt.heads.layers import in_float32

Over = Literal["counted", "all"]
"""The pixels whose number divides a sum of losses."""


class PixelLoss(nn.Module):
    """Cross-entropy over the pixels of label maps.

    Args:
        name: name of the loss.
        weight: factor of the loss.
        over: "counted" divides the sum by the number of the pixels that count, weighted by class; "all" by the number
            of all pixels, as mmsegmentation 0.x does.
        class_weights: factor of each class; None: 1.
        ignore: label of the pixels that do not count.
    """

    class_weights: Tensor | None

    def __init__(
        self,
        name: str = "loss_seg",
        weight: float = 1.0,
        over: Over = "counted",
        class_weights: Sequence[float] | None = None,
        ignore: int = 255,
    ) -> None:
        super().__init__()
        self.name, self.weight, self.over, self.ignore = name, weight, over, ignore
        weights = None if class_weights is None else torch.tensor(class_weights, dtype=torch.float32)
        self.register_buffer("class_weights", weights, persistent=False)

    def forward(self, logits_BKhw: Tensor, targets_BHW: Tensor) -> dict[str, Tensor]:
        """Return the loss by its name, the logits being resized to the label maps; 0 if no pixel counts."""
        logits, targets = resize(logits_BKhw, targets_BHW.shape[1:]), targets_BHW.long()
        weights = None if self.class_weights is None else self.class_weights.to(logits)
        total = F.cross_entropy(logits, targets, weights, ignore_index=self.ignore, reduction="sum")
        return {self.name: self.weight * total / self._divisor(targets, weights)}

    def _divisor(self, targets_BHW: Tensor, weights: Tensor | None) -> Tensor | int:
        if self.over == "all":
            return targets_BHW.numel()
        counted = targets_BHW != self.ignore
        if weights is None:
            return counted.sum().clamp(min=1)
        total = (weights[targets_BHW * counted] * counted).sum()
        return torch.where(total > 0, total, 1.0)


class SegmentationHead(nn.Module):
    """A head whose `forward` turns maps into logits (B, K, h, w).

    Args:
        loss: the training loss.
    """

    def __init__(self, loss: PixelLoss | None = None) -> None:
        super().__init__()
        self.loss = loss or PixelLoss()

    def losses(self, maps: Sequence[Tensor], targets: Tensor, sizes: Sequence[tuple[int, int]]) -> dict[str, Tensor]:
        """Return the losses of maps, see `criterion`."""
        return self.criterion(self.segment(maps, sizes), targets)

    def criterion(self, logits_BKhw: Tensor, targets: Tensor) -> dict[str, Tensor]:
        """Return the cross-entropy over the counted pixels of label maps (B, H, W); 0 if there are none."""
        losses: dict[str, Tensor] = self.loss(logits_BKhw, targets)
        return losses

    def segment(self, maps: Sequence[Tensor], sizes: Sequence[tuple[int, int]]) -> Tensor:
        """Return logits (B, K, h, w) at the stride of the finest map."""
        return in_float32(self(maps))

    def workload(self, maps: Sequence[Tensor]) -> None:
        """Compute the logits."""
        self(maps)


def classifier(channels: int, classes: int) -> nn.Conv2d:
    """A 1x1 convolution to logits, initialised by PyTorch's default.

    mmsegmentation's (normal, standard deviation 0.01) suits long schedules: after 140 steps on the built-in data set,
    segmentation alone, seed 0, the largest network's mIoU is 25.8 with it and 37.6 with the default.
    """
    return nn.Conv2d(channels, classes, 1)


def resize(map_BCHW: Tensor, size: Sequence[int]) -> Tensor:
    """Resize maps (B, C, H, W) bilinearly to a height and width."""
    return F.interpolate(map_BCHW, size=list(size), mode="bilinear", align_corners=False)
