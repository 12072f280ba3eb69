"""How stored tensors are lent: leading slices, and the straight-through choice between two of them."""

from typing import Any

import torch
from torch import Tensor

from nasmvt.model.multi_task import copy_of


def leading(tensor: Tensor, shape: torch.Size) -> Tensor:
    """Return the leading slice of a tensor along every dimension: a view of `shape`."""
    if tensor.shape == shape:
        return tensor
    return tensor[tuple(slice(size) for size in shape)]


def copied(tensor: Tensor, shape: torch.Size) -> Tensor:
    """Return a contiguous copy of the leading slice, without a gradient."""
    return copy_of(leading(tensor, shape))


def choose(shared: Tensor, specific: Tensor, score: Tensor, use_shared: bool) -> Tensor:
    """Return the shared or the specific tensor, with a gradient for the score.

    `W = shared if use_shared else specific`, `dL/dscore = <dL/dW, shared - specific>` (design.md,
    section 3). The tensor that is not chosen gets no gradient, not even zeros.

    Args:
        shared: tensor that all tasks have in common.
        specific: the task's own tensor, of the same shape.
        score: scalar, or shape (1,).
        use_shared: whether the score is above the threshold.
    """
    chosen = shared if use_shared else specific
    result: Tensor = _Choose.apply(chosen, score, shared.detach(), specific.detach())
    return result


class _Choose(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, chosen: Tensor, score: Tensor, shared: Tensor, specific: Tensor) -> Tensor:
        ctx.save_for_backward(shared, specific)
        ctx.score_shape = score.shape
        return chosen.view_as(chosen)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor | None, None, None]:
        shared, specific = ctx.saved_tensors
        grad_score = None
        if ctx.needs_input_grad[1]:
            grad_score = torch.dot(grad.reshape(-1), (shared - specific).reshape(-1)).view(ctx.score_shape)
        return grad, grad_score, None, None
