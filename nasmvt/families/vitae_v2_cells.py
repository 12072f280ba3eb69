"""The cells of ViTAEv2 (see `vitae_v2.py`): reduction and normal cell, their attention and convolutions.

Shapes: B batch, N tokens, C channels, P channels of the pyramid, H height, W width, h heads, d head width.
"""

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from timm.layers import DropPath, Mlp
from torch import Tensor, nn

from nasmvt.errors import UserError
from nasmvt.families.biased_attention import relative_bias, relative_position_index
from nasmvt.families.layers import attend_in_windows, padded, to_map, to_tokens

PCM_STRIDES = {2: (2, 1, 1), 4: (2, 2, 1)}
"""Strides of the three convolutions beside a reduction's attention, by the reduction's ratio."""


class ReductionCell(nn.Module):
    """PRM, attention over its tokens with a PCM beside it, MLP; there is no residual connection from the PRM's tokens.

    Args:
        inputs: channels of the map that it reads.
        dim: channels of the map that it returns.
        window_size: side of the attention windows in tokens; None: attention over the whole map, with v added.

    The others are those of `ViTAEv2`.
    """

    def __init__(
        self,
        inputs: int,
        dim: int,
        *,
        pyramid_dim: int,
        conv_dim: int,
        num_heads: int,
        groups: int,
        window_size: int | None,
        ratio: int,
        kernel_size: int,
        dilations: Sequence[int],
        relative_positions: bool,
        norm_eps: float,
    ) -> None:
        super().__init__()
        if ratio not in PCM_STRIDES:
            raise UserError(f"a reduction's ratio must be 2 or 4, not {ratio}: change the ratios")
        self.ratio = ratio
        self.window_size = window_size
        self.pyramid = nn.ModuleList(
            nn.Conv2d(
                inputs,
                pyramid_dim,
                kernel_size,
                stride=ratio,
                dilation=dilation,
                padding=-(-((kernel_size - 1) * dilation + 1 - ratio) // 2),
            )
            for dilation in dilations
        )
        self.convs = pcm((inputs, conv_dim, conv_dim, dim), groups, PCM_STRIDES[ratio])
        tokens_dim = pyramid_dim * len(dilations)
        self.norm1 = nn.LayerNorm(tokens_dim, eps=norm_eps)
        table = window_size if relative_positions else None
        self.attn = ReductionAttention(tokens_dim, dim, num_heads, residual=window_size is None, table=table)
        self.norm2 = nn.LayerNorm(dim, eps=norm_eps)
        self.mlp = Mlp(dim)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Map (B, C, H, W) to (B, C', H / ratio, W / ratio), rounded up."""
        x = padded(x_BCHW, self.ratio, rows=2)
        pyramid_BNP = torch.stack([to_tokens(conv(x)) for conv in self.pyramid], -1).flatten(2)
        convs = self.convs(x)
        size = convs.shape[-2:]
        y = self._attend(pyramid_BNP, size) + to_tokens(convs)
        y = y + self._feed_forward(y)
        return to_map(y, size)

    def _attend(self, pyramid_BNP: Tensor, size: Sequence[int]) -> Tensor:
        return _attended(self.attn, self.norm1(F.gelu(pyramid_BNP)), size, self.window_size)

    def _feed_forward(self, x_BNC: Tensor) -> Tensor:
        y: Tensor = self.mlp(self.norm2(x_BNC))
        return y


class NormalCell(nn.Module):
    """A transformer block with a PCM beside its attention, on a map (B, C, H, W).

    Args:
        dim: channels of the map.
        mlp_dim: hidden channels of the MLP.
        conv_dim: hidden channels of the PCM.
        window_size: side of the attention windows in tokens; None: attention over the whole map.

    The others are those of `ViTAEv2`.
    """

    def __init__(
        self,
        dim: int,
        *,
        num_heads: int,
        head_dim: int,
        mlp_dim: int,
        conv_dim: int,
        groups: int,
        window_size: int | None,
        drop_path: float,
        relative_positions: bool,
        norm_eps: float,
    ) -> None:
        super().__init__()
        self.window_size = window_size
        self.norm1 = nn.LayerNorm(dim, eps=norm_eps)
        self.attn = Attention(dim, num_heads, head_dim, table=window_size if relative_positions else None)
        self.convs = pcm((dim, conv_dim, dim, dim), groups, (1, 1, 1))
        self.norm2 = nn.LayerNorm(dim, eps=norm_eps)
        self.mlp = Mlp(dim, mlp_dim)
        self.drop_path = DropPath(drop_path)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Map (B, C, H, W) to (B, C, H, W)."""
        size = x_BCHW.shape[-2:]
        x = to_tokens(x_BCHW)
        attended = self._attend(x, size)
        x = x + self.drop_path(attended) + self.drop_path(to_tokens(self.convs(x_BCHW)))
        x = x + self.drop_path(self._feed_forward(x))
        return to_map(x, size)

    def _attend(self, x_BNC: Tensor, size: Sequence[int]) -> Tensor:
        return _attended(self.attn, self.norm1(x_BNC), size, self.window_size)

    def _feed_forward(self, x_BNC: Tensor) -> Tensor:
        y: Tensor = self.mlp(self.norm2(x_BNC))
        return y


class Attention(nn.Module):
    """Multi-head attention of a normal cell; the rows of `qkv` are (head, q/k/v, channel).

    Args:
        dim: channels of the tokens.
        num_heads: attention heads.
        head_dim: channels of a head.
        table: side of the window that a table of relative position biases is made for; None: no table.
    """

    def __init__(self, dim: int, num_heads: int, head_dim: int, *, table: int | None = None) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.head_dim = head_dim
        self.qkv = nn.Linear(dim, num_heads * 3 * head_dim)
        self.relative_bias = _table(table, num_heads)
        self.proj = nn.Linear(num_heads * head_dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        """Map tokens (B, N, C) to (B, N, C)."""
        b, n, _ = x.shape
        q, k, v = self.qkv(x).view(b, n, self.num_heads, 3, self.head_dim).permute(3, 0, 2, 1, 4)
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=_bias(self.relative_bias, n))
        return self.proj(y.transpose(1, 2).reshape(b, n, -1))


class ReductionAttention(nn.Module):
    """Multi-head attention of a reduction cell; the rows of `qkv` are (head, channel, q/k/v).

    So a leading slice has narrower heads where there is one, and fewer where their width is fixed.

    Args:
        inputs: channels of the tokens that it reads.
        dim: channels of those that it returns.
        num_heads: attention heads, a divisor of `dim`.
        residual: whether v is added to the result; `qkv` then has no bias.
        table: side of the window that a table of relative position biases is made for; None: no table.
    """

    def __init__(self, inputs: int, dim: int, num_heads: int, *, residual: bool, table: int | None = None) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.head_dim = divided(dim, num_heads, "attention heads")
        self.residual = residual
        self.qkv = nn.Linear(inputs, dim * 3, bias=not residual)
        self.relative_bias = _table(table, num_heads)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        """Map tokens (B, N, P) to (B, N, C)."""
        b, n, _ = x.shape
        qkv = self.qkv(x).view(b, n, self.num_heads, self.head_dim, 3)
        q, k, v = qkv.permute(4, 0, 2, 1, 3).contiguous()  # fused attention refuses strided channels
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=_bias(self.relative_bias, n))
        y = self.proj(y.transpose(1, 2).reshape(b, n, -1))
        return y + qkv[..., 2].flatten(2) if self.residual else y


def _table(side: int | None, num_heads: int) -> nn.Parameter | None:
    """Return a table of biases, one row per relative position inside a window of `side`, one column per head."""
    if side is None:
        return None
    return nn.Parameter(nn.init.trunc_normal_(torch.empty((2 * side - 1) ** 2, num_heads), std=0.02))


def _bias(table: Tensor | None, tokens: int) -> Tensor | None:
    """Return the bias (1, h, N, N) of the logits of a square window of N tokens."""
    if table is None:
        return None
    side = math.isqrt(tokens)
    return relative_bias(table, relative_position_index(side, side, table.device))


def _attended(attention: nn.Module, x_BNC: Tensor, size: Sequence[int], window: int | None) -> Tensor:
    """Attend over the whole map, or inside windows; the map is then padded with zeros evenly on both sides."""
    if window is None:
        result: Tensor = attention(x_BNC)
        return result
    return attend_in_windows(attention, x_BNC, size, window, centred=True)


def pcm(widths: tuple[int, int, int, int], groups: int, strides: tuple[int, int, int]) -> nn.Sequential:
    """Return the parallel convolutions: three of 3x3, from width to width, with BatchNorm and SiLU between.

    Raises:
        UserError: if the groups do not divide a width.
    """
    for width in widths:
        divided(width, groups, "the groups of a PCM")
    layers: list[nn.Module] = []
    for (inputs, outputs), stride in zip(pairwise(widths), strides, strict=True):
        layers += [
            nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, groups=groups),
            nn.BatchNorm2d(outputs),
            nn.SiLU(inplace=True),
        ]
    return nn.Sequential(*layers[:-2])  # nothing follows the last convolution


def divided(width: int, parts: int, what: str) -> int:
    """Return the channels of one of `parts` equal parts.

    Raises:
        UserError: if they do not divide the width; `what` names them.
    """
    if width % parts:
        raise UserError(f"{what} must divide {width} channels, but are {parts}: change the one or the other")
    return width // parts
