"""ConvNeXt (Liu et al., CVPR 2022, arXiv:2201.03545), made of timm's own blocks under timm's own names.

Four stages at strides 4, 8, 16 and 32. For classification the last map is averaged, then normed, as published, and
returned as a map of a single cell; for dense prediction the four maps are returned as they are.

Shapes: B batch, C channels, H height, W width.
"""

from collections.abc import Sequence
from typing import Annotated, Any

from pydantic import Field
from timm.layers import LayerNorm, LayerNorm2d
from timm.models.convnext import ConvNeXtBlock
from torch import Tensor, nn

from nasmvt.families.axis import Axis
from nasmvt.families.layers import Classifier, MeanLinear
from nasmvt.families.published import publishes
from nasmvt.families.reference import State, rename
from nasmvt.families.registry import register
from nasmvt.families.stages import check_per_stage, choices_per_stage, per_stage
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
        layer_scale: starting value of the layer scales.
        pooled: return the last map alone, averaged and normed, for classification.
        drop_path: probability of dropping a residual branch in training.

    Raises:
        UserError: if the sequences are not of the same length.
    """

    def __init__(
        self,
        *,
        embed_dims: Sequence[int],
        mlp_ratios: Sequence[Sequence[float]],
        layer_scale: float = 1e-6,
        pooled: bool = False,
        drop_path: float = 0.0,
    ) -> None:
        super().__init__()
        check_per_stage("ConvNeXt", strides=STRIDES, embed_dims=embed_dims, mlp_ratios=mlp_ratios)
        self.pooled = pooled
        self.strides = STRIDES[-1:] if pooled else STRIDES
        self.widths = tuple(embed_dims[-1:] if pooled else embed_dims)
        self.stem = nn.Sequential(nn.Conv2d(3, embed_dims[0], 4, stride=4), LayerNorm2d(embed_dims[0]))
        self.stages = nn.ModuleList()
        inputs = embed_dims[0]
        for dim, ratios in zip(embed_dims, mlp_ratios, strict=True):
            shrinks = len(self.stages) > 0
            self.stages.append(Stage(inputs, dim, ratios, layer_scale, drop_path, shrinks))
            inputs = dim
        self.norm = LayerNorm(inputs) if pooled else nn.Identity()
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
        layer_scale: float,
        drop_path: float,
        shrinks: bool,
    ) -> None:
        super().__init__()
        halving = nn.Sequential(LayerNorm2d(inputs), nn.Conv2d(inputs, dim, 2, stride=2))
        self.downsample = halving if shrinks else nn.Identity()
        self.blocks = nn.Sequential(
            *(
                ConvNeXtBlock(dim, mlp_ratio=ratio, ls_init_value=layer_scale, drop_path=drop_path)
                for ratio in mlp_ratios
            )
        )

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
    """Convert the names of timm's ConvNeXt: only those of the head differ, whose norm is the backbone's here."""
    rules = [(r"head\.norm\.(\w+)", r"backbone.norm.\1"), (r"head\.fc\.(\w+)", r"head.fc.\1")]
    return rename(state, [*rules, (r"(.+)", r"backbone.\1")])


@register(
    "convnext",
    choices=choices_per_stage(embed_dim=Count, depth=Count, mlp_ratio=tuple[Ratio, ...]),
    blocks=r"backbone\.stages\.(\d+)\.blocks\.(\d+)",
    roles={f"backbone.stages.*.blocks.*.{layer}": Role.ADAPTIVE for layer in ("conv_dw", "mlp.fc1", "mlp.fc2")},
    convert=convert,
    axes=[
        Axis(
            modules="backbone.stages.*.blocks.*.mlp",
            tensors={"fc1.weight": 0, "fc1.bias": 0, "fc2.weight": 1},
            reader="fc2.weight",
        )
    ],
)
def build(
    arch: Arch,
    *,
    kind: str,
    image_size: tuple[int, int],
    layer_scale: Annotated[float, Field(gt=0)] = 1e-6,
    drop_path: Annotated[float, Field(ge=0, lt=1)] = 0.0,
) -> ConvNeXt:
    """Build the backbone of an arch for one kind of task: the normed mean for classification, else four maps.

    Nothing depends on `image_size`. `mlp_ratio1` to `mlp_ratio4` are chosen per block.
    """
    return ConvNeXt(
        embed_dims=per_stage(arch, "embed_dim"),
        mlp_ratios=per_stage(arch, "mlp_ratio"),
        layer_scale=layer_scale,
        pooled=kind == "classification",
        drop_path=drop_path,
    )


@publishes(
    {
        "convnext_tiny": {"embed_dims": (96, 192, 384, 768), "depths": (3, 3, 9, 3)},
        "convnext_small": {"embed_dims": (96, 192, 384, 768), "depths": (3, 3, 27, 3)},
        "convnext_base": {"embed_dims": (128, 256, 512, 1024), "depths": (3, 3, 27, 3)},
    },
    convert=convert,
)
def build_classifier(*, classes: int, embed_dims: Sequence[int], depths: Sequence[int], **sizes: Any) -> Classifier:
    """Build a published network; `depths` has the number of blocks of each stage."""
    sizes = {"mlp_ratios": [(4,) * depth for depth in depths], "pooled": True, **sizes}
    return Classifier(ConvNeXt(embed_dims=embed_dims, **sizes), MeanLinear(embed_dims[-1], classes))
