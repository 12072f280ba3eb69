"""MPViT, the backbone of "MPViT: Multi-Path Vision Transformer for Dense Prediction" (CVPR 2022, arXiv:2112.11010).

A convolutional stem, then four stages. A stage embeds its map several times in sequence (stacked 3x3 depthwise
convolutions: receptive fields 3, 5, 7), sends each embedding through a transformer path of its own and the first one
also through a convolutional local path, and aggregates all of them by a 1x1 convolution, which gives the width of the
next stage. Attention is factorised (CoaT's: linear in the number of tokens) and has two convolutional position
encodings, of the tokens (CPE) and of the values (CRPE), which are shared by all blocks of a path.

Differences in layout from the released code (https://github.com/youngwanLEE/MPViT), so that a leading slice is a
smaller network of the same kind:
- the rows of `qkv` lie (channel, q/k/v, head), the inputs of `proj` (channel, head), the filters of a CRPE convolution
  (channel, head of its group): the first channels of every head, for the number of heads is fixed;
- the aggregation has one weight per path, local path first, instead of one for their concatenation;
- the position encodings appear once, in their path, and not again in each of its blocks.

Shapes: B batch, N tokens, C channels, H height and W width in tokens, h heads, c channels of a head.
"""

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Annotated, Any

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field
from timm.layers import DropPath, Mlp
from torch import Tensor, nn

from nasmvt.errors import UserError
from nasmvt.families.layers import Classifier, MeanLinear, start_linear, to_map, to_tokens
from nasmvt.families.mpvit_reference import convert
from nasmvt.families.published import publishes
from nasmvt.families.registry import RECOMPUTING, register
from nasmvt.families.rounding import Width, multiple
from nasmvt.families.stages import STAGES, check_per_stage, choices_per_stage, per_stage
from nasmvt.space import Arch, Role

Count = Annotated[int, Field(ge=1)]
Ratio = Annotated[float, Field(ge=0.125)]

CRPE_KERNELS = (3, 5, 7)
"""Sides of the kernels of the relative position encoding, one per group of heads."""


