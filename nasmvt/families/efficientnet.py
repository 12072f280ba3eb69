"""EfficientNet and its Lite variants, made of timm's own blocks under timm's own names.

Tan and Le, ICML 2019 (arXiv:1905.11946). A stem, a stage of depthwise separable blocks (stage 0), then six stages of
inverted residual blocks, whose depth, expansion and kernel sizes are those that once-for-all varies (Cai et al., ICLR
2020, arXiv:1908.09791). For classification a 1x1 convolution widens the last map, as published.

Kernels of 3 are the middle of those of 5 and 7. Nothing depends on the size of the images. Maps lie channels last in
memory, which takes a third off the time of depthwise convolutions on a CPU.

Shapes: B batch, C channels, H height, W width.
"""

from collections.abc import Sequence
from functools import partial
from math import lcm
from typing import Annotated, Any, Literal

from pydantic import Field
from timm.layers import (
    BatchNormAct2d,
    Conv2dSame,
    DropPath,
    HardSwish,
    SelectAdaptivePool2d,
    Sigmoid,
    Swish,
    get_norm_act_layer,
)
from timm.layers.create_conv2d import create_conv2d
from timm.models import efficientnet as timm_efficientnet
from timm.models._efficientnet_blocks import DepthwiseSeparableConv, InvertedResidual, SqueezeExcite
from torch import Tensor, nn

from nasmvt.errors import UserError, listed
from nasmvt.families.axis import Axis
from nasmvt.families.layers import Classifier, MeanLinear
from nasmvt.families.published import reads
from nasmvt.families.reference import State, rename
from nasmvt.families.registry import register
from nasmvt.families.rounding import multiple
from nasmvt.families.timm_networks import check_layers, one_of, refused
from nasmvt.space import Arch, Role

Count = Annotated[int, Field(ge=1)]
Activation = Literal["relu", "relu6", "swish", "hard_swish"]

STAGE_STRIDES = (1, 2, 2, 2, 1, 2, 1)
"""Strides of the stages; that of the stem is 2."""

MAP_STAGES = (1, 2, 4, 6)
"""The last stage at each of the strides 4, 8, 16 and 32."""

STAGES = len(STAGE_STRIDES) - 1
"""Stages of a network that a space may vary, 1 to 6."""

PerStage = Annotated[Sequence[Count], Field(min_length=STAGES + 1, max_length=STAGES + 1)]


