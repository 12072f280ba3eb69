"""What heads of semantic segmentation have in common: losses and logits.

Shapes: B batch, C channels, H height, W width, K classes, h, w of the finest map.
"""

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn


class SegmentationHead(nn.Module):
    """A head whose `forward` turns maps into logits (B, K, h, w).

    Args:
        loss_name: what its loss is called.
        loss_weight: factor of the loss.
        ignore: label of the pixels that do not count.
    """

    def __init__(self, *, loss_name: str = "loss_seg", loss_weight: float = 1.0, ignore: int = 255) -> None:
        super().__init__()
        self.loss_name = loss_name
        self.loss_weight = loss_weight
        self.ignore = ignore

    def losses(self, maps: Sequence[Tensor], targets: Tensor, sizes: Sequence[tuple[int, int]]) -> dict[str, Tensor]:
        """Return the cross-entropy over the pixels of label maps (B, H, W) that count; 0 if none does."""
        return {self.loss_name: self.loss_weight * cross_entropy(self(maps), targets, self.ignore)}

    def segment(self, maps: Sequence[Tensor], sizes: Sequence[tuple[int, int]]) -> Tensor:
        """Return logits (B, K, h, w) at the stride of the finest map."""
        logits_BKhw: Tensor = self(maps)
        return logits_BKhw

    def workload(self, maps: Sequence[Tensor]) -> None:
        """Compute the logits."""
        self(maps)


def cross_entropy(logits_BKhw: Tensor, targets_BHW: Tensor, ignore: int) -> Tensor:
    """Return the mean cross-entropy over the pixels that count, the logits being enlarged to the label maps."""
    logits = F.interpolate(logits_BKhw, size=targets_BHW.shape[1:], mode="bilinear", align_corners=False)
    total = F.cross_entropy(logits, targets_BHW.long(), ignore_index=ignore, reduction="sum")
    return total / (targets_BHW != ignore).sum().clamp(min=1)