class MPViT(nn.Module):
    """The plain network; every size of a stage has one entry per stage.

    Args:
        embed_dims: channels inside a stage, a multiple of its heads; its output has those of the next stage.
        depths: transformer blocks of each path.
        num_paths: transformer paths; the local path comes in addition.
        num_heads: attention heads.
        mlp_ratios: hidden width of the MLP over the stage's channels.
        drop_path: probability of dropping a residual branch in training: rises linearly from 0 in the first block to
            this in the last; the paths of a stage have the same.
        norm_eps: epsilon of every LayerNorm.
        round_to: widths that are derived from others are the nearest multiples of it; 1: without their fractions.

    Attributes:
        strides: pixels per cell of each stage's map: 4, 8, 16, 32.
        widths: channels of each stage's map.

    Raises:
        UserError: if sizes differ in their number of stages, or heads do not divide the channels.
    """

    trains_channels_last = True

    def __init__(
        self,
        *,
        embed_dims: Sequence[int],
        depths: Sequence[int],
        num_paths: Sequence[int] = (2, 3, 3, 3),
        num_heads: Sequence[int] = (8, 8, 8, 8),
        mlp_ratios: Sequence[float] = (4, 4, 4, 4),
        drop_path: float = 0.0,
        norm_eps: float = 1e-6,
        round_to: int = 1,
    ) -> None:
        super().__init__()
        check_per_stage(
            "MPViT",
            embed_dims=embed_dims,
            depths=depths,
            num_paths=num_paths,
            num_heads=num_heads,
            mlp_ratios=mlp_ratios,
        )
        for stage, (dim, heads) in enumerate(zip(embed_dims, num_heads, strict=True), 1):
            if dim % heads:
                raise UserError(
                    f"the width of a stage of MPViT must be a multiple of its heads, but stage {stage} has {dim} "
                    f"channels and {heads} heads: change one of them"
                )
        self.strides = tuple(4 * 2**stage for stage in range(len(embed_dims)))
        self.widths = (*embed_dims[1:], embed_dims[-1])
        half = multiple(embed_dims[0] / 2, round_to)
        self.stem = nn.Sequential(ConvBn(3, half, 3, stride=2), ConvBn(half, embed_dims[0], 3, stride=2))
        rates = np.linspace(0, drop_path, sum(depths)).tolist()
        ends = np.cumsum([0, *depths]).tolist()
        self.stages = nn.ModuleList(
            Stage(
                dim,
                width,
                stride=2 if stage else 1,
                num_paths=num_paths[stage],
                num_heads=num_heads[stage],
                hidden=multiple(mlp_ratios[stage] * dim, round_to),
                drop_path=rates[first:last],
                norm_eps=norm_eps,
            )
            for stage, (dim, width, (first, last)) in enumerate(
                zip(embed_dims, self.widths, pairwise(ends), strict=True)
            )
        )
        self.apply(start_linear)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Map images (B, 3, H', W') to the maps (B, C, H, W) of the stages."""
        x = self.stem(images)
        maps = []
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
        return tuple(maps)


class ConvBn(nn.Sequential):
    """A convolution without bias, BatchNorm and, unless `act` is false, Hardswish, on a map (B, C, H, W)."""

    def __init__(
        self, inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1, act: bool = True
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2, groups=groups, bias=False)
        self.bn = nn.BatchNorm2d(outputs)
        if act:
            self.act = nn.Hardswish()
        nn.init.normal_(self.conv.weight, std=math.sqrt(2 / (kernel**2 * outputs // groups)))


class PatchEmbed(nn.Sequential):
    """A separable 3x3 convolution: (B, C, H, W) to (B, C, ceil(H / stride), ceil(W / stride))."""

    def __init__(self, dim: int, stride: int) -> None:
        super().__init__()
        self.dwconv = nn.Conv2d(dim, dim, 3, stride, padding=1, groups=dim, bias=False)
        self.pwconv = ConvBn(dim, dim, 1)
        nn.init.normal_(self.dwconv.weight, std=math.sqrt(2 / (9 * dim)))


class Stage(nn.Module):
    """Embeddings, the local path, a transformer path per embedding, and their aggregation, on a map."""

    def __init__(
        self,
        dim: int,
        width: int,
        *,
        stride: int,
        num_paths: int,
        num_heads: int,
        hidden: int,
        drop_path: Sequence[float],
        norm_eps: float,
    ) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.embeds = nn.ModuleList(PatchEmbed(dim, 1 if path else stride) for path in range(num_paths))
        self.local = LocalPath(dim)
        self.paths = nn.ModuleList(
            TransformerPath(dim, num_heads, hidden, drop_path, norm_eps) for _ in range(num_paths)
        )
        self.aggregate = Aggregation(dim, width, num_paths + 1)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, dim, H', W') to (B, width, H, W)."""
        maps: list[Tensor] = []
        for embed, path in zip(self.embeds, self.paths, strict=True):
            x = embed(x)
            if not maps:
                maps.append(self.local(x))
            maps.append(path(x))
        return self.aggregate(maps)


class LocalPath(nn.Module):
    """A residual bottleneck of 1x1, depthwise 3x3 and 1x1 convolutions, on a map (B, C, H, W)."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.conv1 = ConvBn(dim, dim, 1)
        self.dwconv = ConvBn(dim, dim, 3, groups=dim)
        self.conv2 = ConvBn(dim, dim, 1, act=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to (B, C, H, W)."""
        return x + self.conv2(self.dwconv(self.conv1(x)))


