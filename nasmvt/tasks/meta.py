"""Building on `meta`: tensors without values, skipping whatever would draw or write values."""

from typing import Any

import torch
from torch import Tensor
from torch.nn import Parameter
from torch.overrides import TorchFunctionMode


class OnMeta(TorchFunctionMode):
    """Puts new tensors on `meta` and skips what would only write values into them: `torch.nn.init`, `uniform_`, ...

    A single mode does all of it, since every call of torch passes through each active mode.

    Args:
        constants: whether tensors of given values (`arange`, `zeros`, `tensor`, ...) are real, on the CPU: what is
            computed from them alone, such as a buffer of indices, is then real as well.
    """

    def __init__(self, *, constants: bool = False) -> None:
        super().__init__()
        self._constants = "cpu" if constants else "meta"

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if getattr(func, "__module__", None) == "torch.nn.init":
            return args[0] if args else kwargs["tensor"]
        if func in _WRITERS and (isinstance(args[0], Parameter) or args[0].is_meta):
            return args[0]
        if func in _EMPTY and kwargs.get("device") is None:
            kwargs = {**kwargs, "device": "meta"}
        elif func in _FILLED and kwargs.get("device") is None:
            kwargs = {**kwargs, "device": self._constants}
        return func(*args, **kwargs)


_EMPTY = {torch.empty, torch.rand, torch.randn, torch.randint, torch.randperm}
"""Functions whose values are not needed."""

_FILLED = {torch.zeros, torch.ones, torch.full, torch.arange, torch.linspace, torch.eye, torch.tensor}
"""Functions that make tensors of given values."""

_WRITERS = {
    getattr(Tensor, f"{name}_")
    for name in (
        *("uniform", "normal", "log_normal", "exponential", "random", "bernoulli"),
        *("zero", "fill", "copy", "add", "sub", "mul", "div", "clamp", "erfinv"),
    )
}
"""Methods that only change the values of a tensor."""
