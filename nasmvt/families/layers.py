"""Small layers and reshapes shared by several families.

Shapes: B batch, N tokens, M some of them, C channels, D channels of a head, H height, W width, S side of a window,
h heads.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

_SCORES = 2**26
"""Attention scores of a layer, 256 MB of float32, up to which they are kept for the backward pass."""
_SCORES_AT_ONCE = 2**21
"""Attention scores that are held at a time, if there are more."""


def to_tokens(map_BCHW: Tensor) -> Tensor:
    """Turn a map (B, C, H, W) into tokens (B, N, C), row by row."""
    return map_BCHW.flatten(2).transpose(1, 2)


def to_map(tokens_BNC: Tensor, size: Sequence[int]) -> Tensor:
    """Turn tokens (B, N, C) into a map (B, C, H, W) of `size` (H, W), N = H * W."""
    return tokens_BNC.transpose(1, 2).unflatten(2, (size[0], size[1]))


def to_windows(x_BHWC: Tensor, side: int) -> Tensor:
    """Partition (B, H, W, C) into windows (B * windows, S * S, C), row by row; H and W are multiples of `side`."""
    b, height, width, c = x_BHWC.shape
    x = x_BHWC.view(b, height // side, side, width // side, side, c)
    return x.transpose(2, 3).reshape(-1, side * side, c)


def from_windows(windows: Tensor, side: int, size: Sequence[int]) -> Tensor:
    """Merge windows (B * windows, S * S, C) into (B, H, W, C) of `size` (H, W); the inverse of `to_windows`."""
    rows, columns, c = size[0] // side, size[1] // side, windows.shape[-1]
    x = windows.view(-1, rows, columns, side, side, c)
    return x.transpose(2, 3).reshape(-1, size[0], size[1], c)


def relative_position_index(height: int, width: int, device: torch.device) -> Tensor:
    """Return, for each pair of tokens of a map, its row in a table of relative positions: (N, N) int64 (Swin).

    Recomputed in every forward pass: a tensor cached during tracing (`torch.export`) would be a fake one.
    """
    rows, columns = torch.arange(height, device=device), torch.arange(width, device=device)
    row = (rows[:, None] - rows[None, :] + height - 1)[:, None, :, None]
    column = (columns[:, None] - columns[None, :] + width - 1)[None, :, None, :]
    return (row * (2 * width - 1) + column).reshape(height * width, height * width)


def relative_bias(table: Tensor, index: Tensor) -> Tensor:
    """Return the bias (1, h, N, N) of attention logits.

    Args:
        table: one row per relative position, one column per head h.
        index: `relative_position_index` of the N tokens.
    """
    return table[index].permute(2, 0, 1).unsqueeze(0)


def biased_attention(q: Tensor, k: Tensor, v: Tensor, table: Tensor, index: Tensor, *, training: bool) -> Tensor:
    """Return multi-head attention with a relative position bias, (B, h, N, D).

    On a CPU `scaled_dot_product_attention` keeps all B * h * N * N scores, several times over, for the gradient of a
    bias. Where these are many, a few queries are attended for at a time, and their scores are computed again in the
    backward pass: they stay in the processor's caches, which makes up for it.

    Args:
        q: queries (B, h, N, D); keys `k` and values `v` alike.
        table: one row per relative position, one column per head h.
        index: `relative_position_index` of the N tokens.
        training: whether gradients may be wanted.
    """
    b, heads, tokens, _ = q.shape
    if not (training and torch.is_grad_enabled() and q.device.type == "cpu" and b * heads * tokens**2 > _SCORES):
        return F.scaled_dot_product_attention(q, k, v, attn_mask=relative_bias(table, index))
    rows = max(1, _SCORES_AT_ONCE // (b * heads * tokens))
    parts = zip(q.split(rows, dim=2), index.view(tokens, tokens).split(rows), strict=True)
    return torch.cat([recomputed(True, _attend_for, part, k, v, table, positions) for part, positions in parts], dim=2)


def _attend_for(q_BhMD: Tensor, k: Tensor, v: Tensor, table: Tensor, index_MN: Tensor) -> Tensor:
    """Attend for some of the queries."""
    return F.scaled_dot_product_attention(q_BhMD, k, v, attn_mask=table[index_MN].permute(2, 0, 1).unsqueeze(0))


def recomputed(enabled: bool, function: Callable[..., Tensor], *args: Any) -> Tensor:
    """Call a function; if enabled and gradients are recorded, recompute its activations in the backward pass.

    Gradient checkpointing: trades time for memory. Not for a function that contains BatchNorm, whose statistics
    would be updated twice.
    """
    if enabled and torch.is_grad_enabled():
        result: Tensor = checkpoint(function, *args, use_reentrant=False)
        return result
    return function(*args)


def resized(table: Tensor, size: Sequence[int]) -> Tensor:
    """Resize a table of positions (1, C, H, W) bicubically, smoothed where it shrinks, as timm does.

    A table of that size is returned as it is.
    """
    if table.shape[2:] == tuple(size):
        return table
    return F.interpolate(table, size=tuple(size), mode="bicubic", antialias=True, align_corners=False)


def start_linear(module: nn.Module) -> None:
    """Initialise a linear layer as in vision transformers (weights truncated normal 0.02); for `Module.apply`."""
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


class MeanLinear(nn.Module):
    """The usual classifier of a published network: the mean over the last map, then a linear layer.

    Args:
        width: channels C of the last map.
        classes: number of classes K.
    """

    def __init__(self, width: int, classes: int) -> None:
        super().__init__()
        self.fc = nn.Linear(width, classes)

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Turn maps, of which the last is (B, C, H, W), into logits (B, K)."""
        logits: Tensor = self.fc(maps[-1].mean((2, 3)))
        return logits


class Classifier(nn.Module):
    """A published classification network: a backbone and a head.

    Args:
        backbone: images (B, 3, H, W) to a tuple of maps.
        head: module that maps the tuple of maps to logits (B, K).
    """

    def __init__(self, backbone: nn.Module, head: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = head

    def forward(self, images: Tensor) -> Tensor:
        """Turn images (B, 3, H, W) into logits (B, K)."""
        logits: Tensor = self.head(self.backbone(images))
        return logits
