"""The region heads of Mask R-CNN: pooling, the box branch and the mask branch.

torchvision's `RoIHeads` counts the background as class 0 everywhere. Only the class scores need it: boxes
and masks are predicted for the K foreground classes and padded with zeros in the background's place.

Source: Mask R-CNN (arXiv:1703.06870) with the "4 conv 1 fc" box branch of mmdetection.

Shapes: R regions, C channels, K classes, S side of a pooled region.
"""

import math
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import MultiScaleRoIAlign
from torchvision.ops import roi_align as align_regions
from torchvision.ops.poolers import LevelMapper

from nasmvt.heads.layers import conv_norm_relu, conv_relu, in_float32, start_normal


def roi_align(strides: Sequence[int], size: int, *, aligned: bool = False) -> MultiScaleRoIAlign:
    """Build the pooling of regions from the levels "0", "1", ... of a pyramid of declared strides.

    A region of 224 x 224 pixels is read at stride 16, one of half that side at stride 8, and so on (FPN,
    eq. 1). torchvision infers the scales from the first image and keeps them; here they are
    given.

    Args:
        strides: pixels of the image per cell of each level.
        size: side S of a pooled region.
        aligned: whether a region is shifted by half a cell, so that cells are read at their centres, and is
            not widened to a cell where it is smaller (mmdetection 2); torchvision's own does neither.
    """
    kind = _AlignedPooling if aligned else MultiScaleRoIAlign
    pool = kind([str(i) for i in range(len(strides))], size, sampling_ratio=0)
    levels = [round(math.log2(stride)) for stride in strides]
    pool.scales = [1 / stride for stride in strides]
    pool.map_levels = LevelMapper(levels[0], levels[-1])
    pool.aligned = aligned
    return pool


class _AlignedPooling(MultiScaleRoIAlign):
    """torchvision's pooling with `aligned=True`, which it does not offer."""

    def forward(self, x: dict[str, Tensor], boxes: list[Tensor], image_shapes: list[tuple[int, int]]) -> Tensor:
        """Pool boxes, one (n, 4) xyxy per image, to regions (R, C, S, S)."""
        levels_R = self.map_levels(boxes)
        regions_R5 = torch.cat([F.pad(boxes_n4, (1, 0), value=i) for i, boxes_n4 in enumerate(boxes)])
        places, pooled = [], []
        for level, (name, scale) in enumerate(zip(self.featmap_names, self.scales, strict=True)):
            place = torch.where(levels_R == level)[0]
            places.append(place)
            pooled.append(
                align_regions(x[name], regions_R5[place], self.output_size, scale, self.sampling_ratio, aligned=True)
            )
        return torch.cat(pooled)[torch.cat(places).argsort()]


class BoxHead(nn.Sequential):
    """Convolutions with BatchNorm on the pooled region, then hidden linear layers.

    Args:
        width: channels C of the pyramid and of the convolutions.
        size: side S of the pooled region.
        convs: number of 3x3 convolutions.
        hidden: outputs of each linear layer.
        linears: number of linear layers.
        start: draws the weights of a linear layer; Xavier uniform by default.
    """

    def __init__(
        self,
        width: int,
        size: int,
        convs: int,
        hidden: int,
        linears: int = 1,
        start: Callable[[Tensor], object] = nn.init.xavier_uniform_,
    ) -> None:
        layers: list[nn.Module] = [conv_norm_relu(width, width, 3) for _ in range(convs)]
        layers.append(nn.Flatten())
        for inputs in (width * size * size, *(hidden,) * (linears - 1)):
            linear = nn.Linear(inputs, hidden)
            start(linear.weight)
            nn.init.zeros_(linear.bias)
            layers += [linear, nn.ReLU(inplace=True)]
        super().__init__(*layers)


class BoxPredictor(nn.Module):
    """Class scores, background first, and one box per foreground class.

    Args:
        hidden: inputs.
        classes: number K of foreground classes.
        shared_box: whether the classes have one box in common.
    """

    def __init__(self, hidden: int, classes: int, *, shared_box: bool = False) -> None:
        super().__init__()
        self.copies = classes if shared_box else 1
        self.scores = nn.Linear(hidden, classes + 1)
        self.boxes = nn.Linear(hidden, 4 if shared_box else classes * 4)
        start_normal(self.scores, 0.01)
        start_normal(self.boxes, 0.001)

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Turn features (R, hidden) into logits (R, K + 1) and box offsets (R, 4 * (K + 1))."""
        offsets = in_float32(self.boxes(features)).repeat(1, self.copies)
        return in_float32(self.scores(features)), F.pad(offsets, (4, 0))


class MaskHead(nn.Sequential):
    """3x3 convolutions with bias and without norm.

    Args:
        width: channels C.
        convs: number of convolutions.
    """

    def __init__(self, width: int, convs: int) -> None:
        super().__init__(*(conv_relu(width, width, 3) for _ in range(convs)))


class MaskPredictor(nn.Module):
    """One mask of doubled side per foreground class.

    The weights of the masks start near zero, as in detectron2: He's start by the fan out makes them the larger, the
    fewer classes there are, and the first loss is 4 to 30 in place of ln 2.

    Args:
        width: channels C.
        classes: number K of foreground classes.
    """

    def __init__(self, width: int, classes: int) -> None:
        super().__init__()
        self.deconv = nn.ConvTranspose2d(width, width, kernel_size=2, stride=2)
        self.masks = nn.Conv2d(width, classes, 1)
        nn.init.kaiming_normal_(self.deconv.weight, mode="fan_out", nonlinearity="relu")
        if self.deconv.bias is not None:
            nn.init.zeros_(self.deconv.bias)
        start_normal(self.masks, 0.001)

    def forward(self, features: Tensor) -> Tensor:
        """Turn features (R, C, S, S) into mask logits (R, K + 1, 2S, 2S), the background's zero."""
        return F.pad(in_float32(self.masks(F.relu(self.deconv(features)))), (0, 0, 0, 0, 1, 0))
