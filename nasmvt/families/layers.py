"""Small layers and reshapes shared by several families.

Shapes: B batch, N tokens, C channels, H height, W width, S side of a window.
"""

from collections.abc import Callable, Sequence

import torch.nn.functional as F
from torch import Tensor, nn


def to_tokens(map_BCHW: Tensor) -> Tensor:
    """Turn a map (B, C, H, W) into tokens (B, N, C), row by row."""
    return map_BCHW.flatten(2).transpose(1, 2)


def to_map(tokens_BNC: Tensor, size: Sequence[int]) -> Tensor:
    """Turn tokens (B, N, C) into a map (B, C, H, W) of `size` (H, W), N = H * W."""
    return tokens_BNC.transpose(1, 2).unflatten(2, (size[0], size[1]))


def whole(side: int, divisor: int) -> int:
    """Return the least multiple of a divisor that is at least `side`.

    The side occurs once in it: a tracer's sizes double with every level if it occurs twice.
    """
    return -(-side // divisor) * divisor


def same_size(first: Sequence[int], second: Sequence[int]) -> bool:
    """Return whether two sizes are known to be equal.

    One that a tracer leaves open equals none: what is skipped for equal sizes must change nothing where they are equal.
    """
    return all(type(side) is int for side in (*first, *second)) and tuple(first) == tuple(second)


def padded(x: Tensor, multiple: int, *, rows: int = 1, centred: bool = False) -> Tensor:
    """Append zeros to a map until its sides are multiples of a number; a map that fits is returned as it is.

    Args:
        x: the map, by default (B, H, W, C).
        multiple: of which the sides are to be multiples.
        rows: the dimension H; W follows it.
        centred: whether half of the zeros, rounded down, are put above and on the left; else all are below and on the
            right.
    """
    size = x.shape[rows : rows + 2]
    wanted = tuple(whole(side, multiple) for side in size)
    if same_size(wanted, size):
        return x
    zeros = [0, 0] * (x.ndim - rows - 2)
    for side, found in zip(reversed(size), reversed(wanted), strict=True):
        before = (found - side) // 2 if centred else 0
        zeros += [before, found - side - before]
    return F.pad(x, zeros)


def attend_in_windows(
    attend: Callable[[Tensor], Tensor], x_BNC: Tensor, size: Sequence[int], side: int, *, centred: bool = False
) -> Tensor:
    """Attend inside the windows of a map, which is padded with zeros (see `padded`).

    Args:
        attend: maps tokens of windows (B * windows, S * S, C) to as many.
        x_BNC: the tokens of the map, row by row.
        size: height and width of the map.
        side: of the windows.
        centred: whether the zeros are put on all sides, else below and on the right.
    """
    height, width = size
    x_BHWC = padded(x_BNC.unflatten(1, (height, width)), side, centred=centred)
    canvas = x_BHWC.shape[1:3]
    top, left = ((canvas[0] - height) // 2, (canvas[1] - width) // 2) if centred else (0, 0)
    y_BHWC = from_windows(attend(to_windows(x_BHWC, side)), side, canvas)
    return y_BHWC[:, top : top + height, left : left + width].flatten(1, 2)


def to_windows(x_BHWC: Tensor, side: int) -> Tensor:
    """Partition (B, H, W, C) into windows (B * windows, S * S, C), row by row; H and W are multiples of `side`."""
    b, height, width, c = x_BHWC.shape
    x = x_BHWC.view(b, height // side, side, width // side, side, c)
    return x.transpose(2, 3).reshape(-1, side * side, c)


def from_windows(windows: Tensor, side: int, size: Sequence[int]) -> Tensor:
    """Merge windows (B * windows, S * S, C) into (B, H, W, C) of `size` (H, W); the inverse of `to_windows`."""
    rows, columns, c = size[0] // side, size[1] // side, windows.shape[-1]
    x = windows.view(-1, rows, columns, side, side, c)
    return x.transpose(2, 3).reshape(-1, size[0], size[1], c)


def resized(table: Tensor, size: Sequence[int]) -> Tensor:
    """Resize a table of positions (1, C, H, W) bicubically, smoothed where it shrinks, as timm does.

    A table of that size is returned as it is.
    """
    if same_size(table.shape[2:], size):
        return table
    return F.interpolate(table, size=tuple(size), mode="bicubic", antialias=True, align_corners=False)


def start_linear(module: nn.Module) -> None:
    """Initialise a linear layer as in vision transformers (weights truncated normal 0.02); for `Module.apply`."""
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


class MeanLinear(nn.Module):
    """The usual classifier of a published network: the mean over the last map, then a linear layer.

    Args:
        width: channels C of the last map.
        classes: number of classes K.
    """

    def __init__(self, width: int, classes: int) -> None:
        super().__init__()
        self.fc = nn.Linear(width, classes)

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Turn maps, of which the last is (B, C, H, W), into logits (B, K)."""
        logits: Tensor = self.fc(maps[-1].mean((2, 3)))
        return logits


class Classifier(nn.Module):
    """A published classification network: a backbone and a head.

    Args:
        backbone: images (B, 3, H, W) to a tuple of maps.
        head: module that maps the tuple of maps to logits (B, K).
    """

    def __init__(self, backbone: nn.Module, head: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = head

    def forward(self, images: Tensor) -> Tensor:
        """Turn images (B, 3, H, W) into logits (B, K)."""
        logits: Tensor = self.head(self.backbone(images))
        return logits
