"""Attention with a learned bias per relative position (Swin), within a processor's caches where tokens are many.

Shapes: B batch, h heads, N tokens, M some of them, D channels of a head, R relative positions.
"""

from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

_SCORES = 2**26
"""Attention scores of a layer, 256 MB of float32, up to which they are kept for the backward pass."""
_SCORES_AT_ONCE = 2**21
"""Attention scores of an image that are held at a time, if there are more."""


def relative_position_index(height: int, width: int, device: torch.device) -> Tensor:
    """Return, for each pair of tokens of a map, its row in a table of relative positions: (N, N) int64.

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
    backward pass.

    Args:
        q: queries (B, h, N, D); keys `k` and values `v` alike.
        table: one row per relative position, one column per head h.
        index: `relative_position_index` of the N tokens.
        training: whether gradients may be wanted.
    """
    b, heads, tokens, _ = q.shape
    if training and torch.is_grad_enabled() and q.device.type == "cpu" and b * heads * tokens**2 > _SCORES:
        result: Tensor = _PartByPart.apply(q, k, v, table, index)
        return result
    return F.scaled_dot_product_attention(q, k, v, attn_mask=relative_bias(table, index))


class _PartByPart(torch.autograd.Function):
    """Attention for a few queries at a time. The gradients are those of softmax attention, in float32.

    With P the weights of the values, dS = P * (dP - rowsum(dO * O)), and the bias takes dS summed over the batch.
    """

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, table: Tensor, index: Tensor) -> Tensor:
        table_hR = table.to(q.dtype).T.contiguous()
        parts = [
            F.scaled_dot_product_attention(q[:, :, rows], k, v, attn_mask=table_hR[:, index[rows]].unsqueeze(0))
            for rows in _parts(q)
        ]
        out = torch.cat(parts, dim=2)
        ctx.save_for_backward(q, k, v, table, index, out)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        *inputs, table, index, out = ctx.saved_tensors
        q, k, v = (x.float() for x in inputs)
        grad = grad.float()
        dots = (grad * out).sum(-1, keepdim=True)
        k_scaled = k * q.shape[-1] ** -0.5
        table_hR = table.float().T.contiguous()
        dq, dk, dv, dtable_hR = (torch.zeros_like(x) for x in (q, k, v, table_hR))
        for rows in _parts(q):
            bias_hMN = table_hR[:, index[rows]]
            dbias_hMN = torch.zeros_like(bias_hMN)
            for i in range(len(q)):
                weights = torch.baddbmm(bias_hMN, q[i, :, rows], k_scaled[i].mT).softmax(-1)
                dv[i].baddbmm_(weights.mT, grad[i, :, rows])
                dscores = torch.bmm(grad[i, :, rows], v[i].mT).sub_(dots[i, :, rows]).mul_(weights)
                dq[i, :, rows] = torch.bmm(dscores, k_scaled[i])
                dk[i].baddbmm_(dscores.mT, q[i, :, rows], alpha=q.shape[-1] ** -0.5)
                dbias_hMN += dscores
            dtable_hR.index_add_(1, index[rows].flatten(), dbias_hMN.flatten(1))
        grads = (x.to(given.dtype) for x, given in zip((dq, dk, dv), inputs, strict=True))
        return *grads, dtable_hR.T.to(table.dtype), None


def _parts(q: Tensor) -> Iterator[slice]:
    """Yield the queries that are attended for at a time."""
    _, heads, tokens, _ = q.shape
    size = max(1, _SCORES_AT_ONCE // (heads * tokens))
    for first in range(0, tokens, size):
        yield slice(first, min(first + size, tokens))
