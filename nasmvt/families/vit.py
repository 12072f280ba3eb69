"""The plain vision transformer (Dosovitskiy et al., ICLR 2021, arXiv:2010.11929), as timm has it.

With the published weights of DeiT, AugReg, CLIP and DINOv2 in mind: class tokens, register tokens, layer scale, patches
of any size. For classification the normed class token is the last map, of a single cell (of two with DeiT's
distillation token; without class tokens the mean over the patches); otherwise the maps after each quarter of the depth
are returned, normed by the last norm where that stands before the pooling. For detection the blocks may attend inside
windows but for the last of each quarter, as in ViTDet (arXiv:2203.16527), which then drops class and register tokens.

Differences from timm, which compute the same: the rows of `qkv` lie head by head (head, then q/k/v, then channel), so
that a leading slice is a network with fewer heads; the positions of patches are a map, apart from those of the class
token. Images that are no multiple of the patch are padded with zeros, right and below.

Shapes: B batch, N tokens, C channels, H height and W width in tokens.
"""

from collections.abc import Sequence
from math import isqrt
from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from timm.layers import DropPath, GELUTanh, LayerScale, Mlp, QuickGELU
from torch import Tensor, nn

from nasmvt.errors import UserError
from nasmvt.families.axis import Axis
from nasmvt.families.layers import attend_in_windows, padded, resized, start_linear, to_map, to_tokens
from nasmvt.families.reference import State, rename, reordered
from nasmvt.families.registry import register
from nasmvt.families.rounding import Width, check_divides, multiple
from nasmvt.families.vit_mvt import STAGES, stage_ends
from nasmvt.space import Arch, Role

Count = Annotated[int, Field(ge=1)]
Activation = Literal["gelu", "gelu_tanh", "quick_gelu"]

ACTIVATIONS: dict[Activation, type[nn.Module]] = {"gelu": nn.GELU, "gelu_tanh": GELUTanh, "quick_gelu": QuickGELU}


