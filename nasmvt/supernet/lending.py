"""How stored tensors are lent: leading slices or middle parts, and the straight-through choice between two of them.

One autograd function takes all slices of a network: hundreds of graph nodes with their own bookkeeping would take as
long as a small network itself.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor, constant_pad_nd


def part(tensor: Tensor, shape: torch.Size, centred: tuple[int, ...] = ()) -> Tensor:
    """Return the part of a tensor that a smaller one of `shape` is: a view.

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


class Slice(NamedTuple):
    """The part of a stored tensor that a network has."""

    shape: torch.Size
    centred: tuple[int, ...]
    """See `part`."""
    margins: tuple[int, ...]
    """The part's distances from the ends of the tensor, as `torch.nn.functional.pad` takes them; empty if all are 0."""
    layer: str | None
    """The layer whose score chooses between a shared and a specific tensor; None: there is no choice."""

    @classmethod
    def of(cls, stored: torch.Size, shape: torch.Size, centred: tuple[int, ...], layer: str | None) -> "Slice":
        """Return the slice of `shape` of a tensor that is stored in another."""
        margins: list[int] = []
        for dim in reversed(range(len(shape))):
            lacking = stored[dim] - shape[dim]
            before = lacking // 2 if dim in centred else 0
            margins += before, lacking - before
        return cls(shape, centred, tuple(margins), layer) if any(margins) else cls(shape, (), (), layer)

    def __call__(self, tensor: Tensor) -> Tensor:
        """Return the slice of a tensor: a view, which is never the tensor itself."""
        if self.centred:
            return part(tensor, self.shape, self.centred)
        return tensor.as_strided(self.shape, tensor.stride())


class Loan:
    """The slices that are lent to a network: requested one by one, taken all at once.

    In an adaptive layer `W = shared if use_shared else specific` and `dL/dscore = <dL/dW, shared - specific>`, straight
    through the threshold. The tensor that is not chosen gets no gradient, not even zeros.
    """

    def __init__(self) -> None:
        self.over = False
        """Whether a backward pass has reached the stored tensors."""
        self.slices: list[Slice] = []
        self.tensors: list[Tensor] = []
        """The tensors to slice."""
        self.pairs: list[Tensor] = []
        """The shared and the specific tensor of every slice with a choice."""
        self.scores: dict[str, tuple[Tensor, int]] = {}
        """The scores (T,) of a layer, and the index of the one in use."""

    def add(self, cut: Slice, tensor: Tensor) -> None:
        """Request a slice of a tensor."""
        self.slices.append(cut)
        self.tensors.append(tensor)

    def add_choice(
        self, cut: Slice, shared: Tensor, specific: Tensor, score: tuple[Tensor, int], use_shared: bool
    ) -> None:
        """Request a slice of the shared or of the specific tensor, which have one shape."""
        assert cut.layer is not None
        self.pairs += shared, specific
        self.scores[cut.layer] = score
        self.add(cut, shared if use_shared else specific)

    def take(self) -> tuple[Tensor, ...]:
        """Return the slices in the order of the requests: views, through which gradients flow into the store."""
        self.over = not torch.is_grad_enabled()
        taken: tuple[Tensor, ...] = _Take.apply(self, *self.tensors, *(score for score, _ in self.scores.values()))
        return taken


class _Take(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, loan: Loan, *inputs: Tensor) -> tuple[Tensor, ...]:
        ctx.loan = loan
        ctx.save_for_backward(*loan.pairs)
        ctx.set_materialize_grads(False)
        taken = tuple([cut(tensor) for cut, tensor in zip(loan.slices, loan.tensors, strict=True)])
        if not all(ctx.needs_input_grad[1:]):
            slices = zip(taken, loan.slices, ctx.needs_input_grad[1:], strict=False)  # scores follow the tensors
            ctx.mark_non_differentiable(*[one for one, cut, needed in slices if not needed and cut.layer is None])
        return taken

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor | None, ...]:
        loan: Loan = ctx.loan
        loan.over = True
        pairs = iter(ctx.saved_tensors)
        tensors: list[Tensor | None] = []
        scores: dict[str, Tensor] = {}
        for cut, gradient in zip(loan.slices, gradients, strict=True):
            if cut.layer is not None:
                shared, specific = next(pairs), next(pairs)
                if gradient is not None:
                    found = torch.dot(gradient.reshape(-1), (cut(shared) - cut(specific)).reshape(-1))
                    known = scores.get(cut.layer)
                    scores[cut.layer] = found if known is None else known + found
            if cut.margins and gradient is not None:
                gradient = constant_pad_nd(gradient, cut.margins)
            tensors.append(gradient)
        return None, *tensors, *(_at(scores.get(layer), *score) for layer, score in loan.scores.items())


def _at(value: Tensor | None, score: Tensor, place: int) -> Tensor | None:
    """Return the gradient (T,) of a layer's scores from that of the one in use."""
    return None if value is None else constant_pad_nd(value.view(1), (place, len(score) - 1 - place))
