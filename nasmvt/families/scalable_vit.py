"""ScalableViT, the backbone of "ScalableViT: Rethinking the Context-Oriented Generalization of Vision Transformer".

Yang et al., ECCV 2022. Four stages at strides 4, 8, 16 and 32. A stage is an overlapping patch embedding, then
blocks of attention and MLP; a depthwise convolution after its first block gives positions. The attention
alternates: blocks 0, 2, 4, ... attend inside windows, with a depthwise convolution of the values beside (IWSA);
blocks 1, 3, 5, ... attend to the whole map, with keys and values of fewer tokens and other widths (SSA).

Differences from the released code, which computes the same where it runs:
- Layout, so that leading slices are networks with fewer or narrower heads: the rows of `qkv` (IWSA) lie by (head,
  q/k/v, channel), those of `kv` by (head, k/v, channel); where SSA scales the width of its queries and keys, `q` and
  `k` have a dimension for the head and one for its channels. The reduced tokens have no heads: any leading channels
  of `reduce`, of its norm and of the columns of `k` and `v` go together.
- The inner width of the attention is heads * head width, which need not be the width of the map.
- Any input size: the patch embeddings round up; maps that are no multiple of the window (IWSA) or of the spatial
  ratio (SSA) are padded with zeros, right and below and after the norm. The convolution beside the windows sees the
  unpadded values.
- The published networks return the normed last map for classification; for dense prediction, whose code was not
  published, the four maps are returned as they are.

Shapes: B batch, C channels, H height and W width in tokens, K classes.
"""

from collections.abc import Sequence
from itertools import islice
from math import sqrt
from typing import Annotated, Any

import numpy as np
from pydantic import Field
from timm.layers import DropPath, Mlp
from torch import Tensor, nn

from nasmvt.errors import UserError
from nasmvt.families.layers import Classifier, MeanLinear
from nasmvt.families.published import publishes
from nasmvt.families.reference import State, rename, reordered
from nasmvt.families.registry import RECOMPUTING, register
from nasmvt.families.rounding import Width, check_divides, multiple
from nasmvt.families.scalable_vit_attention import IWSA, SSA, HeadsLinear, bchw, bhwc
from nasmvt.families.stages import check_per_stage, choices_per_stage, per_stage
from nasmvt.space import Arch, Role

Count = Annotated[int, Field(ge=1)]
Ratio = Annotated[float, Field(gt=0)]

STRIDES = (4, 8, 16, 32)
"""Pixels of a token's side after each stage."""

PerStage = Annotated[Sequence[Count], Field(min_length=len(STRIDES), max_length=len(STRIDES))]


