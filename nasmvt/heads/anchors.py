"""Anchors at declared strides.

torchvision's generator divides the canvas by the map to learn the stride, which is wrong wherever a canvas is
not a multiple of the largest stride, and keeps the device of its last call as state; this one does neither.

Shapes: A anchors per cell, H height, W width.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.image_list import ImageList


class StridedAnchors(AnchorGenerator):
    """One anchor per ratio in every cell, of area `(scale * stride)^2`, around the cell's top left corner.

    Args:
        strides: pixels of the image per cell of each level.
        scale: side of the square anchor in cells.
        ratios: height divided by width of each anchor.
        rounding: whether the corners of the cell's anchors are rounded to whole pixels, as torchvision does;
            mmdetection does not.
    """

    def __init__(self, strides: Sequence[int], scale: float, ratios: Sequence[float], *, rounding: bool = True) -> None:
        with torch.device("cpu"):
            super().__init__(tuple((scale * stride,) for stride in strides), (tuple(ratios),) * len(strides))
            if not rounding:
                self.cell_anchors = [_cell_anchors(scale * stride, ratios) for stride in strides]
        self.strides = tuple(strides)

    def forward(self, image_list: ImageList, feature_maps: list[Tensor]) -> list[Tensor]:
        """Return for each image the anchors of all levels, (sum of H * W * A, 4), xyxy in pixels."""
        levels = [
            _shift(_placed(cell, map_BCHW), map_BCHW.shape[-2:], stride)
            for cell, map_BCHW, stride in zip(self.cell_anchors, feature_maps, self.strides, strict=True)
        ]
        anchors = torch.cat(levels)
        return [anchors] * len(image_list.image_sizes)


def _cell_anchors(side: float, ratios: Sequence[float]) -> Tensor:
    """Return the anchors (A, 4) of one cell around (0, 0), of area `side^2`, corners not rounded."""
    roots_A = torch.as_tensor(ratios, dtype=torch.float32).sqrt()
    widths_A, heights_A = side / roots_A, side * roots_A
    return torch.stack((-widths_A, -heights_A, widths_A, heights_A), dim=1) / 2


def _placed(cell_A4: Tensor, map_BCHW: Tensor) -> Tensor:
    """Return anchors on the device of a map, in float32 even if the map has less: pixels need it."""
    return cell_A4.to(map_BCHW.device, torch.promote_types(cell_A4.dtype, map_BCHW.dtype))


def _shift(cell_A4: Tensor, size: Sequence[int], stride: int) -> Tensor:
    """Copy the anchors of one cell to every cell of a map of `size` (H, W), row by row."""
    y, x = (torch.arange(n, device=cell_A4.device, dtype=cell_A4.dtype) * stride for n in size)
    grid_y, grid_x = torch.meshgrid(y, x, indexing="ij")
    shifts_HW4 = torch.stack((grid_x, grid_y, grid_x, grid_y), dim=-1)
    return (shifts_HW4.reshape(-1, 1, 4) + cell_A4).reshape(-1, 4)
