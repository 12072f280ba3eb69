"""How stored tensors are lent: leading slices, and the straight-through choice between two of them."""

from typing import Any

import torch
from torch import Tensor


def leading(tensor: Tensor, shape: torch.Size) -> Tensor:
    """Return the leading slice of a tensor along every dimension: a view of `shape`, which must fit into it.

    One view for all dimensions: its gradient is written in one step, not in one per dimension.
    """
    return tensor if tensor.shape == shape else tensor.as_strided(shape, tensor.stride())


def fits(shape: torch.Size, stored: torch.Size) -> bool:
    """Return whether a stored tensor has a leading slice of `shape`."""
    return len(shape) == len(stored) and all(small <= large for small, large in zip(shape, stored, strict=True))


def choose(shared: Tensor, specific: Tensor, score: Tensor, use_shared: bool, shape: torch.Size) -> Tensor:
    """Return the leading slice of the shared or of the specific tensor, with a gradient for the score.

    `W = shared if use_shared else specific`, `dL/dscore = <dL/dW, shared - specific>`, straight through the threshold.
    The tensor that is not chosen gets no gradient, not even zeros.

    Args:
        shared: the tensor shared by the tasks.
        specific: the task's own tensor, of the same shape.
        score: scalar, or shape (1,).
        use_shared: whether the score is above the threshold.
        shape: the shape of the slice.
    """
    result: Tensor = _Choose.apply(leading(shared if use_shared else specific, shape), score, (shared, specific))
    return result


class _Choose(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, chosen: Tensor, score: Tensor, pair: tuple[Tensor, Tensor]) -> Tensor:
        ctx.save_for_backward(*pair)
        ctx.score_shape = score.shape
        return chosen.view_as(chosen)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor | None, None]:
        grad_score = None
        if ctx.needs_input_grad[1]:
            shared, specific = (leading(tensor.detach(), grad.shape) for tensor in ctx.saved_tensors)
            grad_score = torch.dot(grad.reshape(-1), (shared - specific).reshape(-1)).view(ctx.score_shape)
        return grad, grad_score, None
