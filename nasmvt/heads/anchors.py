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
    """Anchors of every ratio and size in every cell, around the cell's top left corner.

    Size i has the area `(scale * 2^(i / octaves) * stride)^2`.

    Args:
        strides: pixels of the image per cell of each level.
        scale: side of the smallest square anchor in cells.
        ratios: height divided by width of each anchor.
        octaves: sizes per octave.
        size_first: whether the anchors of a cell are ordered by size, then ratio (detectron2), or by ratio, then size
            (mmdetection, torchvision).
        rounding: whether the corners of the cell's anchors are rounded to whole pixels, as torchvision does;
            detectron2 and mmdetection do not.
    """

    def __init__(
        self,
        strides: Sequence[int],
        scale: float,
        ratios: Sequence[float],
        *,
        octaves: int = 1,
        size_first: bool = False,
        rounding: bool = True,
    ) -> None:
        sides = [[scale * stride * 2 ** (i / octaves) for i in range(octaves)] for stride in strides]
        with torch.device("cpu"):
            super().__init__(tuple(map(tuple, sides)), (tuple(ratios),) * len(strides))
            if not rounding:
                self.cell_anchors = [_cell_anchors(level, ratios) for level in sides]
        if size_first:
            self.cell_anchors = [
                cell.unflatten(0, (len(ratios), octaves)).transpose(0, 1).flatten(0, 1) for cell in self.cell_anchors
            ]
        self.strides = tuple(strides)

    def forward(self, image_list: ImageList, feature_maps: list[Tensor]) -> list[Tensor]:
        """Return for each image the anchors of all levels, (sum of H * W * A, 4), xyxy in pixels."""
        return [torch.cat(self.levels(feature_maps))] * len(image_list.image_sizes)

    def levels(self, feature_maps: Sequence[Tensor]) -> list[Tensor]:
        """Return the anchors of each level, (H * W * A, 4), xyxy in pixels."""
        return [
            _shift(_placed(cell, map_BCHW), map_BCHW.shape[-2:], stride)
            for cell, map_BCHW, stride in zip(self.cell_anchors, feature_maps, self.strides, strict=True)
        ]


def _cell_anchors(sides: Sequence[float], ratios: Sequence[float]) -> Tensor:
    """Return the anchors (A, 4) of one cell around (0, 0), ratio by ratio, of areas `side^2`, corners not rounded."""
    roots = torch.as_tensor(ratios, dtype=torch.float32).sqrt()[:, None]
    sides_of = torch.as_tensor(sides, dtype=torch.float32)
    widths_A, heights_A = (sides_of / roots).flatten(), (sides_of * roots).flatten()
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
