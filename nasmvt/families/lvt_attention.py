"""The attention modules of LVT, convolutional (CSA) and recursive atrous (RASA), and their layers.

Shapes: B batch, N tokens, C channels, H height and W width in tokens, h heads, c head width, M positions of CSA.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nasmvt.families.layers import to_map, to_tokens

KERNEL, STRIDE = 3, 2
"""Side of CSA's windows and their distance, in tokens; neighbours overlap by one row or column."""
TAPS = KERNEL * KERNEL


class PatchEmbed(nn.Module):
    """Strided convolution of a map (B, C', H', W'), then LayerNorm."""

    def __init__(self, inputs: int, dim: int, kernel: int, stride: int, padding: int, norm_eps: float) -> None:
        super().__init__()
        self.proj = nn.Conv2d(inputs, dim, kernel, stride=stride, padding=padding)
        self.norm = nn.LayerNorm(dim, eps=norm_eps)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C', H', W') to (B, C, H, W)."""
        x = self.proj(x)
        return to_map(self.norm(to_tokens(x)), x.shape[-2:])


class CSA(nn.Module):
    """Convolutional self-attention (section 3.1 of the paper).

    9 x 9 attention in each of M = ceil(H / 2) * ceil(W / 2) windows.
    """

    def __init__(self, dim: int, num_heads: int, qkv_bias: bool) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.logits = nn.Linear(dim, num_heads * TAPS * TAPS)
        self.values = TapLinear(dim, qkv_bias)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor, size: Sequence[int]) -> Tensor:
        """Map tokens (B, N, C) of a map of `size` (H, W) to (B, N, C)."""
        b, _, c = x.shape
        x_BCHW = to_map(x, size)
        pooled_BMC = to_tokens(F.avg_pool2d(x_BCHW, STRIDE, ceil_mode=True))
        logits = self.logits(pooled_BMC).view(b, -1, self.num_heads, TAPS, TAPS)
        weights = (logits * (c // self.num_heads) ** -0.5).softmax(-1)
        windows = F.unfold(x_BCHW, KERNEL, padding=KERNEL // 2, stride=STRIDE).view(b, c, TAPS, -1)
        values = self.values(windows).unflatten(3, (self.num_heads, -1))  # (9, B, M, h, c)
        y = weights @ values.permute(1, 2, 3, 0, 4)
        y = y.permute(0, 2, 4, 3, 1).reshape(b, c * TAPS, -1)
        y_BCHW = F.fold(y, (size[0], size[1]), KERNEL, padding=KERNEL // 2, stride=STRIDE)
        result: Tensor = self.proj(to_tokens(y_BCHW))
        return result


class TapLinear(nn.Module):
    """A separate linear layer for each of a window's nine taps."""

    def __init__(self, dim: int, bias: bool) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(dim, TAPS, dim))
        self.bias = nn.Parameter(torch.empty(dim, TAPS)) if bias else None

    def forward(self, windows: Tensor) -> Tensor:
        """Map windows (B, C, 9, M) to (9, B, M, C)."""
        values = torch.einsum("bitm,oti->tbmo", windows, self.weight)
        return values if self.bias is None else values + self.bias.T[:, None, None]


class RASA(nn.Module):
    """Recursive atrous self-attention (section 3.2 of the paper)."""

    def __init__(
        self,
        dim: int,
        num_heads: int,
        sr_ratio: int,
        atrous_rates: Sequence[int],
        recursions: int,
        qkv_bias: bool,
        norm_eps: float,
    ) -> None:
        super().__init__()
        self.recursions = recursions
        self.q = nn.Linear(dim, dim, bias=qkv_bias)
        self.atrous = AtrousFilter(dim, atrous_rates)
        self.kv = KeyValue(dim, num_heads, qkv_bias)
        self.reduce = PatchEmbed(dim, dim, sr_ratio, sr_ratio, 0, norm_eps) if sr_ratio > 1 else None
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor, size: Sequence[int]) -> Tensor:
        """Map tokens (B, N, C) of a map of `size` (H, W) to (B, N, C)."""
        if self.recursions == 1:
            return self._attend(x, size)
        y = F.silu(self._attend(x, size))
        for _ in range(self.recursions - 1):
            x = x + y
            y = F.silu(self._attend(x, size))
        return y

    def _attend(self, x: Tensor, size: Sequence[int]) -> Tensor:
        q = to_tokens(self.atrous(to_map(self.q(x), size))).unflatten(2, (self.kv.num_heads, -1))
        source = x if self.reduce is None else to_tokens(self.reduce(to_map(x, size)))
        y = F.scaled_dot_product_attention(q.transpose(1, 2), *self.kv.heads(source))
        result: Tensor = self.proj(y.transpose(1, 2).flatten(2))
        return result


class AtrousFilter(nn.Module):
    """One depthwise 3 x 3 kernel at several dilations, SiLU after each, summed, on a map (B, C, H, W)."""

    def __init__(self, dim: int, rates: Sequence[int]) -> None:
        super().__init__()
        self.rates = tuple(rates)
        self.weight = nn.Parameter(torch.empty(dim, 1, 3, 3))

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to (B, C, H, W)."""
        first, *others = (
            F.silu(F.conv2d(x, self.weight, padding=rate, dilation=rate, groups=len(self.weight)))
            for rate in self.rates
        )
        return sum(others, first)


class KeyValue(nn.Linear):
    """The linear layer of keys and values; rows (head, k/v, channel)."""

    def __init__(self, dim: int, num_heads: int, bias: bool) -> None:
        super().__init__(dim, 2 * dim, bias=bias)
        self.num_heads = num_heads

    def heads(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Map tokens (B, N, C) to keys and values, (B, h, N, c) each."""
        k, v = self(x).unflatten(2, (self.num_heads, 2, -1)).permute(3, 0, 2, 1, 4)
        return k, v
