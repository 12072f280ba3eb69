"""The two kinds of attention of ScalableViT, on maps (B, H, W, C) of any size.

Shapes: B batch, C channels, H height and W width in tokens, N tokens, h heads, d head width, e head width of
queries and keys, S side of a window.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nasmvt.errors import UserError
from nasmvt.families.layers import padded, to_tokens, to_windows
from nasmvt.families.rounding import multiple


class IWSA(nn.Module):
    """Interactive window self-attention: attention inside windows, plus a convolution of the values across them."""

    def __init__(self, dim: int, num_heads: int, head_dim: int, side: int, qkv_bias: bool) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.side = side
        inner = num_heads * head_dim
        self.qkv = nn.Linear(dim, inner * 3, bias=qkv_bias)
        self.lim = nn.Conv2d(inner, inner, 3, padding=1, groups=inner)
        self.proj = nn.Linear(inner, dim)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, H, W, C) to (B, H, W, C)."""
        _, height, width, _ = x.shape
        x = padded(x, self.side)
        qkv = self.qkv(to_windows(x, self.side)).unflatten(-1, (self.num_heads, 3, -1))
        q, k, v = qkv.permute(3, 0, 2, 1, 4)
        y = F.scaled_dot_product_attention(q, k, v)
        y, v = (self._joined(t, x.shape[1:3])[:, :height, :width] for t in (y, v))
        return self.proj(y + bhwc(self.lim(bchw(v))))

    def _joined(self, windows: Tensor, size: Sequence[int]) -> Tensor:
        """Merge windows (B * windows, h, S * S, d) into a map (B, H, W, h * d) of `size` (H, W)."""
        rows, columns = size[0] // self.side, size[1] // self.side
        x = windows.unflatten(2, (self.side, self.side)).unflatten(0, (-1, rows, columns))
        return x.permute(0, 1, 4, 2, 5, 3, 6).reshape(-1, *size, windows.shape[1] * windows.shape[3])


class SSA(nn.Module):
    """Scalable self-attention: every token attends to the whole map, of which there are fewer keys of another width.

    With spatial ratio 1 the keys and values come from the tokens themselves, and have the usual width.
    """

    def __init__(
        self,
        dim: int,
        num_heads: int,
        head_dim: int,
        sr_ratio: int,
        c_ratio: float,
        qkv_bias: bool,
        round_to: int = 1,
    ) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.sr_ratio = sr_ratio
        self.scale = (head_dim * c_ratio) ** -0.5
        inner = num_heads * head_dim
        if sr_ratio == 1:
            self.q = HeadsLinear(dim, num_heads, head_dim, qkv_bias)
            self.kv = nn.Linear(dim, inner * 2, bias=qkv_bias)
        else:
            key_dim = multiple(int(inner * c_ratio) // num_heads, round_to)
            if key_dim < 1:
                raise UserError(
                    f"c_ratio must leave a channel to each head, but {c_ratio} of {inner} channels is too little "
                    f"for {num_heads} heads: raise it"
                )
            reduced = num_heads * key_dim
            self.q = HeadsLinear(dim, num_heads, key_dim, qkv_bias)
            self.pool = nn.Conv2d(dim, dim, sr_ratio, stride=sr_ratio, groups=dim)
            self.reduce = nn.Conv2d(dim, reduced, 1)
            self.norm = nn.LayerNorm(reduced)
            self.act = nn.GELU()
            self.k = HeadsLinear(reduced, num_heads, key_dim, qkv_bias)
            self.v = nn.Linear(reduced, inner, bias=qkv_bias)
        self.proj = nn.Linear(inner, dim)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, H, W, C) to (B, H, W, C)."""
        tokens_BNC = x.flatten(1, 2)
        q = self.q(tokens_BNC)
        if self.sr_ratio == 1:
            k, v = self.kv(tokens_BNC).unflatten(-1, (self.num_heads, 2, -1)).unbind(3)
        else:
            map_BCHW = self.reduce(self.pool(bchw(padded(x, self.sr_ratio))))
            reduced = self.act(self.norm(to_tokens(map_BCHW)))
            k, v = self.k(reduced), self.v(reduced).unflatten(-1, (self.num_heads, -1))
        y = _attend(q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2), self.scale)
        return self.proj(y.transpose(1, 2).flatten(2)).view(x.shape)


class HeadsLinear(nn.Module):
    """A linear layer whose outputs are the channels of heads: weight (h, e, C), bias (h, e).

    So a leading slice is a layer with fewer heads, or with fewer channels in each, or both.
    """

    def __init__(self, dim: int, num_heads: int, head_dim: int, bias: bool) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(num_heads, head_dim, dim))
        self.bias = nn.Parameter(torch.empty(num_heads, head_dim)) if bias else None

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, N, C) to (B, N, h, e)."""
        bias = None if self.bias is None else self.bias.flatten()
        return F.linear(x, self.weight.flatten(0, 1), bias).unflatten(-1, self.weight.shape[:2])


def bchw(x_BHWC: Tensor) -> Tensor:
    """View a map (B, H, W, C) as (B, C, H, W)."""
    return x_BHWC.permute(0, 3, 1, 2)


def bhwc(x_BCHW: Tensor) -> Tensor:
    """View a map (B, C, H, W) as (B, H, W, C)."""
    return x_BCHW.permute(0, 2, 3, 1)


def _attend(q: Tensor, k: Tensor, v: Tensor, scale: float) -> Tensor:
    """Attend with queries and keys (B, h, N, e) and values (B, h, N, d).

    Zero padding makes e and d equal, as fused kernels require; it does not change the result.
    """
    width, extra = v.shape[-1], q.shape[-1] - v.shape[-1]
    if extra > 0:
        v = F.pad(v, (0, extra))
    elif extra < 0:
        q, k = F.pad(q, (0, -extra)), F.pad(k, (0, -extra))
    return F.scaled_dot_product_attention(q, k, v, scale=scale)[..., :width]
