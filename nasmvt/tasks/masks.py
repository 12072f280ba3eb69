"""From the small mask inside a box to a mask of the whole image.

Shapes: n objects, M side of a predicted mask, H, W of the image.
"""

import torch
from torch import Tensor

_PIXELS_AT_ONCE = 2**25


def paste_masks(masks_nMM: Tensor, boxes_n4: Tensor, size: tuple[int, int], threshold: float = 0.5) -> Tensor:
    """Draw masks into their boxes, bilinearly, and threshold them.

    Args:
        masks_nMM: probabilities inside each box, which the M x M cells divide evenly.
        boxes_n4: xyxy in pixels of the image.
        size: height and width of the image.
        threshold: pixels of this or a higher probability belong to the object.

    Returns:
        Bool (n, H, W).
    """
    height, width = size
    pasted = masks_nMM.new_zeros((len(masks_nMM), height, width), dtype=torch.bool)
    step = max(_PIXELS_AT_ONCE // (height * width), 1)
    for start in range(0, len(masks_nMM), step):
        part = slice(start, start + step)
        x0, y0, x1, y1 = boxes_n4[part].to(masks_nMM.dtype).unbind(1)
        rows_nHM = _weights(y0, y1, height, masks_nMM.shape[1])
        columns_nWM = _weights(x0, x1, width, masks_nMM.shape[2])
        pasted[part] = rows_nHM @ masks_nMM[part] @ columns_nWM.transpose(1, 2) >= threshold
    return pasted


def _weights(low_n: Tensor, high_n: Tensor, pixels: int, cells: int) -> Tensor:
    """Return the weight (n, pixels, cells) of each cell between low and high in each pixel; zero outside."""
    centers = torch.arange(pixels, device=low_n.device, dtype=low_n.dtype) + 0.5
    length_n1 = (high_n - low_n).clamp(min=1e-6)[:, None]
    position = (centers - low_n[:, None]) / length_n1 * cells - 0.5
    cell = torch.arange(cells, device=low_n.device, dtype=low_n.dtype)
    return (1 - (position[:, :, None] - cell).abs()).clamp(min=0)
