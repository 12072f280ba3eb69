"""ViT-MVT, the backbone of "ViT-MVT: A Unified Vision Transformer Network for Multiple Vision Tasks" (TNNLS 2023).

A convolutional stem and a patch embedding, then blocks of: local perception unit (LPU), multi-head
attention with relative position bias followed by squeeze and excitation (MHSE), and a feed-forward
network with a depthwise convolution (locality FFN). For detection the attention is cut into windows
and a residual convolution follows each quarter of the depth.

Differences from the released code: the rows of `qkv` lie head by head (head, then q/k/v, then channel),
so that a leading slice is a network with fewer heads; the residual convolutions are numbered by stage
and not by block, so that networks of different depth share them.

Shapes: B batch, N tokens, C channels, H height and W width in tokens, h heads, d head width.
"""

from collections.abc import Sequence
from functools import partial
from typing import Annotated

import torch
import torch.nn.functional as F
from pydantic import Field
from timm.layers import DropPath, SqueezeExcite
from torch import Tensor, nn

from nasmvt.errors import UserError
from nasmvt.families.axis import Axis
from nasmvt.families.biased_attention import biased_attention, relative_position_index
from nasmvt.families.layers import attend_in_windows, same_size, to_map, to_tokens
from nasmvt.families.registry import register
from nasmvt.families.rounding import Rounded, check_divides, multiple
from nasmvt.space import Arch, Role

Count = Annotated[int, Field(ge=1)]
Sides = Annotated[list[Count], Field(min_length=2, max_length=2)]

STAGES = 4
"""Parts into which the depth is divided for segmentation maps and residual convolutions."""