class Aggregation(nn.Module):
    """A 1x1 convolution of the concatenated maps of all paths, as a sum over paths; then BatchNorm and Hardswish."""

    def __init__(self, dim: int, width: int, num_maps: int) -> None:
        super().__init__()
        convs = [nn.Conv2d(dim, width, 1, bias=False) for _ in range(num_maps)]
        for conv in convs:
            nn.init.normal_(conv.weight, std=math.sqrt(2 / width))
        self.convs = nn.ModuleList(convs)
        self.bn = nn.BatchNorm2d(width)
        self.act = nn.Hardswish()

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Map one (B, dim, H, W) per path to (B, width, H, W)."""
        return self.act(self.bn(sum(conv(x) for conv, x in zip(self.convs, maps, strict=True))))


class TransformerPath(nn.Module):
    """Blocks of attention and MLP, each after the CPE that they share, on a map (B, C, H, W)."""

    def __init__(
        self,
        dim: int,
        num_heads: int,
        hidden: int,
        drop_path: Sequence[float],
        norm_eps: float,
    ) -> None:
        super().__init__()
        self.cpe = nn.Conv2d(dim, dim, 3, padding=1, groups=dim)
        self.crpe = RelativePosition(dim // num_heads, num_heads)
        self.blocks = nn.ModuleList(Block(dim, num_heads, hidden, rate, norm_eps) for rate in drop_path)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to (B, C, H, W)."""
        size = x.shape[-2:]
        x = to_tokens(x).contiguous()
        for block in self.blocks:
            x = self._step(block, x, size)
        return to_map(x, size)

    def _step(self, block: nn.Module, x: Tensor, size: Sequence[int]) -> Tensor:
        x = x + to_tokens(self.cpe(to_map(x, size)))
        return block(x, size, self.crpe)


class Block(nn.Module):
    """Attention and MLP on tokens (B, N, C)."""

    def __init__(self, dim: int, num_heads: int, hidden: int, drop_path: float, norm_eps: float) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=norm_eps)
        self.attn = Attention(dim, num_heads)
        self.norm2 = nn.LayerNorm(dim, eps=norm_eps)
        self.mlp = Mlp(dim, hidden)
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor, size: Sequence[int], crpe: nn.Module) -> Tensor:
        """Map tokens (B, N, C) of a map of `size` (H, W) to (B, N, C), with the relative position encoding given."""
        x = x + self.drop_path(self.attn(self.norm1(x), size, crpe))
        return x + self.drop_path(self.mlp(self.norm2(x)))


