"""From logits of a canvas, or of windows of one, to classes and probabilities of the pixels of an image.

Sources: mmsegmentation 0.x (`whole_inference`, `slide_inference`).

Shapes: K classes, H, W of an image, h, w of a map.
"""

from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from nasmvt.data.geometry import Size
from nasmvt.data.types import ImageInfo
from nasmvt.heads.segmentation import resize

_VALUES_AT_ONCE = 2**24


def label_map(logits_Khw: Tensor, canvas: tuple[int, int], info: ImageInfo) -> Tensor:
    """Return the best class of each pixel of an original image, uint8 (H, W).

    The logits are resized to the canvas, cropped to the image and resized to its original size, a few
    classes at a time: 150 classes of a large photograph would take gigabytes.
    """
    step = max(_VALUES_AT_ONCE // (info.size[0] * info.size[1]), 1)
    best, labels = None, None
    for start in range(0, len(logits_Khw), step):
        part = F.interpolate(logits_Khw[None, start : start + step], size=canvas, mode="bilinear", align_corners=False)
        part = part[:, :, : info.valid[0], : info.valid[1]]
        if info.size != info.valid:
            part = F.interpolate(part, size=info.size, mode="bilinear", align_corners=False)
        if part.shape[1] == 1:  # a large image: its indices alone would take eight bytes a pixel
            values, indices = part[0, 0], torch.full_like(part[0, 0], start, dtype=torch.uint8)
        else:
            values, indices = part[0].max(dim=0)
            indices = indices.to(torch.uint8) + start
        if best is None or labels is None:
            best, labels = values, indices
        else:
            higher = values > best
            best, labels = torch.where(higher, values, best), torch.where(higher, indices, labels)
    if labels is None:
        raise ValueError("there must be at least one class")
    return labels


def shares(logits_Khw: Tensor, canvas: Size, info: ImageInfo) -> Tensor:
    """Return the probability (K, H, W) of each class at each pixel of an original image, mirrored back."""
    on_canvas = resize(logits_Khw[None], canvas)[:, :, : info.valid[0], : info.valid[1]]
    shares_KHW = resize(on_canvas, info.size)[0].softmax(dim=0)
    return shares_KHW.flip(2) if info.flip else shares_KHW


def slide(segment: Callable[[Tensor, Size], Tensor], image: Tensor, window: Size, stride: Size) -> Tensor:
    """Return the logits (K, H, W) of an image, each pixel's averaged over the windows that cover it.

    Args:
        segment: returns logits (K, h, w) of a part of an image, all of which is valid.
        image: (3, H, W).
        window: height and width of a window.
        stride: steps from window to window.
    """
    total: Tensor | None = None
    count = image.new_zeros(image.shape[1:], dtype=torch.float32)
    for place in windows((image.shape[1], image.shape[2]), window, stride):
        part = image[:, *place]
        size = (part.shape[1], part.shape[2])
        logits_Khw = resize(segment(part, size)[None], size)[0]
        if total is None:
            total = logits_Khw.new_zeros((len(logits_Khw), *image.shape[1:]))
        total[:, *place] += logits_Khw
        count[place] += 1
    if total is None:
        raise ValueError("there must be at least one window")
    return total / count


def windows(size: Size, window: Size, stride: Size) -> Iterator[tuple[slice, slice]]:
    """Yield the rows and columns of each window, row by row.

    The last ones of a row and of a column are moved back to end at the border; a side shorter than the window is
    covered by one shorter window.
    """
    rows, columns = (list(_spans(*axis)) for axis in zip(size, window, stride, strict=True))
    for row in rows:
        for column in columns:
            yield row, column


def _spans(length: int, window: int, stride: int) -> Iterator[slice]:
    for place in range(max(length - window + stride - 1, 0) // stride + 1):
        end = min(place * stride + window, length)
        yield slice(max(end - window, 0), end)