class ViT(nn.Module):
    """The plain network.

    Args:
        image_size: (height, width) in pixels that the table of positions is made for; for other sizes it is resized.
        embed_dim: channels of a token.
        num_heads: attention heads, one entry per block; their number is the depth.
        mlp_ratio: hidden width of the MLP over `embed_dim`, one entry per block.
        head_dim: channels of a head, independent of `embed_dim`.
        patch_size: pixels of a token's side.
        class_tokens: their number: 1; 2 with DeiT's distillation token (arXiv:2012.12877); 0: classification takes the
            mean over the patches.
        register_tokens: their number.
        prefix_positions: whether class and register tokens have positions.
        qkv_bias: whether queries, keys and values have biases.
        layer_scale: starting value of the layer scales; None: there are none.
        first_norm: whether the tokens are normed before the first block, and patches have no bias (CLIP).
        norm_after_pooling: whether classification norms what it pools, and maps stay as they are, not the tokens.
        act: activation of the MLPs.
        window_size: side of the attention windows in tokens; None: attention over the whole map. Networks with windows
            have neither class nor register tokens.
        global_blocks: blocks that attend to the whole map all the same.
        out_blocks: blocks whose maps are returned, ascending; empty: the class tokens, or the mean, as cells of a map.
        drop_path: probability of dropping a residual branch in training.
        norm_eps: epsilon of every LayerNorm.
        round_to: widths that are derived from others are the nearest multiples of it; 1: without their fractions.

    Raises:
        UserError: if the image is smaller than a patch.
    """

    cls_token: nn.Parameter | None
    dist_token: nn.Parameter | None
    reg_token: nn.Parameter | None
    prefix_pos: nn.Parameter | None

    def __init__(
        self,
        *,
        image_size: tuple[int, int],
        embed_dim: int,
        num_heads: Sequence[int],
        mlp_ratio: Sequence[float],
        head_dim: int = 64,
        patch_size: int = 16,
        class_tokens: int = 1,
        register_tokens: int = 0,
        prefix_positions: bool = True,
        qkv_bias: bool = True,
        layer_scale: float | None = None,
        first_norm: bool = False,
        norm_after_pooling: bool = False,
        act: Activation = "gelu",
        window_size: int | None = None,
        global_blocks: Sequence[int] = (),
        out_blocks: Sequence[int] = (),
        drop_path: float = 0.0,
        norm_eps: float = 1e-6,
        round_to: int = 1,
    ) -> None:
        super().__init__()
        grid = tuple(side // patch_size for side in image_size)
        if 0 in grid:
            raise UserError(
                f"a vision transformer needs images of at least a patch, but has {image_size[0]} x {image_size[1]} "
                f"pixels and patches of {patch_size}: change one of them"
            )
        self.strides = (patch_size,) * max(len(out_blocks), 1)
        self.widths = (embed_dim,) * max(len(out_blocks), 1)
        self.patch_size = patch_size
        self.window_size = window_size
        self.global_blocks = tuple(global_blocks)
        self.out_blocks = tuple(out_blocks)
        self.class_tokens = class_tokens
        published = class_tokens + register_tokens  # with windows, too: where they stand in published tables
        self.prefix_positions = published if prefix_positions else 0
        self.prefix = 0 if window_size else published

        self.patch_embed = nn.Conv2d(3, embed_dim, patch_size, stride=patch_size, bias=not first_norm)
        self.pos_embed = nn.Parameter(torch.empty(1, embed_dim, *grid))
        for name, count in (
            ("cls_token", min(class_tokens, 1)),
            ("dist_token", class_tokens - 1),
            ("reg_token", register_tokens),
            ("prefix_pos", self.prefix_positions),
        ):
            kept = max(count, 0) if self.prefix else 0
            self.register_parameter(name, nn.Parameter(torch.empty(1, kept, embed_dim)) if kept else None)
        self.norm_pre = nn.LayerNorm(embed_dim, eps=norm_eps) if first_norm else nn.Identity()
        self.blocks = nn.ModuleList(
            Block(
                *(embed_dim, heads, head_dim, qkv_bias, multiple(ratio * embed_dim, round_to), layer_scale),
                *(ACTIVATIONS[act], drop_path, norm_eps),
            )
            for heads, ratio in zip(num_heads, mlp_ratio, strict=True)
        )
        unnormed = norm_after_pooling and out_blocks
        self.norm = nn.Identity() if unnormed else nn.LayerNorm(embed_dim, eps=norm_eps)
        self.norm_after_pooling = norm_after_pooling
        self.apply(start_linear)
        for table in (self.pos_embed, self.cls_token, self.dist_token, self.reg_token, self.prefix_pos):
            if table is not None:
                nn.init.trunc_normal_(table, std=0.02)

    def no_weight_decay(self) -> set[str]:
        """Return the parameters of two and more dimensions that are not to decay (timm's convention)."""
        return {"pos_embed", "cls_token", "dist_token", "reg_token", "prefix_pos"}

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Map images (B, 3, H', W') to the maps (B, C, H, W) after `out_blocks`, or to cells (B, C, 1, 1 or 2)."""
        x_BCHW = self.patch_embed(padded(images, self.patch_size, rows=2))
        size = x_BCHW.shape[2:]
        x_BCHW = x_BCHW + resized(self.pos_embed, size)
        x = self.norm_pre(torch.cat([*self._prefix(images.shape[0]), to_tokens(x_BCHW)], dim=1))
        maps = []
        for index, block in enumerate(self.blocks):
            x = block(x, size, None if index in self.global_blocks else self.window_size)
            if index in self.out_blocks:
                maps.append(to_map(self.norm(x[:, self.prefix :]), size))
        return tuple(maps) if self.out_blocks else (to_map(self._pooled(x), (1, max(self.class_tokens, 1))),)

    def _pooled(self, x_BNC: Tensor) -> Tensor:
        """Return the normed class tokens, or the mean over the patches if there are none: (B, 1 or 2, C)."""
        if self.class_tokens:
            return self.norm(x_BNC[:, : self.class_tokens])
        if self.norm_after_pooling:
            return self.norm(x_BNC[:, self.prefix :].mean(1, keepdim=True))
        return self.norm(x_BNC[:, self.prefix :]).mean(1, keepdim=True)

    def _prefix(self, batch: int) -> list[Tensor]:
        """Return class and register tokens (B, n, C) with their positions, if there are any."""
        tokens: list[Tensor] = [
            token for token in (self.cls_token, self.dist_token, self.reg_token) if token is not None
        ]
        if not tokens:
            return []
        prefix = torch.cat(tokens, dim=1)
        if self.prefix_pos is not None:
            prefix = prefix + self.prefix_pos
        return [prefix.expand(batch, -1, -1)]


class Block(nn.Module):
    """Attention and MLP on tokens (B, N, C), each after a norm and with a residual connection."""

    def __init__(
        self,
        dim: int,
        num_heads: int,
        head_dim: int,
        qkv_bias: bool,
        hidden: int,
        layer_scale: float | None,
        act: type[nn.Module],
        drop_path: float,
        norm_eps: float,
    ) -> None:
        super().__init__()
        scaled = layer_scale is not None
        self.norm1 = nn.LayerNorm(dim, eps=norm_eps)
        self.attn = Attention(dim, num_heads, head_dim, qkv_bias)
        self.ls1 = LayerScale(dim, init_values=layer_scale) if scaled else nn.Identity()
        self.norm2 = nn.LayerNorm(dim, eps=norm_eps)
        self.mlp = Mlp(dim, hidden, act_layer=act)
        self.ls2 = LayerScale(dim, init_values=layer_scale) if scaled else nn.Identity()
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor, size: Sequence[int], window_size: int | None) -> Tensor:
        """Map tokens (B, N, C) to (B, N, C).

        Args:
            x: the tokens.
            size: height and width of their map.
            window_size: side of the attention windows, of tokens without a prefix; None: every token sees every other.
        """
        y = self.norm1(x)
        y = self.attn(y) if window_size is None else attend_in_windows(self.attn, y, size, window_size)
        x = x + self.drop_path(self.ls1(y))
        return x + self.drop_path(self.ls2(self.mlp(self.norm2(x))))


class Attention(nn.Module):
    """Multi-head attention on tokens (B, N, C)."""

    def __init__(self, dim: int, num_heads: int, head_dim: int, bias: bool) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.qkv = nn.Linear(dim, num_heads * 3 * head_dim, bias=bias)
        self.proj = nn.Linear(num_heads * head_dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, N, C) to (B, N, C)."""
        b, n, _ = x.shape
        q, k, v = self.qkv(x).view(b, n, self.num_heads, 3, -1).permute(3, 0, 2, 1, 4)
        y = F.scaled_dot_product_attention(q, k, v)
        return self.proj(y.transpose(1, 2).reshape(b, n, -1))


_POSITIONS = "backbone.pos_embed"


def convert(state: State, network: nn.Module) -> dict[str, Tensor]:
    """Convert timm's names and layouts to those of a classifier; the positions are resized to its images.

    timm's rows of `qkv` are (q/k/v, head, channel); its table of positions begins with those of class and register
    tokens, where they have any.
    """
    rules = [
        (r"head\.(\w+)", r"head.fc.\1"),
        (r"head_dist\.(\w+)", r"head.fc_dist.\1"),
        (r"patch_embed\.proj\.(\w+)", r"backbone.patch_embed.\1"),
        (r"fc_norm\.(\w+)", r"backbone.norm.\1"),
    ]
    tensors = rename(state, [*rules, (r"(.+)", r"backbone.\1")])
    for prefix, module in network.named_modules():
        if isinstance(module, Attention):
            for name in (f"{prefix}.qkv.weight", f"{prefix}.qkv.bias"):
                if name in tensors:
                    tensors[name] = reordered(tensors[name], (3, module.num_heads, -1), (1, 0, 2))
    backbone = network.get_submodule("backbone")
    assert isinstance(backbone, ViT)
    if _POSITIONS in tensors:
        table, first = tensors[_POSITIONS], backbone.prefix_positions
        if first:
            tensors["backbone.prefix_pos"] = table[:, :first]
        side = isqrt(table.shape[1] - first)
        if side * side == table.shape[1] - first:
            square = table[:, first:].transpose(1, 2).unflatten(2, (side, side))
            tensors[_POSITIONS] = resized(square, backbone.pos_embed.shape[2:])
    return tensors


@register(
    "vit",
    choices={
        "depth": Annotated[int, Field(ge=STAGES)],
        "embed_dim": Width,
        "num_heads": tuple[Count, ...],
        "mlp_ratio": tuple[Annotated[float, Field(gt=0)], ...],
    },
    blocks=r"backbone\.blocks\.(\d+)",
    roles={f"backbone.blocks.*.{layer}": Role.ADAPTIVE for layer in ("attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2")},
    convert=convert,
    tables=[_POSITIONS],
    axes=[
        Axis(
            modules="backbone.blocks.*.mlp",
            tensors={"fc1.weight": 0, "fc1.bias": 0, "fc2.weight": 1},
            reader="fc2.weight",
        ),
        Axis(
            modules="backbone.blocks.*.attn",
            tensors={"qkv.weight": 0, "qkv.bias": 0, "proj.weight": 1},
            reader="proj.weight",
            count="num_heads",
        ),
    ],
    widths=["embed_dim"],
)
def build(
    arch: Arch,
    *,
    kind: str,
    image_size: tuple[int, int],
    head_dim: Count = 64,
    patch_size: Count = 16,
    class_tokens: Literal[0, 1, 2] = 1,
    register_tokens: Annotated[int, Field(ge=0)] = 0,
    prefix_positions: bool = True,
    qkv_bias: bool = True,
    layer_scale: Annotated[float, Field(gt=0)] | None = None,
    first_norm: bool = False,
    norm_after_pooling: bool = False,
    act: Activation = "gelu",
    window_size: Count | None = None,
    drop_path: Annotated[float, Field(ge=0, lt=1)] = 0.0,
    norm_eps: Annotated[float, Field(gt=0)] = 1e-6,
    round_to: Count = 1,
) -> ViT:
    """Build the backbone of an arch for one kind of task.

    Classification: the class tokens, or the mean over the patches. Detection: the last map, with windows if
    `window_size` is set. Segmentation, and any other kind: the maps after each quarter of the depth.
    """
    check_divides(round_to, head_dim=head_dim)
    ends = stage_ends(len(arch["num_heads"]))  # type: ignore[arg-type]
    detection = kind == "detection"
    return ViT(
        image_size=image_size,
        embed_dim=multiple(arch["embed_dim"], round_to),  # type: ignore[arg-type]
        num_heads=arch["num_heads"],  # type: ignore[arg-type]
        mlp_ratio=arch["mlp_ratio"],  # type: ignore[arg-type]
        head_dim=head_dim,
        patch_size=patch_size,
        class_tokens=class_tokens,
        register_tokens=register_tokens,
        prefix_positions=prefix_positions,
        qkv_bias=qkv_bias,
        layer_scale=layer_scale,
        first_norm=first_norm,
        norm_after_pooling=norm_after_pooling,
        act=act,
        window_size=window_size if detection else None,
        global_blocks=ends,
        out_blocks={"classification": (), "detection": ends[-1:]}.get(kind, ends),
        drop_path=drop_path,
        norm_eps=norm_eps,
        round_to=round_to,
    )
