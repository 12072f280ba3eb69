"""Necks: from what a backbone gives to the pyramid that a dense head reads.

For a backbone of one stride (a plain ViT) the scales have to be made; a hierarchical one has them.
`detection_neck` and `segmentation_neck` choose by what the backbone declares.

Sources: ViT-MVT (its detector's neck is the "simple feature pyramid" of ViTDet, arXiv:2203.16527, with
BatchNorm), and FPN (arXiv:1612.03144), taken from torchvision.

Shapes: B batch, C channels, H height, W width.
"""

from collections import OrderedDict
from collections.abc import Callable, Sequence
from fractions import Fraction
from itertools import pairwise

import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import FeaturePyramidNetwork
from torchvision.ops.feature_pyramid_network import LastLevelMaxPool, LastLevelP6P7

from nasmvt.errors import UserError
from nasmvt.heads.layers import conv_bn, start_xavier

SCALES: tuple[float, ...] = (4, 2, 1, 0.5)
"""Scale factors that turn a stride-16 map into the strides 4, 8, 16 and 32."""

STRIDES: tuple[int, ...] = (4, 8, 16, 32)
"""Strides that heads read by default."""

Maps = tuple[Tensor, ...]


class SubsampledLevel(LastLevelMaxPool):
    """A level above the last one: every second cell of it (FPN)."""

    added = 1

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()


class ConvLevels(LastLevelP6P7):
    """Two levels above the last one: 3x3 convolutions of stride 2 (RetinaNet), whatever the channels.

    torchvision's own reads the pyramid instead of the backbone where both have the same channels.

    Args:
        inputs: channels of the map that the first of them reads.
        outputs: channels of the levels.
        relu: whether ReLU comes before the second (detectron2) or nothing (mmdetection).
    """

    added = 2

    def __init__(self, inputs: int, outputs: int, *, relu: bool = True) -> None:
        super().__init__(inputs, outputs)
        self.between = nn.ReLU() if relu else nn.Identity()

    def forward(self, p: list[Tensor], c: list[Tensor], names: list[str]) -> tuple[list[Tensor], list[str]]:
        """Add two levels to a pyramid `p`, made from the last of the maps `c`."""
        sixth = self.p6(c[-1])
        return [*p, sixth, self.p7(self.between(sixth))], [*names, "p6", "p7"]


Top = Callable[[int, int], SubsampledLevel | ConvLevels]
"""Makes the levels above a pyramid: `top(inputs, outputs)`, the channels of the last map read and of the pyramid."""


class SimpleFeaturePyramid(nn.Module):
    """A pyramid from one map: resize by deconvolution or max pooling, then 1x1 and 3x3 conv with BatchNorm.

    Args:
        width: channels C of the map.
        stride: pixels of the image per cell of the map.
        out_width: channels of every level.
        scales: enlargements of the map, powers of two, largest first.
        top: makes the levels above the last one, from its channels and `out_width`; by default a level by taking every
            second cell. None: no more levels.

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
        top: Top | None = SubsampledLevel,
    ) -> None:
        super().__init__()
        self.top = top and top(out_width, out_width)
        strides = scaled_strides(stride, scales)
        self.strides = (*strides, *_strides_above(strides[-1], self.top))
        self.widths = (out_width,) * len(self.strides)
        self.levels = nn.ModuleList(
            nn.Sequential(_resize(width, scale), conv_bn(width, out_width, 1), conv_bn(out_width, out_width, 3))
            for scale in scales
        )

    def forward(self, maps: Sequence[Tensor]) -> Maps:
        """Turn maps, of which only the last (B, C, H, W) is read, into one map per stride."""
        pyramid = [level(maps[-1]) for level in self.levels]
        if self.top is not None:
            pyramid, _ = self.top(pyramid, pyramid, [])
        return tuple(pyramid)


class MultiScaleNeck(nn.Module):
    """A pyramid from maps of one width and stride: 1x1 conv, bilinear resize, 3x3 conv each; no norm.

    A backbone with a single map also works: every scale is then made from that map.

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
    """torchvision's FPN on maps of a hierarchical backbone, with more levels above.

    Args:
        widths: channels of each map.
        strides: pixels of the image per cell of each map, ascending.
        out_width: channels of every level.
        top: makes the levels above the last one; by default one by taking every second cell. None: no more
            levels.
        reads: which of the backbone's maps are read, by place; by default all of them.

    Attributes:
        strides: pixels per cell of each level.
        widths: channels of each level.
    """

    def __init__(
        self,
        widths: Sequence[int],
        strides: Sequence[int],
        out_width: int = 256,
        top: Top | None = SubsampledLevel,
        reads: Sequence[int] | None = None,
    ) -> None:
        super().__init__()
        self.reads = tuple(range(len(widths)) if reads is None else reads)
        block, read = top and top(widths[self.reads[-1]], out_width), [strides[i] for i in self.reads]
        self.strides = (*read, *_strides_above(read[-1], block))
        self.widths = (out_width,) * len(self.strides)
        self.fpn = FeaturePyramidNetwork([widths[i] for i in self.reads], out_width, extra_blocks=block)

    def forward(self, maps: Sequence[Tensor]) -> Maps:
        """Turn the backbone's maps into one map per stride."""
        levels = self.fpn(OrderedDict((str(i), maps[i]) for i in self.reads))
        return tuple(levels.values())