class ScalableViT(nn.Module):
    """The plain network. Sequences have one entry per stage.

    Args:
        embed_dims: channels of the map.
        depths: number of blocks.
        num_heads: attention heads.
        mlp_ratios: hidden width of the MLP over that of the map.
        c_ratios: width of queries and keys over that of values in SSA; in a stage with spatial ratio 1 it
            scales the softmax alone, as in the released code.
        sr_ratios: spatial ratio of SSA: one key stands for so many tokens in height and in width.
        window_sizes: side of a window of IWSA in tokens; 1: every block of the stage is SSA.
        head_dim: channels of a head, in all stages; None: width of the map / heads.
        qkv_bias: whether the linear layers of queries, keys and values have a bias.
        final_norm: whether the last map is normed, for classification.
        drop_path: probability of dropping a residual branch of the last block in training; it rises linearly from 0.
        norm_eps: epsilon of every LayerNorm but the one inside SSA, which has 1e-5.
        round_to: widths that are derived from others are the nearest multiples of it; 1: without their fractions.

    Raises:
        UserError: if sequences are of other lengths, a width does not divide by its heads, or a ratio leaves nothing.
    """

    strides = STRIDES

    def __init__(
        self,
        *,
        embed_dims: Sequence[int],
        depths: Sequence[int],
        num_heads: Sequence[int],
        mlp_ratios: Sequence[float] = (4, 4, 4, 4),
        c_ratios: Sequence[float],
        sr_ratios: Sequence[int] = (8, 4, 2, 1),
        window_sizes: Sequence[int] = (7, 7, 7, 7),
        head_dim: int | None = None,
        qkv_bias: bool = True,
        final_norm: bool = True,
        drop_path: float = 0.0,
        norm_eps: float = 1e-6,
        round_to: int = 1,
    ) -> None:
        super().__init__()
        check_per_stage(
            "ScalableViT",
            strides=STRIDES,
            embed_dims=embed_dims,
            depths=depths,
            num_heads=num_heads,
            mlp_ratios=mlp_ratios,
            c_ratios=c_ratios,
            sr_ratios=sr_ratios,
            window_sizes=window_sizes,
        )
        sizes = [embed_dims, depths, num_heads, mlp_ratios, c_ratios, sr_ratios, window_sizes]
        self.widths = tuple(embed_dims)
        rates = iter(np.linspace(0, drop_path, sum(depths)).tolist())
        self.stages = nn.ModuleList()
        inputs = 3
        for dim, depth, heads, mlp_ratio, c_ratio, sr_ratio, side in zip(*sizes, strict=True):
            if head_dim is None and dim % heads:
                raise UserError(
                    f"the width of a stage must be a multiple of its heads, but {dim} is none of {heads}: "
                    "change one of them or give head_dim"
                )
            blocks = [
                Block(
                    dim,
                    IWSA(dim, heads, head_dim or dim // heads, side, qkv_bias)
                    if index % 2 == 0 and side > 1
                    else SSA(dim, heads, head_dim or dim // heads, sr_ratio, c_ratio, qkv_bias, round_to),
                    multiple(dim * mlp_ratio, round_to),
                    drop,
                    norm_eps,
                )
                for index, drop in enumerate(islice(rates, depth))
            ]
            stride = 2 if self.stages else 4
            self.stages.append(Stage(inputs, dim, stride, blocks, norm_eps))
            inputs = dim
        self.norm = nn.LayerNorm(embed_dims[-1], eps=norm_eps) if final_norm else nn.Identity()
        self.apply(_init_weights)

    def no_weight_decay(self) -> set[str]:
        """Return the parameters of two and more dimensions that are not to decay (timm's convention)."""
        return {
            name
            for name, parameter in self.named_parameters()
            if parameter.ndim > 1 and ("pos_conv" in name or name.endswith("bias"))
        }

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Map images (B, 3, H', W') to four maps (B, C, H, W), H and W rounded up."""
        maps = []
        x_BCHW = images
        for stage in self.stages:
            x_BCHW = stage(x_BCHW)
            maps.append(x_BCHW)
        maps[-1] = bchw(self.norm(bhwc(x_BCHW)))
        return tuple(maps)


class Stage(nn.Module):
    """Patch embedding, blocks, and a convolution for positions after the first block."""

    def __init__(
        self,
        inputs: int,
        dim: int,
        stride: int,
        blocks: Sequence["Block"],
        norm_eps: float,
    ) -> None:
        super().__init__()
        self.patch_embed = nn.Conv2d(inputs, dim, 2 * stride - 1, stride=stride, padding=stride - 1)
        self.patch_norm = nn.LayerNorm(dim, eps=norm_eps)
        self.blocks = nn.ModuleList(blocks)
        self.pos_conv = nn.Conv2d(dim, dim, 3, padding=1, groups=dim)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Map (B, C', H', W') to (B, C, H, W)."""
        x = self.patch_norm(bhwc(self.patch_embed(x_BCHW)))
        for index, block in enumerate(self.blocks):
            x = block(x)
            if index == 0:
                x = x + bhwc(self.pos_conv(bchw(x)))
        return bchw(x)


class Block(nn.Module):
    """Attention and MLP on a map (B, H, W, C), each after a norm and with a residual connection."""

    def __init__(self, dim: int, attn: nn.Module, hidden: int, drop_path: float, norm_eps: float) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=norm_eps)
        self.attn = attn
        self.norm2 = nn.LayerNorm(dim, eps=norm_eps)
        self.mlp = Mlp(dim, hidden)
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, H, W, C) to (B, H, W, C)."""
        x = x + self.drop_path(self.attn(self.norm1(x)))
        y: Tensor = x + self.drop_path(self.mlp(self.norm2(x)))
        return y


class MlpHead(nn.Module):
    """The classifier of the published networks: the mean over the last map, then an MLP with a norm.

    Args:
        width: channels C of the last map.
        classes: number of classes K.
        hidden: hidden width.
        norm_eps: epsilon of the LayerNorm.
    """

    def __init__(self, width: int, classes: int, hidden: int = 4096, norm_eps: float = 1e-6) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, hidden)
        self.norm = nn.LayerNorm(hidden, eps=norm_eps)
        self.act = nn.GELU()
        self.fc2 = nn.Linear(hidden, classes)

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Turn maps, of which the last is (B, C, H, W), into logits (B, K)."""
        logits: Tensor = self.fc2(self.act(self.norm(self.fc1(maps[-1].mean((2, 3))))))
        return logits