class EfficientNet(nn.Module):
    """The plain network.

    Args:
        widths: channels of stages 0 to 6.
        expansions: for each of these stages, one entry per block: inner width over the width of the block's input; 1
            makes a depthwise separable block, which has no expansion.
        kernel_sizes: for each stage, one entry per block: side of the depthwise convolution, odd.
        stem_width: channels of the stem.
        head_width: channels of the last map, widened for classification; None: the maps at strides 4 to 32.
        se_ratio: width of the squeeze and excitation over that of a block's input; 0: there is none.
        act: activation.
        same_padding: pad as TensorFlow does (more on the right and below), not alike on both sides.
        norm_eps: epsilon of BatchNorm.
        drop_path: probability of dropping a residual branch in training.
        round_to: widths that are derived from others are the nearest multiples of it; 1: without their fractions.

    Raises:
        UserError: if the sequences do not give one entry per stage, and the same number of blocks.
    """

    channels_last = True

    def __init__(
        self,
        *,
        widths: Sequence[int],
        expansions: Sequence[Sequence[float]],
        kernel_sizes: Sequence[Sequence[int]],
        stem_width: int = 32,
        head_width: int | None = None,
        se_ratio: float = 0.0,
        act: str = "relu6",
        same_padding: bool = False,
        norm_eps: float = 1e-5,
        drop_path: float = 0.0,
        round_to: int = 1,
    ) -> None:
        super().__init__()
        blocks = [len(stage) for stage in expansions]
        if len(widths) != len(STAGE_STRIDES) or [len(stage) for stage in kernel_sizes] != blocks:
            raise UserError(
                f"EfficientNet needs {len(STAGE_STRIDES)} stages and a kernel size for each expansion, but got "
                f"{len(widths)} widths, {blocks} expansions and {[len(s) for s in kernel_sizes]} kernel sizes: fix them"
            )
        padding = "same" if same_padding else ""
        norm = partial(nn.BatchNorm2d, eps=norm_eps)
        norm_act = get_norm_act_layer(norm, act)
        self.conv_stem = create_conv2d(3, stem_width, 3, stride=2, padding=padding)
        self.bn1 = norm_act(stem_width, inplace=True)
        self.blocks = nn.ModuleList()
        inputs = stem_width
        for width, stride, ratios, sides in zip(widths, STAGE_STRIDES, expansions, kernel_sizes, strict=True):
            stage = nn.Sequential()
            for ratio, side in zip(ratios, sides, strict=True):
                settings: dict[str, Any] = {
                    "dw_kernel_size": side,
                    "stride": 1 if len(stage) else stride,
                    "pad_type": padding,
                    "act_layer": act,
                    "norm_layer": norm,
                    "se_layer": partial(SqueezeExcite, rd_channels=round(inputs * se_ratio)) if se_ratio else None,
                    "drop_path_rate": drop_path,
                }
                if 8 % round_to and ratio != 1:  # timm's block rounds to multiples of 8 in any case
                    ratio = multiple(inputs * ratio, lcm(round_to, 8)) / inputs
                stage.append(
                    DepthwiseSeparableConv(inputs, width, **settings)
                    if ratio == 1
                    else InvertedResidual(inputs, width, exp_ratio=ratio, **settings)
                )
                inputs = width
            self.blocks.append(stage)
        self.map_stages = MAP_STAGES if head_width is None else MAP_STAGES[-1:]
        self.strides = (4, 8, 16, 32) if head_width is None else (32,)
        self.widths = tuple(widths[stage] for stage in MAP_STAGES) if head_width is None else (head_width,)
        self.conv_head = nn.Identity() if head_width is None else create_conv2d(inputs, head_width, 1)
        self.bn2 = nn.Identity() if head_width is None else norm_act(head_width, inplace=True)
        self.apply(_init_weights)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Map images (B, 3, H', W') to maps (B, C, H, W) at strides 4 to 32, or to the widened one at stride 32."""
        x = self.bn1(self.conv_stem(images))
        maps = []
        for index, stage in enumerate(self.blocks):
            x = stage(x)
            if index in self.map_stages:
                maps.append(x)
        maps[-1] = self.bn2(self.conv_head(x))
        return tuple(maps)


def _init_weights(module: nn.Module) -> None:
    if isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def convert(state: State, network: nn.Module) -> dict[str, Tensor]:
    """Convert the names of timm's EfficientNet: only the classifier's differ."""
    return rename(state, [(r"classifier\.(\w+)", r"head.fc.\1"), (r"(.+)", r"backbone.\1")])


@register(
    "efficientnet",
    choices={
        f"{name}{stage}": kind
        for stage in range(1, STAGES + 1)
        for name, kind in {
            "depth": Count,
            "expansion": tuple[Annotated[float, Field(gt=1)], ...],
            "kernel_size": tuple[Literal[3, 5, 7], ...],
        }.items()
    },
    blocks=r"backbone\.blocks\.(\d+)\.(\d+)",
    roles={
        f"backbone.blocks.*.*.{layer}": Role.ADAPTIVE
        for layer in ("conv_pw", "conv_dw", "conv_pwl", "se.conv_reduce", "se.conv_expand")
    },
    convert=convert,
    centred={"backbone.blocks.*.*.conv_dw.weight": (2, 3)},
    axes=[
        Axis(
            modules="backbone.blocks.*.*",
            tensors={
                "conv_pw.weight": 0,
                "conv_dw.weight": 0,
                **{
                    f"{norm}.{leaf}": 0
                    for norm in ("bn1", "bn2")
                    for leaf in ("weight", "bias", "running_mean", "running_var")
                },
                "se.conv_reduce.weight": 1,
                "se.conv_expand.weight": 0,
                "se.conv_expand.bias": 0,
                "conv_pwl.weight": 1,
            },
            reader="conv_pwl.weight",
            spread="bn2",
            gain="bn3",
        )
    ],
)
def build(
    arch: Arch,
    *,
    kind: str,
    image_size: tuple[int, int],
    widths: PerStage = (16, 24, 40, 80, 112, 192, 320),
    depth0: Count = 1,
    stem_width: Count = 32,
    head_width: Count = 1280,
    se_ratio: Annotated[float, Field(ge=0, le=1)] = 0.0,
    act: Activation = "relu6",
    same_padding: bool = False,
    norm_eps: Annotated[float, Field(gt=0)] = 1e-5,
    drop_path: Annotated[float, Field(ge=0, lt=1)] = 0.0,
    round_to: Count = 1,
) -> EfficientNet:
    """Build the backbone of an arch for one kind of task: the widened last map for classification, else four maps.

    Nothing depends on `image_size`. `depth0` is the number of blocks of stage 0, which does not vary.
    """
    stages = range(1, STAGES + 1)
    return EfficientNet(
        widths=widths,
        expansions=[(1,) * depth0, *(arch[f"expansion{stage}"] for stage in stages)],  # type: ignore[list-item]
        kernel_sizes=[(3,) * depth0, *(arch[f"kernel_size{stage}"] for stage in stages)],  # type: ignore[list-item]
        stem_width=stem_width,
        head_width=head_width if kind == "classification" else None,
        se_ratio=se_ratio,
        act=act,
        same_padding=same_padding,
        norm_eps=norm_eps,
        drop_path=drop_path,
        round_to=round_to,
    )


_ACTIVATIONS: dict[type[nn.Module], Activation] = {
    nn.ReLU: "relu",
    nn.ReLU6: "relu6",
    nn.SiLU: "swish",
    Swish: "swish",
    nn.Hardswish: "hard_swish",
    HardSwish: "hard_swish",
}
_LAYERS = {
    *(timm_efficientnet.EfficientNet, DepthwiseSeparableConv, InvertedResidual, SqueezeExcite, BatchNormAct2d),
    *(nn.Conv2d, Conv2dSame, nn.Linear, nn.Sigmoid, Sigmoid, DropPath, *_ACTIVATIONS),
    *(SelectAdaptivePool2d, nn.AdaptiveAvgPool2d, nn.Flatten),
}


def _read(name: str, network: Any) -> dict[str, Any]:
    """Return the sizes of one of timm's networks."""
    check_layers(name, network, _LAYERS)
    stages = [list(stage) for stage in network.blocks]
    strides = tuple(max(stage[0].conv_dw.stride) for stage in stages)
    separable = [all(type(block) is DepthwiseSeparableConv for block in stage) for stage in stages]
    both = list(zip(stages, separable, strict=True))
    if strides != STAGE_STRIDES or separable != [index == 0 for index in range(len(stages))]:
        raise refused(name, f"stages of the strides {listed(strides)}, or separable blocks in others than the first")
    every = [block for stage in stages for block in stage]
    norms = [module for module in network.modules() if isinstance(module, BatchNormAct2d)]
    acts = [norm.act for norm in norms if not isinstance(norm.act, nn.Identity)]
    acts += [block.se.act1 for block in every if isinstance(block.se, SqueezeExcite)]
    squeezed = stages[0][0].se
    return {
        "widths": tuple((stage[-1].conv_pw if first else stage[-1].conv_pwl).out_channels for stage, first in both),
        "expansions": [(1,) * len(stages[0])]
        + [tuple(b.conv_pw.out_channels / b.conv_pw.in_channels for b in stage) for stage in stages[1:]],
        "kernel_sizes": [tuple(b.conv_dw.kernel_size[0] for b in stage) for stage in stages],
        "stem_width": network.conv_stem.out_channels,
        "head_width": network.num_features,
        "se_ratio": squeezed.conv_reduce.out_channels / network.conv_stem.out_channels
        if isinstance(squeezed, SqueezeExcite)
        else 0.0,
        "act": one_of(name, "activation", (_ACTIVATIONS[type(act)] for act in acts)),
        "same_padding": isinstance(network.conv_stem, Conv2dSame),
        "norm_eps": one_of(name, "epsilon", (norm.eps for norm in norms)),
    }


@reads(timm_efficientnet.EfficientNet, read=_read, convert=convert)
def build_classifier(*, classes: int, head_width: int, **sizes: Any) -> Classifier:
    """Build a published network."""
    return Classifier(EfficientNet(head_width=head_width, **sizes), MeanLinear(head_width, classes))
