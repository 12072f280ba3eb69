"""How stored tensors are lent: leading slices or middle parts, and the straight-through choice between two of them."""

from typing import Any

import torch
from torch import Tensor


def part(tensor: Tensor, shape: torch.Size, centred: tuple[int, ...] = ()) -> Tensor:
    """Return the part of a tensor that a smaller one of `shape` is: a view.

    One view for all dimensions: its gradient is written in one step, not in one per dimension.

    Args:
        tensor: what is stored.
        shape: the shape of the part, which must fit into it.
        centred: dimensions along which the part is the middle of the tensor; along the others it is the leading part.
    """
    if tensor.shape == shape:
        return tensor
    skipped = sum((tensor.shape[dim] - shape[dim]) // 2 * tensor.stride(dim) for dim in centred)
    return tensor.as_strided(shape, tensor.stride(), tensor.storage_offset() + skipped)


def fits(shape: torch.Size, stored: torch.Size) -> bool:
    """Return whether a stored tensor has a part of `shape`."""
    return len(shape) == len(stored) and all(small <= large for small, large in zip(shape, stored, strict=True))


def choose(
    shared: Tensor,
    specific: Tensor,
    score: Tensor,
    use_shared: bool,
    shape: torch.Size,
    centred: tuple[int, ...] = (),
) -> Tensor:
    """Return the part of the shared or of the specific tensor, with a gradient for the score.

    `W = shared if use_shared else specific`, `dL/dscore = <dL/dW, shared - specific>`, straight through the threshold.
    The tensor that is not chosen gets no gradient, not even zeros.

    Args:
        shared: the tensor shared by the tasks.
        specific: the task's own tensor, of the same shape.
        score: scalar, or shape (1,).
        use_shared: whether the score is above the threshold.
        shape: the shape of the part.
        centred: see `part`.
    """
    chosen = part(shared if use_shared else specific, shape, centred)
    result: Tensor = _Choose.apply(chosen, score, (shared, specific), centred)
    return result


class _Choose(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, chosen: Tensor, score: Tensor, pair: tuple[Tensor, Tensor], centred: tuple[int, ...]
    ) -> Tensor:
        ctx.save_for_backward(*pair)
        ctx.centred = centred
        ctx.score_shape = score.shape
        return chosen.view_as(chosen)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor | None, None, None]:
        grad_score = None
        if ctx.needs_input_grad[1]:
            shared, specific = (part(tensor.detach(), grad.shape, ctx.centred) for tensor in ctx.saved_tensors)
            grad_score = torch.dot(grad.reshape(-1), (shared - specific).reshape(-1)).view(ctx.score_shape)
        return grad, grad_score, None, None
