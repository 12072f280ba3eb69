"""ViTAEv2, the backbone of "ViTAEv2: Vision Transformer Advanced by Exploring Inductive Bias" (IJCV 2023).

Four stages, each of a reduction cell and normal cells. The reduction cell lowers the resolution with a pyramid of
dilated convolutions (PRM), whose concatenated outputs attend to each other; a normal cell is a transformer block.
Beside the attention of both runs a branch of three convolutions (PCM). Stages 1 and 2 attend in windows, 3 and 4
globally. The cells are in `vitae_v2_cells.py`.

Differences from the released code: the rows of a normal cell's `qkv` are (head, q/k/v, channel), those of a reduction
cell's (head, channel, q/k/v), and the channels of the pyramid are (channel, dilation), so that a leading slice is a
network with fewer heads or channels. The drop-path rates rise over the whole depth (in the released code each stage
starts at a wrong index). A map that a reduction does not divide is padded right and below (the released code refuses
it). The layer scales that the released code has as an option, off by default, are left out.

Shapes: B batch, C channels, H height, W width.
"""

from collections.abc import Sequence
from typing import Annotated, Any

import numpy as np
from pydantic import Field
from torch import Tensor, nn

from nasmvt.errors import UserError
from nasmvt.families.layers import Classifier, MeanLinear, start_linear
from nasmvt.families.published import publishes
from nasmvt.families.reference import Rules, State, rename, reordered
from nasmvt.families.registry import RECOMPUTING, register
from nasmvt.families.rounding import Width, check_divides, multiple
from nasmvt.families.stages import check_per_stage, choices_per_stage, per_stage
from nasmvt.families.vitae_v2_cells import NormalCell, ReductionCell, divided
from nasmvt.space import Arch, Role

Count = Annotated[int, Field(ge=1)]
Ratio = Annotated[float, Field(ge=0.125)]


class ViTAEv2(nn.Module):
    """The plain network. Sequences have one entry per stage.

    Args:
        embed_dims: channels of the maps (`token_dims` of the released code).
        pyramid_dims: channels of each of the pyramid's convolutions (`embed_dims` of the released code).
        depths: normal cells.
        num_heads: attention heads of the normal cells.
        reduction_heads: attention heads of the reduction cell.
        groups: groups of the PCM convolutions of the normal cells.
        reduction_groups: groups of the PCM convolutions of the reduction cell.
        mlp_ratios: hidden width of a normal cell's MLP over `embed_dims`.
        head_dims: channels of a normal cell's head; None: `embed_dims` over `num_heads`.
        conv_ratios: hidden width of a normal cell's PCM over `embed_dims`; None: `mlp_ratios`.
        conv_dims: hidden width of a reduction cell's PCM; None: `pyramid_dims`.
        window_sizes: side of the normal cells' attention windows in tokens; None: attention over the whole map.
        reduction_window_sizes: the same for the reduction cell; None: `window_sizes`.
        ratios: what the reduction cell divides height and width by, 2 or 4.
        kernel_sizes: sides of the pyramid's kernels.
        dilations: dilations of the pyramid's convolutions, a sequence per stage.
        relative_positions: whether attention in windows adds a bias per head and relative position, as in Swin.
        drop_path: probability of dropping a residual branch in the last normal cell; rises linearly from 0.
        norm_eps: epsilon of the LayerNorms of the normal cells.
        reduction_norm_eps: epsilon of the LayerNorms of the reduction cells.
        round_to: widths that are derived from others are the nearest multiples of it; 1: without their fractions.

    Raises:
        UserError: if a size is not given once per stage, heads or groups do not divide their widths, or a ratio is
            neither 2 nor 4.
    """

    def __init__(
        self,
        *,
        embed_dims: Sequence[int],
        pyramid_dims: Sequence[int],
        depths: Sequence[int],
        num_heads: Sequence[int],
        reduction_heads: Sequence[int],
        groups: Sequence[int],
        reduction_groups: Sequence[int],
        mlp_ratios: Sequence[float] = (4, 4, 4, 4),
        head_dims: Sequence[int] | None = None,
        conv_ratios: Sequence[float] | None = None,
        conv_dims: Sequence[int] | None = None,
        window_sizes: Sequence[int | None] = (7, 7, None, None),
        reduction_window_sizes: Sequence[int | None] | None = None,
        ratios: Sequence[int] = (4, 2, 2, 2),
        kernel_sizes: Sequence[int] = (7, 3, 3, 3),
        dilations: Sequence[Sequence[int]] = ((1, 2, 3, 4), (1, 2, 3), (1, 2), (1, 2)),
        relative_positions: bool = False,
        drop_path: float = 0.1,
        norm_eps: float = 1e-6,
        reduction_norm_eps: float = 1e-5,
        round_to: int = 1,
    ) -> None:
        super().__init__()
        check_per_stage(
            "ViTAEv2",
            embed_dims=embed_dims,
            pyramid_dims=pyramid_dims,
            depths=depths,
            num_heads=num_heads,
            reduction_heads=reduction_heads,
            groups=groups,
            reduction_groups=reduction_groups,
            mlp_ratios=mlp_ratios,
            head_dims=head_dims,
            conv_ratios=conv_ratios,
            conv_dims=conv_dims,
            window_sizes=window_sizes,
            reduction_window_sizes=reduction_window_sizes,
            ratios=ratios,
            kernel_sizes=kernel_sizes,
            dilations=dilations,
        )
        self.widths = tuple(embed_dims)
        self.strides = tuple(int(stride) for stride in np.cumprod(ratios))
        rates = iter(np.linspace(0, drop_path, sum(depths)).tolist())
        self.stages = nn.ModuleList()
        for i, dim in enumerate(embed_dims):
            reduction = ReductionCell(
                embed_dims[i - 1] if i else 3,
                dim,
                pyramid_dim=pyramid_dims[i],
                conv_dim=(conv_dims or pyramid_dims)[i],
                num_heads=reduction_heads[i],
                groups=reduction_groups[i],
                window_size=(reduction_window_sizes or window_sizes)[i],
                ratio=ratios[i],
                kernel_size=kernel_sizes[i],
                dilations=dilations[i],
                relative_positions=relative_positions,
                norm_eps=reduction_norm_eps,
            )
            blocks = [
                NormalCell(
                    dim,
                    num_heads=num_heads[i],
                    head_dim=head_dims[i] if head_dims else divided(dim, num_heads[i], "attention heads"),
                    mlp_dim=multiple(mlp_ratios[i] * dim, round_to),
                    conv_dim=multiple((conv_ratios or mlp_ratios)[i] * dim, round_to),
                    groups=groups[i],
                    window_size=window_sizes[i],
                    relative_positions=relative_positions,
                    drop_path=next(rates),
                    norm_eps=norm_eps,
                )
                for _ in range(depths[i])
            ]
            self.stages.append(Stage(reduction, blocks))
        self.apply(start_linear)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Map images (B, 3, H', W') to the map (B, C, H, W) of every stage."""
        x = images
        maps = []
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
        return tuple(maps)


class Stage(nn.Module):
    """A reduction cell and normal cells: a map (B, C, H, W) to one of lower resolution."""

    def __init__(self, reduction: ReductionCell, blocks: Sequence[NormalCell]) -> None:
        super().__init__()
        self.reduction = reduction
        self.blocks = nn.ModuleList(blocks)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Map (B, C, H, W) to (B, C', H / ratio, W / ratio), rounded up."""
        x = self.reduction(x_BCHW)
        for block in self.blocks:
            x = block(x)
        return x


