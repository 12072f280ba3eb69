"""Following the dimensions of a network's tensors through its operations, on `meta`.

Every operation that torch performs is seen, whatever Python does around it. Operations that `nasmvt.drafting.rules`
does not know leave nothing free of what they read.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from nasmvt.drafting.factors import Dim, Factor, factors, fix
from nasmvt.drafting.rules import MAP, RULES, Call, pointwise

CONSTANT = "meets a constant of the network"
IMAGES = ("is the batch", "is the colours of the image", MAP, MAP)
"""Why the dimensions of images, and what is joined with them, can't vary."""


class Trace(TorchDispatchMode):
    """The dimensions of all tensors of a network on `meta`, and what runs of it say about them.

    Args:
        network: the network; its parameters and buffers are known by name.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.tensors: dict[str, Tensor] = dict(network.state_dict(keep_vars=True))
        self._dims: dict[int, tuple[Tensor, list[Dim]]] = {}
        self._sources: dict[int, set[int]] = {}
        """For the memory of each tensor, that of the tensors it was computed from; views have their tensor's."""
        self._data: set[int] = set()
        for tensor in self.tensors.values():
            self.give(tensor, [[Factor(size)] for size in tensor.shape])

    def give(self, tensor: Tensor, dims: Sequence[Dim]) -> None:
        """Note the dimensions of a tensor, which is kept alive."""
        self._dims[id(tensor)] = tensor, list(dims)

    def dims(self, tensor: Tensor) -> list[Dim]:
        """Return the dimensions of a tensor; those of an unknown one are constants."""
        if id(tensor) not in self._dims:
            self.give(tensor, [[Factor(size, CONSTANT)] for size in tensor.shape])
        return self._dims[id(tensor)][1]

    def begin(self, images: Tensor, reasons: Sequence[str] = IMAGES) -> None:
        """Begin a run that reads images (B, 3, H, W), or something else with reasons for each of its dimensions."""
        self._data.add(id(images))
        self.give(images, [[Factor(size, reason)] for size, reason in zip(images.shape, reasons, strict=True)])

    def is_data(self, tensor: Tensor) -> bool:
        """Return whether a tensor depends on the images."""
        return id(tensor) in self._data

    def read_by(self, results: Iterable[Tensor]) -> set[str]:
        """Return the names of the parameters and buffers that results depend on."""
        known, rest = set[int](), [_memory(tensor) for tensor in results]
        while rest:
            one = rest.pop()
            if one not in known:
                known.add(one)
                rest.extend(self._sources.get(one, ()))
        return {name for name, tensor in self.tensors.items() if _memory(tensor) in known}

    def places(self) -> Iterator[tuple[str, int, list[Factor]]]:
        """Yield every dimension of a parameter or buffer: its name, which of them, and its factors."""
        for name, tensor in self.tensors.items():
            for place, dim in enumerate(self.dims(tensor)):
                yield name, place, factors(dim)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        given = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        made = [leaf for leaf in tree_leaves(result) if isinstance(leaf, Tensor)]
        for tensor in made:
            self._sources.setdefault(_memory(tensor), set()).update(map(_memory, given))
        if any(map(self.is_data, given)):
            self._data.update(map(id, made))
        call = Call(self, _named(func, args, kwargs), given, made)
        name = func._schema.name.removeprefix("aten::").removesuffix("_")
        rule = RULES.get(name) or (pointwise if _is_pointwise(func, name) else None)
        dims = None if rule is None else rule(call)
        if dims is None:
            for tensor in given:
                for dim in self.dims(tensor):
                    fix(dim, f"goes through {name}, which is not followed")
            dims = [self._unknown(tensor) for tensor in made]
        for tensor, its in zip(made, dims, strict=False):
            if not any(tensor is other for other in given):
                self.give(tensor, its)
        return result

    @staticmethod
    def _unknown(tensor: Tensor) -> list[Dim]:
        return [[Factor(size, "comes out of an operation that is not followed")] for size in tensor.shape]


def _memory(tensor: Tensor) -> int:
    return tensor.untyped_storage()._cdata


def _is_pointwise(func: Any, name: str) -> bool:
    """Return whether an operation works on each element alone; those in place are not all tagged."""
    plain = getattr(torch.ops.aten, name, None)
    functions = [func, *(getattr(plain, overload) for overload in (plain.overloads() if plain else ()))]
    return any(torch.Tag.pointwise in function.tags for function in functions)


def _named(func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> dict[str, Any]:
    arguments = func._schema.arguments
    named = {argument.name: argument.default_value for argument in arguments if argument.has_default_value()}
    return named | dict(zip((argument.name for argument in arguments), args, strict=False)) | dict(kwargs)