class ViTMVT(nn.Module):
    """The plain network.

    Args:
        image_size: (height, width) in pixels that the position tables are made for; other input sizes
            work, the tables are then resized bicubically.
        embed_dim: channels of the token map.
        num_heads: attention heads, one entry per block; their number is the depth.
        mlp_ratio: hidden width of the FFN over `embed_dim`, one entry per block.
        head_dim: channels of a head, independent of `embed_dim`.
        patch_size: pixels of a token's side, even; the total stride.
        stem_width: channels of the stem.
        window_size: side of the attention windows in tokens; None: attention over the whole map.
        conv_blocks: blocks that a residual convolution follows.
        out_blocks: blocks whose maps are returned, ascending; the last block's map is normed.
        drop_path: probability of dropping a residual branch in training.
        norm_eps: epsilon of every LayerNorm (1e-6 in the supernet, 1e-5 in the published subnets).
        round_to: widths that are derived from others are the nearest multiples of it; 1: without their fractions.
    """

    trains_channels_last = True

    def __init__(
        self,
        *,
        image_size: tuple[int, int],
        embed_dim: int,
        num_heads: Sequence[int],
        mlp_ratio: Sequence[float],
        head_dim: int = 64,
        patch_size: int = 16,
        stem_width: int = 64,
        window_size: int | None = None,
        conv_blocks: Sequence[int] = (),
        out_blocks: Sequence[int],
        drop_path: float = 0.1,
        norm_eps: float = 1e-6,
        round_to: int = 1,
    ) -> None:
        super().__init__()
        self.strides = (patch_size,) * len(out_blocks)
        self.widths = (embed_dim,) * len(out_blocks)
        self.window_size = window_size
        self.conv_blocks = tuple(conv_blocks)
        self.out_blocks = tuple(out_blocks)

        self.stem = nn.Sequential(
            *_conv_norm_act(3, stem_width, kernel_size=7, stride=2),
            *_conv_norm_act(stem_width, stem_width, kernel_size=3),
            *_conv_norm_act(stem_width, stem_width, kernel_size=3),
        )
        self.patch_embed = nn.Conv2d(stem_width, embed_dim, patch_size // 2, stride=patch_size // 2)
        grid = tuple((side + 1) // 2 // (patch_size // 2) for side in image_size)
        if 0 in grid:
            raise UserError(
                f"an image must hold a patch, but {image_size[0]} x {image_size[1]} pixels are smaller than one of "
                f"{patch_size}: raise data.image_size or lower patch_size of the space"
            )
        self.pos_embed = nn.Parameter(torch.empty(1, embed_dim, *grid))
        table = (grid[0], grid[1]) if window_size is None else (window_size, window_size)
        self.blocks = nn.ModuleList(
            Block(
                *(embed_dim, heads, head_dim, multiple(ratio * embed_dim, round_to), multiple(embed_dim / 8, round_to)),
                *(table, drop_path, norm_eps),
            )
            for heads, ratio in zip(num_heads, mlp_ratio, strict=True)
        )
        self.stage_convs = nn.ModuleList(ResidualConv(embed_dim) for _ in conv_blocks)
        self.norm = nn.LayerNorm(embed_dim, eps=norm_eps)
        self._init_weights()

    def _init_weights(self) -> None:
        nn.init.trunc_normal_(self.pos_embed, std=0.02)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)
            elif isinstance(module, Attention):
                nn.init.trunc_normal_(module.relative_bias, std=0.02)

    def no_weight_decay(self) -> set[str]:
        """Return the parameters of two and more dimensions that are not to decay (timm's convention)."""
        return {"pos_embed"}

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Map images (B, 3, H', W') to the maps (B, C, H, W) after `out_blocks`."""
        x = self.patch_embed(self.stem(images))
        x = x + _resize(self.pos_embed, x.shape[-2:])
        height, width = x.shape[-2:] if self.window_size is None else (self.window_size, self.window_size)
        positions = relative_position_index(height, width, x.device)
        maps = []
        for index, block in enumerate(self.blocks):
            x = block(x, self.window_size, positions)
            if index in self.conv_blocks:
                x = self.stage_convs[self.conv_blocks.index(index)](x)
            if index in self.out_blocks:
                maps.append(x)
        if self.out_blocks[-1] == len(self.blocks) - 1:
            maps[-1] = to_map(self.norm(to_tokens(x)), x.shape[-2:])
        return tuple(maps)


class Block(nn.Module):
    """LPU, MHSE and locality FFN on a map (B, C, H, W)."""

    def __init__(
        self,
        dim: int,
        num_heads: int,
        head_dim: int,
        hidden: int,
        squeezed: int,
        table: tuple[int, int],
        drop_path: float,
        norm_eps: float,
    ) -> None:
        super().__init__()
        self.lpu = nn.Conv2d(dim, dim, 3, padding=1, groups=dim)
        self.norm1 = nn.LayerNorm(dim, eps=norm_eps)
        self.attn = Attention(dim, num_heads, head_dim, table)
        self.se = SqueezeExcite(dim, rd_channels=squeezed)
        self.norm2 = nn.LayerNorm(dim, eps=norm_eps)
        self.fc1 = nn.Linear(dim, hidden)
        self.dwconv = nn.Conv2d(hidden, hidden, 3, padding=1, groups=hidden)
        self.act = nn.GELU()
        self.fc2 = nn.Linear(hidden, dim)
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor, window_size: int | None, positions: Tensor) -> Tensor:
        """Map (B, C, H, W) to (B, C, H, W).

        Args:
            x: the map.
            window_size: side of the attention windows in tokens; None: attention over the whole map.
            positions: the relative position index of a window, or of the whole map.
        """
        size = x.shape[-2:]
        x = x + self.lpu(x)
        y = self.norm1(to_tokens(x))
        if window_size:
            attend = partial(self.attn, size=(window_size, window_size), positions=positions)
            y = attend_in_windows(attend, y, size, window_size)
        else:
            y = self.attn(y, size, positions)
        x = x + self.se(to_map(self.drop_path(y), size))
        y = to_map(self.fc1(self.norm2(to_tokens(x))), size)
        y = self.fc2(self.act(to_tokens(y + self.dwconv(y))))
        return x + to_map(self.drop_path(y), size)


class Attention(nn.Module):
    """Multi-head attention with a relative position bias (Swin's index), on tokens (B, N, C)."""

    def __init__(self, dim: int, num_heads: int, head_dim: int, table: tuple[int, int]) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.table = (2 * table[0] - 1, 2 * table[1] - 1)
        self.qkv = nn.Linear(dim, num_heads * 3 * head_dim)
        self.relative_bias = nn.Parameter(torch.empty(self.table[0] * self.table[1], num_heads))
        self.proj = nn.Linear(num_heads * head_dim, dim)

    def forward(self, x: Tensor, size: Sequence[int], positions: Tensor) -> Tensor:
        """Map tokens (B, N, C) of a map of `size` (H, W), N = H * W, to (B, N, C).

        Args:
            x: the tokens.
            size: height and width of their map.
            positions: the relative position index of that map.
        """
        b, n, _ = x.shape
        q, k, v = self.qkv(x).view(b, n, self.num_heads, 3, -1).permute(3, 0, 2, 1, 4)
        y = biased_attention(q, k, v, self._table((size[0], size[1])), positions, training=self.training)
        return self.proj(y.transpose(1, 2).reshape(b, n, -1))

    def _table(self, size: tuple[int, int]) -> Tensor:
        """Return the bias table for a map of `size`, resized if it was made for another."""
        table: Tensor = self.relative_bias
        needed = (2 * size[0] - 1, 2 * size[1] - 1)
        return _resize(table.T.reshape(1, -1, *self.table), needed).flatten(2)[0].T


class ResidualConv(nn.Module):
    """Two 3x3 convolutions with BatchNorm and a residual connection, on a map (B, C, H, W)."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(dim, dim, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(dim)
        self.conv2 = nn.Conv2d(dim, dim, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(dim)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to (B, C, H, W)."""
        return F.relu(x + self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x))))))


