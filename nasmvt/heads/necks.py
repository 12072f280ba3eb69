"""Necks: from what a backbone gives to the pyramid that a dense head reads.

A backbone of one stride (a plain ViT) needs its scales made; a hierarchical one has them.
`detection_neck` and `segmentation_neck` choose by what the backbone declares.

Sources: ViT-MVT (its detector's neck is the "simple feature pyramid" of ViTDet, arXiv:2203.16527, with
BatchNorm), and FPN (arXiv:1612.03144), taken from torchvision.

Shapes: B batch, C channels, H height, W width.
"""

from collections import OrderedDict
from collections.abc import Sequence
from fractions import Fraction
from itertools import pairwise

import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import FeaturePyramidNetwork
from torchvision.ops.feature_pyramid_network import LastLevelMaxPool

from nasmvt.errors import UserError
from nasmvt.heads.layers import conv_bn

SCALES: tuple[float, ...] = (4, 2, 1, 0.5)
"""Enlargements of a stride-16 map that give the strides 4, 8, 16 and 32."""

STRIDES: tuple[int, ...] = (4, 8, 16, 32)
"""Strides that heads read by default."""

Maps = tuple[Tensor, ...]


class SimpleFeaturePyramid(nn.Module):
    """A pyramid from one map: resize by deconvolution or max pooling, then 1x1 and 3x3 conv with BatchNorm.

    Args:
        width: channels C of the map.
        stride: pixels of the image per cell of the map.
        out_width: channels of every level.
        scales: enlargements of the map, powers of two, largest first.
        extra_level: whether to add a level by taking every second cell of the last one.

    Attributes:
        strides: pixels per cell of each level.
        widths: channels of each level.

    Raises:
        UserError: if a scale is no power of two or does not divide the stride.
    """

    def __init__(
        self,
        width: int,
        stride: int,
        out_width: int = 256,
        scales: Sequence[float] = SCALES,
        extra_level: bool = True,
    ) -> None:
        super().__init__()
        strides = scaled_strides(stride, scales)
        self.extra_level = extra_level
        self.strides = (*strides, 2 * strides[-1]) if extra_level else strides
        self.widths = (out_width,) * len(self.strides)
        self.levels = nn.ModuleList(
            nn.Sequential(_resize(width, scale), conv_bn(width, out_width, 1), conv_bn(out_width, out_width, 3))
            for scale in scales
        )

    def forward(self, maps: Sequence[Tensor]) -> Maps:
        """Turn maps, of which only the last (B, C, H, W) is read, into one map per stride."""
        pyramid = [level(maps[-1]) for level in self.levels]
        if self.extra_level:
            pyramid.append(F.max_pool2d(pyramid[-1], kernel_size=1, stride=2))
        return tuple(pyramid)


class MultiScaleNeck(nn.Module):
    """A pyramid from maps of one width and stride: 1x1 conv, bilinear resize, 3x3 conv each; no norm.

    A backbone of a single map may be read too: every scale is then made from that map.

    Args:
        width: channels C of every map.
        stride: pixels of the image per cell of the maps.
        scales: enlargement of each map, powers of two, largest first.
        out_width: channels of every level; None: as many as the maps have.

    Attributes:
        strides: pixels per cell of each level.
        widths: channels of each level.

    Raises:
        UserError: if a scale is no power of two or does not divide the stride.
    """

    def __init__(
        self, width: int, stride: int = 16, scales: Sequence[float] = SCALES, out_width: int | None = None
    ) -> None:
        super().__init__()
        outputs = out_width or width
        self.scales = tuple(scales)
        self.strides = scaled_strides(stride, scales)
        self.widths = (outputs,) * len(self.scales)
        self.laterals = nn.ModuleList(nn.Conv2d(width, outputs, 1) for _ in self.scales)
        self.convs = nn.ModuleList(nn.Conv2d(outputs, outputs, 3, padding=1) for _ in self.scales)

    def forward(self, maps: Sequence[Tensor]) -> Maps:
        """Turn one map (B, C, H, W) per scale, or a single one, into one map per stride."""
        sources = maps if len(maps) > 1 else tuple(maps) * len(self.scales)
        pyramid = []
        for map_BCHW, scale, lateral, conv in zip(sources, self.scales, self.laterals, self.convs, strict=True):
            pyramid.append(conv(_scaled(lateral(map_BCHW), scale)))
        return tuple(pyramid)


class FeaturePyramid(nn.Module):
    """torchvision's FPN on the maps of a hierarchical backbone.

    Args:
        widths: channels of each map.
        strides: pixels of the image per cell of each map, ascending.
        out_width: channels of every level.
        extra_level: whether to add a level by taking every second cell of the last one.

    Attributes:
        strides: pixels per cell of each level.
        widths: channels of each level.
    """

    def __init__(
        self, widths: Sequence[int], strides: Sequence[int], out_width: int = 256, extra_level: bool = True
    ) -> None:
        super().__init__()
        self.extra_level = extra_level
        self.strides = (*strides, 2 * strides[-1]) if extra_level else tuple(strides)
        self.widths = (out_width,) * len(self.strides)
        self.fpn = FeaturePyramidNetwork(
            list(widths), out_width, extra_blocks=LastLevelMaxPool() if extra_level else None
        )

    def forward(self, maps: Sequence[Tensor]) -> Maps:
        """Turn the backbone's maps into one map per stride."""
        levels = self.fpn(OrderedDict((str(i), map_BCHW) for i, map_BCHW in enumerate(maps)))
        return tuple(levels.values())