_REDUCTION, _BLOCK = r"backbone.stages.\1.reduction", r"backbone.stages.\1.blocks.\2"
_RULES: Rules = (
    (r"layers\.(\d+)\.RC\.PRM\.convs\.(\d+)\.0\.(.+)", rf"{_REDUCTION}.pyramid.\2.\3"),
    (r"layers\.(\d+)\.RC\.PCM\.(.+)", rf"{_REDUCTION}.convs.\2"),
    (r"layers\.\d+\.(RC\.attn|NC\.\d+)\.attn\.relative_position_index", None),
    (r"layers\.(\d+)\.RC\.attn\.attn\.relative_position_bias_table", rf"{_REDUCTION}.attn.relative_bias"),
    (r"layers\.(\d+)\.NC\.(\d+)\.attn\.relative_position_bias_table", rf"{_BLOCK}.attn.relative_bias"),
    (r"layers\.(\d+)\.RC\.attn\.(.+)", rf"{_REDUCTION}.\2"),
    (r"layers\.(\d+)\.NC\.(\d+)\.PCM\.(.+)", rf"{_BLOCK}.convs.\3"),
    (r"layers\.(\d+)\.NC\.(\d+)\.(.+)", rf"{_BLOCK}.\3"),
    (r"head\.(weight|bias)", r"head.fc.\1"),
)


def convert(state: State, network: nn.Module) -> dict[str, Tensor]:
    """Convert a published state dict to the names and layouts of our classifier.

    The rows of `qkv` are published as (q/k/v, head, channel), the channels of the pyramid as (dilation, channel).
    The index of relative positions, a buffer that the released classifier always has, is computed and so left out.
    """
    tensors = rename(state, _RULES)

    def swap(name: str, axis: int, first: int, rest: int = 1) -> None:
        if name in tensors:
            tensors[name] = reordered(tensors[name], (first, -1, rest), (1, 0, 2), axis)

    for prefix, module in network.named_modules():
        if isinstance(module, NormalCell):
            for leaf in ("weight", "bias"):
                swap(f"{prefix}.attn.qkv.{leaf}", 0, 3, module.attn.head_dim)
        elif isinstance(module, ReductionCell):
            for leaf in ("weight", "bias"):
                swap(f"{prefix}.norm1.{leaf}", 0, len(module.pyramid))
                swap(f"{prefix}.attn.qkv.{leaf}", 0, 3)
            swap(f"{prefix}.attn.qkv.weight", 1, len(module.pyramid))
    return tensors