def _conv_norm_act(inputs: int, outputs: int, kernel_size: int, stride: int = 1) -> tuple[nn.Module, ...]:
    conv = nn.Conv2d(inputs, outputs, kernel_size, stride=stride, padding=kernel_size // 2, bias=False)
    return conv, nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)


def _resize(x: Tensor, size: Sequence[int]) -> Tensor:
    """Resize a table (1, C, H, W) bicubically; a table of that size is returned as it is."""
    if same_size(x.shape[-2:], size):
        return x
    return F.interpolate(x, size=tuple(size), mode="bicubic", align_corners=False)


def stage_ends(depth: int) -> tuple[int, ...]:
    """Return the last block of each quarter of the depth; what does not divide goes to the later quarters.

    14 blocks: (2, 5, 9, 13); 16: (3, 7, 11, 15), as in the published networks.
    """
    if depth < STAGES:
        raise UserError(f"ViT-MVT needs a depth of at least {STAGES}, not {depth}: widen the space's depth")
    short, rest = divmod(depth, STAGES)
    sizes = [short + (stage >= STAGES - rest) for stage in range(STAGES)]
    return tuple(sum(sizes[: stage + 1]) - 1 for stage in range(STAGES))


@register(
    "vit_mvt",
    choices={
        "depth": Annotated[int, Field(ge=STAGES)],
        "embed_dim": Annotated[int, Field(ge=8), Rounded()],  # the squeeze and excitation has an eighth of it
        "num_heads": tuple[Count, ...],
        "mlp_ratio": tuple[Annotated[float, Field(ge=0.125)], ...],
    },
    blocks=r"backbone\.blocks\.(\d+)",
    roles={
        "backbone.blocks.*.attn.qkv": Role.ADAPTIVE,
        "backbone.blocks.*.attn.proj": Role.ADAPTIVE,
        "backbone.blocks.*.fc1": Role.ADAPTIVE,
        "backbone.blocks.*.fc2": Role.ADAPTIVE,
    },
    tables=["backbone.pos_embed"],
    axes=[
        Axis(
            modules="backbone.blocks.*",
            tensors={"fc1.weight": 0, "fc1.bias": 0, "dwconv.weight": 0, "dwconv.bias": 0, "fc2.weight": 1},
            reader="fc2.weight",
        ),
        Axis(
            modules="backbone.blocks.*.attn",
            tensors={"qkv.weight": 0, "qkv.bias": 0, "relative_bias": 1, "proj.weight": 1},
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
    patch_size: Annotated[int, Field(ge=2, multiple_of=2)] = 16,
    stem_width: Count = 64,
    window_size: Count = 14,
    position_size: dict[str, Sides] | None = None,
    drop_path: Annotated[float, Field(ge=0, lt=1)] = 0.1,
    norm_eps: Annotated[float, Field(gt=0)] = 1e-6,
    round_to: Count = 1,
) -> ViTMVT:
    """Build the backbone of an arch for one kind of task.

    Classification: the last map. Detection: the last map, with windows and residual convolutions. Segmentation, and
    any other kind: the maps after each quarter of the depth. `position_size` gives, by kind of task, the height and
    width in pixels that the position tables are made for; a kind that it does not name takes `image_size`.
    """
    check_divides(round_to, head_dim=head_dim)
    ends = stage_ends(len(arch["num_heads"]))  # type: ignore[arg-type]
    detection = kind == "detection"
    return ViTMVT(
        image_size=(*(position_size or {}).get(kind, image_size),),
        embed_dim=multiple(arch["embed_dim"], round_to),  # type: ignore[arg-type]
        num_heads=arch["num_heads"],  # type: ignore[arg-type]
        mlp_ratio=arch["mlp_ratio"],  # type: ignore[arg-type]
        window_size=window_size if detection else None,
        conv_blocks=ends if detection else (),
        out_blocks=ends[-1:] if kind in {"classification", "detection"} else ends,
        head_dim=head_dim,
        patch_size=patch_size,
        stem_width=stem_width,
        drop_path=drop_path,
        norm_eps=norm_eps,
        round_to=round_to,
    )