class SameMaps(nn.Module):
    """No neck: hands on the maps of a backbone that has the strides a head wants.

    Args:
        widths: channels of each map.
        strides: pixels of the image per cell of each map.
    """

    def __init__(self, widths: Sequence[int], strides: Sequence[int]) -> None:
        super().__init__()
        self.widths, self.strides = tuple(widths), tuple(strides)

    def forward(self, maps: Sequence[Tensor]) -> Maps:
        """Return the maps."""
        return tuple(maps)


def detection_neck(
    widths: Sequence[int], strides: Sequence[int], out_width: int = 256, levels: Sequence[int] = STRIDES
) -> SimpleFeaturePyramid | FeaturePyramid:
    """Build the neck of a detector: a simple pyramid from one map, FPN from several of distinct strides.

    Args:
        widths: channels of the backbone's maps.
        strides: strides of the backbone's maps.
        out_width: channels of every level.
        levels: strides of the levels made from one map.

    Raises:
        UserError: if several maps don't have ascending strides, or a level does not fit the map's stride.
    """
    if len(strides) == 1:
        return SimpleFeaturePyramid(widths[0], strides[0], out_width, [strides[0] / level for level in levels])
    if not _ascending(strides):
        raise UserError(
            f"a detector needs one map, or maps of ascending strides, but the backbone gives strides "
            f"{tuple(strides)}: give it another backbone or output"
        )
    return FeaturePyramid(widths, strides, out_width)


def segmentation_neck(
    widths: Sequence[int], strides: Sequence[int], levels: Sequence[int] = STRIDES, out_width: int | None = None
) -> MultiScaleNeck | SameMaps:
    """Build the neck of a segmenter: levels made from maps of one stride, or the backbone's own maps.

    Args:
        widths: channels of the backbone's maps.
        strides: strides of the backbone's maps.
        levels: strides of the levels made from maps of one stride.
        out_width: channels of the levels that are made; None: as many as the maps have.

    Raises:
        UserError: if the maps are neither of one width and stride (one, or one per level) nor of
            ascending strides, or if a level does not fit the maps' stride.
    """
    if len(strides) > 1 and _ascending(strides):
        return SameMaps(widths, strides)
    alike = len(set(strides)) == len(set(widths)) == 1
    if not alike or len(strides) not in (1, len(levels)):
        raise UserError(
            f"a segmenter needs maps of ascending strides, or 1 or {len(levels)} maps of one width and "
            f"stride, but the backbone gives strides {tuple(strides)} and widths {tuple(widths)}: give it "
            "another backbone or output"
        )
    return MultiScaleNeck(widths[0], strides[0], [strides[0] / level for level in levels], out_width)


def scaled_strides(stride: int, scales: Sequence[float]) -> tuple[int, ...]:
    """Return the strides of a map of `stride` pixels per cell after enlarging it by each of `scales`.

    Raises:
        UserError: if a scale is no power of two or does not divide the stride.
    """
    strides = []
    for scale in scales:
        ratio = Fraction(scale)
        fits = _power_of_two(ratio.numerator) and _power_of_two(ratio.denominator)
        if not fits or stride % ratio.numerator:
            raise UserError(
                f"a neck's scale must be a power of two that divides the stride {stride} of the map, "
                f"but is {scale:g}: choose strides among 4, 8, 16 and 32"
            )
        strides.append(int(stride / ratio))
    return tuple(strides)


def _power_of_two(value: int) -> bool:
    return value > 0 and value & (value - 1) == 0


def _scaled(map_BCHW: Tensor, scale: float) -> Tensor:
    """Resize a map bilinearly by a factor, to one cell at least.

    Cells are sampled by the factor itself, as mmsegmentation's neck does it: half of 5 cells are 2, each 2 cells wide.
    """
    sides = [side * scale for side in map_BCHW.shape[2:]]
    if min(sides) < 1:
        size = [max(int(side), 1) for side in sides]
        return F.interpolate(map_BCHW, size=size, mode="bilinear", align_corners=False)
    return F.interpolate(map_BCHW, scale_factor=scale, mode="bilinear", align_corners=False)


def _ascending(strides: Sequence[int]) -> bool:
    return all(low < high for low, high in pairwise(strides))


def _resize(width: int, scale: float) -> nn.Module:
    """Enlarge by 2x2 deconvolutions with BatchNorm and GELU between them, or shrink by max pooling."""
    if scale < 1:
        return nn.MaxPool2d(round(1 / scale))
    layers: list[nn.Module] = []
    for doubling in range(round(scale).bit_length() - 1):
        if doubling:
            layers += [nn.BatchNorm2d(width), nn.GELU()]
        layers.append(nn.ConvTranspose2d(width, width, kernel_size=2, stride=2))
    return nn.Sequential(*layers)
