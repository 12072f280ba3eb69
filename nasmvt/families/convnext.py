"""ConvNeXt (Liu et al., CVPR 2022, arXiv:2201.03545), made of timm's own blocks under timm's own names.

And its second version, with global response norm (Woo et al., CVPR 2023, arXiv:2301.00808).

Four stages at strides 4, 8, 16 and 32. For classification the last map is averaged, then normed, as published, and
returned as a map of a single cell; for dense prediction the four maps are returned as they are.

Shapes: B batch, C channels, H height, W width.
"""

import re
from collections.abc import Callable, Sequence
from functools import partial
from typing import Annotated, Any

from pydantic import Field
from timm.layers import (
    GELU,
    GlobalResponseNormMlp,
    LayerNorm,
    LayerNorm2d,
    Mlp,
    NormMlpClassifierHead,
    SelectAdaptivePool2d,
)
from timm.layers.grn import GlobalResponseNorm
from timm.models import convnext as timm_convnext
from timm.models.convnext import ConvNeXtBlock
from torch import Tensor, nn

from nasmvt.families.axis import Axis
from nasmvt.families.layers import Classifier, MeanLinear
from nasmvt.families.published import reads
from nasmvt.families.reference import State, rename
from nasmvt.families.registry import register
from nasmvt.families.rounding import Width, multiple
from nasmvt.families.stages import check_per_stage, choices_per_stage, per_stage
from nasmvt.families.timm_networks import check_layers, one_of, refused
from nasmvt.space import Arch, Role

Count = Annotated[int, Field(ge=1)]
Ratio = Annotated[float, Field(gt=0)]

STRIDES = (4, 8, 16, 32)
"""Pixels per cell of the map of each stage."""


