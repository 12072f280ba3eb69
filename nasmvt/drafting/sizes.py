"""Sizes that a network reads off its tensors while it runs, and views others in.

What `x.reshape(b, n, c)` gives has the channels `c` of the tensor that `c` was read off, whatever the two tensors have
to do with each other: in a smaller network both are as small, or it does not run.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from nasmvt.drafting.factors import Dim, factors, join
from nasmvt.drafting.tracing import Trace

_READ = (Tensor.shape.__get__, Tensor.size)  # type: ignore[attr-defined]
_VIEWS = (Tensor.reshape, Tensor.view, torch.reshape)


class Size(int):
    """A number of indices that was read off a dimension, or the quotient of such a number and another."""

    dim: Dim
    by: int

    @classmethod
    def of(cls, size: int, dim: Dim, by: int = 1) -> "Size":
        """Return a size of which `dim` has `by` times as many indices."""
        found = cls(size)
        found.dim, found.by = dim, by
        return found

    def __floordiv__(self, other: int) -> int:
        """Return the quotient, which knows what it is one of if there is no rest."""
        quotient, rest = divmod(int(self), int(other))
        return quotient if rest or self.by > 1 else Size.of(quotient, self.dim, int(other))

    def __reduce__(self) -> Any:
        """Copy as a plain number."""
        return int, (int(self),)


class Sizes(TorchFunctionMode):
    """Joins the dimensions of what is viewed in a size with those that the size was read off.

    Args:
        trace: the dimensions of all tensors.
    """

    def __init__(self, trace: Trace) -> None:
        super().__init__()
        self._trace = trace

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if func in _READ:
            dims = self._trace.dims(args[0])
            if isinstance(result, torch.Size):
                return torch.Size(map(Size.of, result, dims))
            place = args[1] if len(args) > 1 else kwargs["dim"]
            return Size.of(result, dims[place])
        if func in _VIEWS and len(args) > 1 and not isinstance(args[1], torch.dtype):
            self._viewed(result, args[1] if isinstance(args[1], Sequence) else args[1:])
        return result

    def _viewed(self, result: Tensor, sizes: Sequence[Any]) -> None:
        dims = self._trace.dims(result)
        for place, size in enumerate(sizes):
            if not isinstance(size, Size) or all(factor.fixed for factor in factors(size.dim)):
                continue
            if size.by == 1:
                join(dims[place], size.dim)
            elif place and sizes[place - 1] == size.by:
                join([*dims[place - 1], *dims[place]], size.dim)