class Attention(nn.Module):
    """Factorised multi-head attention: scale * Q (softmax over tokens of K)^T V + Q * CRPE(V)."""

    def __init__(self, dim: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.scale = (dim // num_heads) ** -0.5
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor, size: Sequence[int], crpe: nn.Module) -> Tensor:
        """Map tokens (B, N, C) of a map of `size` (H, W) to (B, N, C), with the relative position encoding given."""
        b, n, _ = x.shape
        h = self.num_heads
        weight, bias = _head_major(self.qkv.weight, (3, h)), _head_major(self.qkv.bias, (3, h))
        q, k, v = F.linear(x, weight, bias).view(b, n, 3, h, -1).permute(2, 0, 3, 1, 4)
        context = k.softmax(dim=-2).transpose(-2, -1) @ v * self.scale  # (B, h, c of K, c of V)
        y = torch.addcmul(q @ context, q, crpe(v, size))
        weight = _head_major(self.proj.weight, (h,), dim=1)
        return F.linear(y.transpose(1, 2).reshape(b, n, -1), weight, self.proj.bias)


class RelativePosition(nn.Module):
    """The CRPE: depthwise convolutions of the values, with a different kernel for each group of heads.

    Eight heads are divided into 2, 3 and 3, of the kernels 3, 5 and 7; other numbers in that proportion.

    Args:
        head_dim: channels c of a head.
        num_heads: number of heads h.
    """

    def __init__(self, head_dim: int, num_heads: int) -> None:
        super().__init__()
        ends = (0, math.ceil(num_heads / 4), math.ceil(5 * num_heads / 8), num_heads)
        self.groups = [last - first for first, last in pairwise(ends) if last > first]
        self.channels = [heads * head_dim for heads in self.groups]
        self.convs = nn.ModuleList(
            nn.Conv2d(width, width, kernel, padding=kernel // 2, groups=width)
            for width, kernel in zip(self.channels, CRPE_KERNELS, strict=False)  # few heads have fewer groups
        )

    def forward(self, v_BhNc: Tensor, size: Sequence[int]) -> Tensor:
        """Map the values (B, h, N, c) of a map of `size` (H, W) to (B, h, N, c)."""
        maps = v_BhNc.transpose(-2, -1).reshape(v_BhNc.shape[0], -1, *size).split(self.channels, dim=1)
        groups = zip(maps, self.convs, self.groups, strict=True)
        y = torch.cat([_head_major_conv(part, conv, heads) for part, conv, heads in groups], dim=1)
        return y.view(v_BhNc.mT.shape).mT


def _head_major_conv(x: Tensor, conv: nn.Module, heads: int) -> Tensor:
    """Convolve a map whose channels lie (head, channel) with depthwise filters that lie (channel, head)."""
    assert isinstance(conv, nn.Conv2d)
    assert conv.bias is not None
    weight, bias = _head_major(conv.weight, (heads,)), _head_major(conv.bias, (heads,))
    return F.conv2d(x, weight, bias, padding=conv.kernel_size[0] // 2, groups=x.shape[1])


def _head_major(parameter: Tensor, sizes: tuple[int, ...], dim: int = 0) -> Tensor:
    """Reorder a dimension that enumerates (channel, *sizes) to (*sizes, channel).

    The attention reorders its parameters, as stored for leading slices, and not the larger activations.
    """
    last = dim + len(sizes)
    return parameter.unflatten(dim, (-1, *sizes)).movedim(dim, last).flatten(dim, last)


@register(
    "mpvit",
    choices=choices_per_stage(embed_dim=Width, depth=Count, num_paths=Count, mlp_ratio=Ratio),
    blocks=r"backbone\.stages\.(\d+)\.paths\.\d+\.blocks\.(\d+)",
    roles={
        f"backbone.stages.*.paths.*.blocks.*.{layer}": Role.ADAPTIVE
        for layer in ("attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2")
    },
    convert=convert,
    retired=RECOMPUTING,
)
def build(
    arch: Arch,
    *,
    kind: str,
    image_size: tuple[int, int],
    num_heads: Count = 8,
    drop_path: Annotated[float, Field(ge=0, lt=1)] = 0.1,
    norm_eps: Annotated[float, Field(gt=0)] = 1e-6,
    round_to: Count = 1,
) -> MPViT:
    """Build the backbone of an arch: the same for every kind of task and size of image.

    The width of a stage is a multiple of `num_heads`, which is the same in all stages.
    """
    return MPViT(
        embed_dims=[multiple(dim, round_to) for dim in per_stage(arch, "embed_dim")],
        depths=per_stage(arch, "depth"),
        num_paths=per_stage(arch, "num_paths"),
        num_heads=[num_heads] * STAGES,
        mlp_ratios=per_stage(arch, "mlp_ratio"),
        drop_path=drop_path,
        norm_eps=norm_eps,
        round_to=round_to,
    )


@publishes(
    {
        "mpvit_tiny": {"embed_dims": (64, 96, 176, 216), "depths": (1, 2, 4, 1), "mlp_ratios": (2, 2, 2, 2)},
        "mpvit_xsmall": {"embed_dims": (64, 128, 192, 256), "depths": (1, 2, 4, 1)},
        "mpvit_small": {"embed_dims": (64, 128, 216, 288), "depths": (1, 3, 6, 3)},
        "mpvit_base": {"embed_dims": (128, 224, 368, 480), "depths": (1, 3, 8, 3)},
    },
    convert=convert,
)
def build_classifier(*, classes: int, **sizes: Any) -> Classifier:
    """Build a classifier: `MPViT(**sizes)` and a linear layer on the mean of the last map."""
    backbone = MPViT(**sizes)
    return Classifier(backbone, MeanLinear(backbone.widths[-1], classes))