@register(
    "vitae_v2",
    choices={
        "embed_dim": Width,
        **choices_per_stage(depth=Count, num_heads=Count, mlp_ratio=Ratio, pyramid_dim=Width),
    },
    blocks=r"backbone\.stages\.(\d+)\.blocks\.(\d+)",
    roles={
        f"backbone.stages.*.{cell}.{layer}": Role.ADAPTIVE
        for cell in ("reduction", "blocks.*")
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
    head_dim: Count = 64,
    reduction_head_dim: Count = 128,
    group_width: Count = 4,
    conv_ratio: Count = 4,
    window_size: Count = 7,
    relative_positions: bool = False,
    drop_path: Annotated[float, Field(ge=0, lt=1)] = 0.1,
    round_to: Count = 1,
) -> ViTAEv2:
    """Build the backbone of an arch; it is the same for every kind of task and size of image.

    `embed_dim` is the width of stage 1 and doubles with every stage, as in every published network: only then do the
    grouped convolutions of narrower networks lie inside those of wider ones. The groups of a PCM have `group_width`
    channels of its input; there are no groups in stage 1. The hidden width of a reduction cell's PCM is that of its
    input, in stage 1 that of the pyramid. The attention of a reduction cell has one head in stages 1 and 2, and
    heads of `reduction_head_dim` channels in 3 and 4; that of a normal cell has heads of `head_dim` in every stage.

    Raises:
        UserError: if `group_width` or `reduction_head_dim` does not divide the widths it applies to.
    """
    check_divides(round_to, head_dim=head_dim)
    dim = multiple(arch["embed_dim"], round_to)  # type: ignore[arg-type]
    dims = (dim, 2 * dim, 4 * dim, 8 * dim)
    for width, part, name in ((dim, group_width, "group_width"), (dims[2], reduction_head_dim, "reduction_head_dim")):
        if width % part:
            raise UserError(
                f"{name} must divide a width of {width} channels (embed_dim {dim}), but is {part}: fix the space"
            )

    pyramid_dims = tuple(multiple(width, round_to) for width in per_stage(arch, "pyramid_dim"))
    groups = [width // group_width for width in dims]
    return ViTAEv2(
        embed_dims=dims,
        pyramid_dims=pyramid_dims,
        depths=per_stage(arch, "depth"),
        num_heads=per_stage(arch, "num_heads"),
        reduction_heads=(1, 1, dims[2] // reduction_head_dim, dims[3] // reduction_head_dim),
        groups=(1, *groups[1:]),
        reduction_groups=(1, *groups[:-1]),
        mlp_ratios=per_stage(arch, "mlp_ratio"),
        head_dims=(head_dim,) * 4,
        conv_ratios=(conv_ratio,) * 4,
        conv_dims=(pyramid_dims[0], *dims[:-1]),
        window_sizes=(window_size, window_size, None, None),
        relative_positions=relative_positions,
        drop_path=drop_path,
        round_to=round_to,
    )


@publishes(
    {
        "vitae_v2_s": {
            "embed_dims": (64, 128, 256, 512),
            "pyramid_dims": (64, 64, 128, 256),
            "depths": (2, 2, 8, 2),
            "num_heads": (1, 2, 4, 8),
            "reduction_heads": (1, 1, 2, 4),
        },
        "vitae_v2_48m": {
            "embed_dims": (96, 192, 384, 768),
            "pyramid_dims": (64, 64, 192, 384),
            "depths": (2, 2, 11, 2),
            "num_heads": (1, 2, 4, 8),
            "reduction_heads": (1, 1, 2, 4),
        },
        "vitae_v2_b": {
            "embed_dims": (128, 256, 512, 1024),
            "pyramid_dims": (96, 96, 256, 512),
            "depths": (2, 2, 12, 2),
            "num_heads": (1, 4, 8, 16),
            "reduction_heads": (1, 1, 4, 8),
        },
    },
    convert=convert,
)
def build_classifier(
    *,
    classes: int,
    groups: Sequence[int] = (1, 32, 64, 128),
    reduction_groups: Sequence[int] = (1, 16, 32, 64),
    **sizes: Any,
) -> Classifier:
    """Build a classification network: the mean over the last map, then a linear layer."""
    backbone = ViTAEv2(groups=groups, reduction_groups=reduction_groups, **sizes)
    return Classifier(backbone, MeanLinear(backbone.widths[-1], classes))