class ConvNeXt(nn.Module):
    """The plain network. Sequences have one entry per stage.

    Args:
        embed_dims: channels of the map.
        mlp_ratios: for each stage, one entry per block: hidden width of the MLP over that of the map.
        layer_scale: starting value of the layer scales; None: there are none.
        response_norm: whether the hidden units of the MLPs are normed by their response over the whole map (V2).
        norm_eps: epsilon of every LayerNorm.
        pooled: return the last map alone, averaged and normed, for classification.
        drop_path: probability of dropping a residual branch in training.
        round_to: widths that are derived from others are the nearest multiples of it; 1: without their fractions.

    Raises:
        UserError: if the sequences are not of the same length.
    """

    def __init__(
        self,
        *,
        embed_dims: Sequence[int],
        mlp_ratios: Sequence[Sequence[float]],
        layer_scale: float | None = 1e-6,
        response_norm: bool = False,
        norm_eps: float = 1e-6,
        pooled: bool = False,
        drop_path: float = 0.0,
        round_to: int = 1,
    ) -> None:
        super().__init__()
        check_per_stage("ConvNeXt", strides=STRIDES, embed_dims=embed_dims, mlp_ratios=mlp_ratios)
        self.pooled = pooled
        self.strides = STRIDES[-1:] if pooled else STRIDES
        self.widths = tuple(embed_dims[-1:] if pooled else embed_dims)
        self.stem = nn.Sequential(nn.Conv2d(3, embed_dims[0], 4, stride=4), LayerNorm2d(embed_dims[0], eps=norm_eps))
        self.stages = nn.ModuleList()
        inputs = embed_dims[0]
        for dim, ratios in zip(embed_dims, mlp_ratios, strict=True):
            shrinks = len(self.stages) > 0
            block = partial(
                ConvNeXtBlock,
                ls_init_value=layer_scale,
                use_grn=response_norm,
                norm_layer=partial(LayerNorm, eps=norm_eps),
                drop_path=drop_path,
            )
            if round_to > 1:  # timm's block has int(ratio * dim) hidden units: half a unit more survives its rounding
                ratios = [(multiple(ratio * dim, round_to) + 0.5) / dim for ratio in ratios]
            self.stages.append(Stage(inputs, dim, ratios, block, norm_eps, shrinks))
            inputs = dim
        self.norm = LayerNorm(inputs, eps=norm_eps) if pooled else nn.Identity()
        self.apply(_init_weights)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Map images (B, 3, H', W') to four maps (B, C, H, W), or to the normed mean (B, C, 1, 1)."""
        x = self.stem(images)
        maps = []
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
        return (self.norm(x.mean((2, 3)))[:, :, None, None],) if self.pooled else tuple(maps)


class Stage(nn.Module):
    """A convolution that halves the map, but in the first stage, and blocks: (B, C', H', W') to (B, C, H, W)."""

    def __init__(
        self,
        inputs: int,
        dim: int,
        mlp_ratios: Sequence[float],
        block: Callable[..., nn.Module],
        norm_eps: float,
        shrinks: bool,
    ) -> None:
        super().__init__()
        halving = nn.Sequential(LayerNorm2d(inputs, eps=norm_eps), nn.Conv2d(inputs, dim, 2, stride=2))
        self.downsample = halving if shrinks else nn.Identity()
        self.blocks = nn.Sequential(*(block(dim, mlp_ratio=ratio) for ratio in mlp_ratios))

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Map (B, C', H', W') to (B, C, H, W)."""
        x: Tensor = self.blocks(self.downsample(x_BCHW))
        return x


def _init_weights(module: nn.Module) -> None:
    if isinstance(module, (nn.Conv2d, nn.Linear)):
        nn.init.trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def convert(state: State, network: nn.Module) -> dict[str, Tensor]:
    """Convert the names of timm's ConvNeXt: only those of the head differ, whose norm is the backbone's here.

    MLPs that timm has as convolutions of 1x1 are linear layers here.
    """
    rules = [(r"head\.norm\.(\w+)", r"backbone.norm.\1"), (r"head\.fc\.(\w+)", r"head.fc.\1")]
    tensors = rename(state, [*rules, (r"(.+)", r"backbone.\1")])
    return {
        name: tensor.flatten(1) if re.search(r"\.mlp\.fc\d\.weight$", name) else tensor
        for name, tensor in tensors.items()
    }


@register(
    "convnext",
    choices=choices_per_stage(embed_dim=Width, depth=Count, mlp_ratio=tuple[Ratio, ...]),
    blocks=r"backbone\.stages\.(\d+)\.blocks\.(\d+)",
    roles={f"backbone.stages.*.blocks.*.{layer}": Role.ADAPTIVE for layer in ("conv_dw", "mlp.fc1", "mlp.fc2")},
    convert=convert,
    axes=[
        Axis(
            modules="backbone.stages.*.blocks.*.mlp",
            tensors={"fc1.weight": 0, "fc1.bias": 0, "grn.weight": 0, "grn.bias": 0, "fc2.weight": 1},
            reader="fc2.weight",
        )
    ],
    widths=[f"embed_dim{stage}" for stage in range(1, 5)],
)
def build(
    arch: Arch,
    *,
    kind: str,
    image_size: tuple[int, int],
    layer_scale: Annotated[float, Field(gt=0)] | None = 1e-6,
    response_norm: bool = False,
    norm_eps: Annotated[float, Field(gt=0)] = 1e-6,
    drop_path: Annotated[float, Field(ge=0, lt=1)] = 0.0,
    round_to: Count = 1,
) -> ConvNeXt:
    """Build the backbone of an arch for one kind of task: the normed mean for classification, else four maps.

    Nothing depends on `image_size`. `mlp_ratio1` to `mlp_ratio4` are chosen per block.
    """
    return ConvNeXt(
        embed_dims=[multiple(dim, round_to) for dim in per_stage(arch, "embed_dim")],
        mlp_ratios=per_stage(arch, "mlp_ratio"),
        layer_scale=layer_scale,
        response_norm=response_norm,
        norm_eps=norm_eps,
        pooled=kind == "classification",
        drop_path=drop_path,
        round_to=round_to,
    )


_LAYERS = {
    *(timm_convnext.ConvNeXt, timm_convnext.ConvNeXtStage, ConvNeXtBlock, NormMlpClassifierHead),
    *(Mlp, GlobalResponseNormMlp, GlobalResponseNorm, LayerNorm, LayerNorm2d, nn.Conv2d, nn.Linear, nn.GELU, GELU),
    *(SelectAdaptivePool2d, nn.AdaptiveAvgPool2d, nn.Flatten),
}


def _read(name: str, network: Any) -> dict[str, Any]:
    """Return the sizes of one of timm's networks."""
    check_layers(name, network, _LAYERS)
    for differs, what in (
        (len(network.stem) != 2, "patches that overlap"),
        (not isinstance(network.head.pre_logits, nn.Identity), "hidden units in its classifier"),
        (network.head.global_pool.pool_type != "avg", "a classifier of other things than the mean"),
    ):
        if differs:
            raise refused(name, what)
    blocks = [list(stage.blocks) for stage in network.stages]
    every = [block for stage in blocks for block in stage]
    norms = (module.eps for module in network.modules() if isinstance(module, nn.LayerNorm))
    return {
        "embed_dims": tuple(stage[0].conv_dw.out_channels for stage in blocks),
        "mlp_ratios": [tuple(len(b.mlp.fc1.bias) / b.conv_dw.out_channels for b in stage) for stage in blocks],
        "layer_scale": one_of(name, "layer scale", (None if b.gamma is None else 1e-6 for b in every)),
        "response_norm": one_of(name, "response norm", (isinstance(b.mlp, GlobalResponseNormMlp) for b in every)),
        "norm_eps": one_of(name, "epsilon", norms),
    }


@reads(timm_convnext.ConvNeXt, read=_read, convert=convert)
def build_classifier(*, classes: int, embed_dims: Sequence[int], **sizes: Any) -> Classifier:
    """Build a published network."""
    return Classifier(ConvNeXt(embed_dims=embed_dims, **{"pooled": True, **sizes}), MeanLinear(embed_dims[-1], classes))
