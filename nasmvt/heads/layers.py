"""Convolution blocks and initialisation shared by several heads."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Norm = Callable[[int], nn.Module]
"""Makes the norm of a number of channels."""


def group_norm(channels: int) -> nn.GroupNorm:
    """Make a GroupNorm of up to 32 groups, each of 8 channels or more, so that it also works on a single cell."""
    most = min(32, max(channels // 8, 1))
    return nn.GroupNorm(next(groups for groups in range(most, 0, -1) if channels % groups == 0), channels)


def conv_bn(inputs: int, outputs: int, kernel: int) -> nn.Sequential:
    """A convolution of unchanged size without bias, then BatchNorm; no activation."""
    conv = nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(outputs))


def conv_norm_relu(inputs: int, outputs: int, kernel: int, norm: Norm = nn.BatchNorm2d) -> nn.Sequential:
    """A convolution of unchanged size without bias (He initialisation, fan out), then a norm and ReLU."""
    conv = nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, bias=False)
    nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
    return nn.Sequential(conv, norm(outputs), nn.ReLU(inplace=True))


def conv_relu(inputs: int, outputs: int, kernel: int) -> nn.Sequential:
    """A convolution of unchanged size with bias (He initialisation, fan out), then ReLU; no norm."""
    conv = nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2)
    nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
    if conv.bias is not None:
        nn.init.zeros_(conv.bias)
    return nn.Sequential(conv, nn.ReLU(inplace=True))


def grid_means(map_BCHW: Tensor, side: int) -> Tensor:
    """Return the means (B, C, S, S) of the cells of a grid of `side` S, of a map (B, C, H, W).

    While H and W are left open in tracing, they are products with matrices that are made for the size at hand: torch's
    own operator is traced for sizes that divide like the example's.
    """
    height, width = map_BCHW.shape[2:]
    if isinstance(height, int) and isinstance(width, int):
        return F.adaptive_avg_pool2d(map_BCHW, side)
    rows_SH, columns_SW = (_cells(side, length).to(map_BCHW) for length in (height, width))
    return rows_SH @ (map_BCHW @ columns_SW.T)


def _cells(side: int, length: int) -> Tensor:
    """Return what each place of a line of `length` L weighs in the mean of each of `side` cells: (S, L)."""
    place_L, cell_S1 = torch.arange(length), torch.arange(side)[:, None]
    first_S1, end_S1 = cell_S1 * length // side, ((cell_S1 + 1) * length + side - 1) // side
    inside_SL = (place_L >= first_S1) & (place_L < end_S1)
    return inside_SL / (end_S1 - first_S1)


def in_float32(output: Tensor) -> Tensor:
    """Return the output of a head in float32 where autocast computed it in less: losses, scores and boxes need it."""
    return output.to(torch.promote_types(output.dtype, torch.float32))


def start_normal(layer: nn.Linear | nn.Conv2d, std: float) -> None:
    """Initialise an output layer: weights normal with standard deviation `std`, biases zero."""
    nn.init.normal_(layer.weight, std=std)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)


def start_xavier(module: nn.Module) -> None:
    """Start a convolution as mmdetection's pyramids do: weights Xavier uniform, biases zero; for `Module.apply`."""
    if isinstance(module, nn.Conv2d):
        nn.init.xavier_uniform_(module.weight)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def uniform_by_fan_in(weight: Tensor) -> Tensor:
    """Draw weights uniformly from +-sqrt(3 / fan in), as detectron2's pyramids and box branches do."""
    return nn.init.kaiming_uniform_(weight, a=1)
