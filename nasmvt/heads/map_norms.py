"""A norm for each map of a backbone, where it enters the neck.

Features of a published network are large (EfficientNet-Lite0: a standard deviation of 13 at stride 4), and an FPN has
no norm: what a head computes at first is then as large, and so is its loss. Detectors on Swin and ConvNeXt norm every
map that a backbone hands out for the same reason.

Shapes: B batch, C channels, H height, W width.
"""

from collections.abc import Callable, Sequence

from timm.layers import LayerNorm2d
from torch import Tensor, nn

NORMS: dict[str, Callable[[int], nn.Module]] = {"batch": nn.BatchNorm2d, "layer": LayerNorm2d}
"""Norms of a map (B, C, H, W), by name: each channel over the batch, or each cell over its channels."""


class MapNorms(nn.Module):
    """Norms maps (B, C_i, H_i, W_i), each with weights of its own.

    Args:
        widths: channels of each map.
        norm: "batch" or "layer".
    """

    def __init__(self, widths: Sequence[int], norm: str) -> None:
        super().__init__()
        self.norms = nn.ModuleList(NORMS[norm](width) for width in widths)

    def forward(self, maps: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Return the normed maps."""
        return tuple(norm(map_BCHW) for norm, map_BCHW in zip(self.norms, maps, strict=True))