class ProjectedLevels(nn.Module):
    """Maps brought to one width: 1x1 convolution and GroupNorm each, and more levels above by 3x3 convolutions.

    Source: Deformable DETR (arXiv:2010.04159). Where the backbone gives a single map, it is resized first.

    Args:
        widths: channels of each map of the backbone.
        strides: pixels of the image per cell of each of them.
        out_width: channels of every level.
        levels: strides of the maps that are read, or made from a single one.
        above: levels above the last of them.
        groups: groups of channels of the norms.

    Attributes:
        strides: pixels per cell of each level.
        widths: channels of each level.

    Raises:
        UserError: if a map to be read is lacking, or a level does not fit the stride of the single map.
    """

    def __init__(
        self,
        widths: Sequence[int],
        strides: Sequence[int],
        out_width: int = 256,
        levels: Sequence[int] = (8, 16, 32),
        above: int = 1,
        groups: int = 32,
    ) -> None:
        super().__init__()
        single = len(strides) == 1
        self.reads = [0] * len(levels) if single else maps_of(strides, levels)
        scales = scaled_strides(strides[0], [strides[0] / level for level in levels]) if single else levels
        self.resizes = nn.ModuleList(_resize(widths[0], strides[0] / level) for level in scales) if single else None
        inputs = [widths[place] for place in self.reads]
        self.strides = (*levels, *(levels[-1] * 2 ** (i + 1) for i in range(above)))
        self.widths = (out_width,) * len(self.strides)
        projections = [nn.Conv2d(channels, out_width, 1) for channels in inputs]
        for channels in [inputs[-1], *[out_width] * above][:above]:
            projections.append(nn.Conv2d(channels, out_width, 3, stride=2, padding=1))
        norms = (nn.GroupNorm(groups, out_width) for _ in projections)
        self.levels = nn.ModuleList(nn.Sequential(*pair) for pair in zip(projections, norms, strict=True))
        self.levels.apply(start_xavier)

    def forward(self, maps: Sequence[Tensor]) -> Maps:
        """Turn the backbone's maps into one map (B, C, H, W) per level."""
        sources = [maps[place] for place in self.reads]
        if self.resizes is not None:
            sources = [resize(source) for resize, source in zip(self.resizes, sources, strict=True)]
        made = [level(source) for level, source in zip(self.levels, sources, strict=False)]
        above = sources[-1]
        for level in self.levels[len(sources) :]:
            above = level(above)
            made.append(above)
        return tuple(made)


class SameMaps(nn.Module):
    """No neck: passes on the maps of a backbone that has the strides that a head needs.

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
    widths: Sequence[int],
    strides: Sequence[int],
    out_width: int = 256,
    levels: Sequence[int] = STRIDES,
    top: Top = SubsampledLevel,
    *,
    only: bool = False,
) -> SimpleFeaturePyramid | FeaturePyramid:
    """Build the neck of a detector: a simple pyramid from one map, FPN from several of distinct strides.

    Args:
        widths: channels of the backbone's maps.
        strides: strides of the backbone's maps.
        out_width: channels of every level.
        levels: strides of the levels made from one map.
        top: makes the levels above the last one.
        only: whether maps of other strides than `levels` are left unread.

    Raises:
        UserError: if several maps don't have ascending strides, a map to be read is lacking, or a level does not fit
            the map's stride.
    """
    if len(strides) == 1:
        return SimpleFeaturePyramid(widths[0], strides[0], out_width, [strides[0] / level for level in levels], top)
    reads = maps_of(strides, levels) if only else range(len(strides))
    if not _ascending(strides):
        raise UserError(
            f"a detector needs one map, or maps of ascending strides, but the backbone gives strides "
            f"{tuple(strides)}: give it another backbone or output"
        )
    return FeaturePyramid(widths, strides, out_width, top, reads)


def maps_of(strides: Sequence[int], levels: Sequence[int]) -> list[int]:
    """Return the places of the maps that have the strides `levels`.

    Raises:
        UserError: if there is no map of one of them, or more than one.
    """
    if any(list(strides).count(level) != 1 for level in levels):
        raise UserError(
            f"the head reads one map of each of the strides {tuple(levels)}, but the backbone gives strides "
            f"{tuple(strides)}: set 'head.strides' to some of these, or give it another backbone"
        )
    return [list(strides).index(level) for level in levels]


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


def _strides_above(stride: int, top: SubsampledLevel | ConvLevels | None) -> tuple[int, ...]:
    return tuple(stride * 2 ** (level + 1) for level in range(top.added if top else 0))


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