def _init_weights(module: nn.Module) -> None:
    if isinstance(module, (nn.Linear, HeadsLinear)):
        nn.init.trunc_normal_(module.weight, std=0.02)
    elif isinstance(module, nn.Conv2d):
        outputs = module.kernel_size[0] * module.kernel_size[1] * module.out_channels
        nn.init.normal_(module.weight, std=sqrt(2 * module.groups / outputs))
    else:
        return
    if module.bias is not None:
        nn.init.zeros_(module.bias)


_BLOCK = r"backbone.stages.\1.blocks.\2"
_RULES = (
    (r"patch_embeds\.(\d+)\.proj\.(\w+)", r"backbone.stages.\1.patch_embed.\2"),
    (r"patch_embeds\.(\d+)\.norm\.(\w+)", r"backbone.stages.\1.patch_norm.\2"),
    (r"pos_block\.(\d+)\.proj\.0\.(\w+)", r"backbone.stages.\1.pos_conv.\2"),
    (r"stages\.(\d+)\.(\d+)\.attn\.lim_func\.(\w+)", rf"{_BLOCK}.attn.lim.\3"),
    (r"stages\.(\d+)\.(\d+)\.attn\.reduction\.0\.(\w+)", rf"{_BLOCK}.attn.pool.\3"),
    (r"stages\.(\d+)\.(\d+)\.attn\.reduction\.1\.(\w+)", rf"{_BLOCK}.attn.reduce.\3"),
    (r"stages\.(\d+)\.(\d+)\.attn\.norm_act\.0\.(\w+)", rf"{_BLOCK}.attn.norm.\3"),
    (r"stages\.(\d+)\.(\d+)\.((?:norm[12]|mlp\.fc[12]|attn\.(?:qkv|kv|q|k|v|proj))\.\w+)", rf"{_BLOCK}.\3"),
    (r"norm\.(\w+)", r"backbone.norm.\1"),
    (r"head\.0\.(\w+)", r"head.fc1.\1"),
    (r"head\.1\.(\w+)", r"head.norm.\1"),
    (r"head\.3\.(\w+)", r"head.fc2.\1"),
    (r"head\.(weight|bias)", r"head.fc.\1"),
)


def convert(state: State, network: nn.Module) -> dict[str, Tensor]:
    """Convert published tensors to the names and layouts of a classifier; a backbone without a norm needs none."""
    tensors = rename(state, _RULES)
    for prefix, module in network.named_modules():
        if prefix == "backbone.norm" and isinstance(module, nn.Identity):
            tensors = {name: tensor for name, tensor in tensors.items() if not name.startswith("backbone.norm.")}
        if not isinstance(module, (IWSA, SSA)):
            continue
        for layer, parts in {"qkv": 3, "kv": 2, "q": 1, "k": 1}.items():
            for name in (f"{prefix}.{layer}.weight", f"{prefix}.{layer}.bias"):
                if name in tensors:
                    tensors[name] = _by_heads(tensors[name], parts, module.num_heads)
    return tensors


def _by_heads(rows: Tensor, parts: int, heads: int) -> Tensor:
    """Turn rows (part, head, channel) into (head, part, channel), one dimension; of a single part into (head, channel).

    Rows that do not divide accordingly are returned unchanged, and `check_fit` will refuse them.
    """
    if parts > 1:
        return reordered(rows, (parts, heads, -1), (1, 0, 2))
    return rows if not rows.ndim or rows.shape[0] % heads else rows.unflatten(0, (heads, -1))


@register(
    "scalable_vit",
    choices=choices_per_stage(embed_dim=Width, depth=Count, num_heads=Count, mlp_ratio=Ratio, c_ratio=Ratio),
    blocks=r"backbone\.stages\.(\d+)\.blocks\.(\d+)",
    roles={
        f"backbone.stages.*.blocks.*.{layer}": Role.ADAPTIVE
        for layer in ("attn.qkv", "attn.q", "attn.k", "attn.v", "attn.kv", "attn.proj", "mlp.fc1", "mlp.fc2")
    },
    convert=convert,
    retired=RECOMPUTING,
)
def build(
    arch: Arch,
    *,
    kind: str,
    image_size: tuple[int, int],
    head_dim: Count = 32,
    sr_ratios: PerStage = (8, 4, 2, 1),
    window_sizes: PerStage = (7, 7, 7, 7),
    qkv_bias: bool = True,
    drop_path: Annotated[float, Field(ge=0, lt=1)] = 0.1,
    norm_eps: Annotated[float, Field(gt=0)] = 1e-6,
    round_to: Count = 1,
) -> ScalableViT:
    """Build the backbone of an arch for one kind of task: four maps, of which classification has the last one normed.

    Nothing depends on `image_size`. The published networks have `head_dim` 32 and as many heads as fill the width.
    """
    check_divides(round_to, head_dim=head_dim)
    return ScalableViT(
        embed_dims=[multiple(dim, round_to) for dim in per_stage(arch, "embed_dim")],
        depths=per_stage(arch, "depth"),
        num_heads=per_stage(arch, "num_heads"),
        mlp_ratios=per_stage(arch, "mlp_ratio"),
        c_ratios=per_stage(arch, "c_ratio"),
        sr_ratios=sr_ratios,
        window_sizes=window_sizes,
        head_dim=head_dim,
        qkv_bias=qkv_bias,
        final_norm=kind == "classification",
        drop_path=drop_path,
        norm_eps=norm_eps,
        round_to=round_to,
    )


_PUBLISHED_SMALL = {
    "embed_dims": (64, 128, 256, 512),
    "depths": (2, 2, 20, 2),
    "num_heads": (2, 4, 8, 16),
    "c_ratios": (1.25, 1.25, 1.25, 1),
}


@publishes(
    {
        "scalable_vit_small": _PUBLISHED_SMALL,
        "scalable_vit_small_0": {**_PUBLISHED_SMALL, "c_ratios": (1.25, 1.25, 1.25, 1.25), "head_hidden": None},
        "scalable_vit_base": {
            "embed_dims": (96, 192, 384, 768),
            "depths": (2, 2, 14, 6),
            "num_heads": (3, 6, 12, 24),
            "c_ratios": (2, 1.25, 1.25, 1),
        },
        "scalable_vit_large": {
            "embed_dims": (128, 256, 512, 1024),
            "depths": (2, 6, 12, 4),
            "num_heads": (4, 8, 16, 32),
            "c_ratios": (0.25, 0.5, 1, 1),
        },
    },
    convert=convert,
)
def build_classifier(*, classes: int, head_hidden: int | None = 4096, **sizes: Any) -> Classifier:
    """Build a published network; `head_hidden` is the hidden width of its head, None for a single linear layer."""
    backbone = ScalableViT(**sizes)
    width = backbone.widths[-1]
    head = MeanLinear(width, classes) if head_hidden is None else MlpHead(width, classes, head_hidden)
    return Classifier(backbone, head.apply(_init_weights))
