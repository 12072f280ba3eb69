"""Reading checkpoints of other code: rename, change layouts, and account for every tensor."""

import re
from collections.abc import Callable, Mapping, Sequence
from math import prod
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from nasmvt.errors import UserError
from nasmvt.files import DAMAGED

State = Mapping[str, Tensor]
Converter = Callable[[State, nn.Module], dict[str, Tensor]]
"""`convert(state, network) -> tensors`: from published names and layouts to those of our network."""

Rules = Sequence[tuple[str, str | None]]
"""Pairs of a regular expression and the new name of a key that it fully matches (`\\1` for groups); None: dropped."""

_DAMAGED: tuple[type[Exception], ...] = (*DAMAGED, SafetensorError)
_WRAPPERS = ("state_dict", "model", "model_state", "module")
_SHOWN = 12


def read_state(path: str | Path) -> dict[str, Tensor]:
    """Read the tensors of a checkpoint: safetensors, or what `torch.save` wrote (loaded with `weights_only=True`).

    A state dict under `state_dict` or `model` is found, and the prefix `module.` of all keys is removed.

    Raises:
        UserError: if the file can't be read, or holds no tensors by name.
    """
    path = Path(path)
    try:
        if path.suffix == ".safetensors":
            content: object = load_file(path)
        else:
            content = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise UserError(f"there is no checkpoint {path}: check the path") from None
    except _DAMAGED as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(f"{path} must be a checkpoint of plain tensors, but can't be read ({reason})") from None
    for wrapper in _WRAPPERS:
        inner = content.get(wrapper) if isinstance(content, Mapping) else None
        if isinstance(inner, Mapping):
            content = inner
    tensors = {k: v for k, v in content.items() if isinstance(v, Tensor)} if isinstance(content, Mapping) else {}
    if not tensors:
        raise UserError(f"{path} must hold tensors by name, but holds none: give a file that holds a state dict")
    if all(key.startswith("module.") for key in tensors):
        tensors = {key.removeprefix("module."): tensor for key, tensor in tensors.items()}
    return tensors


def rename(state: State, rules: Rules) -> dict[str, Tensor]:
    """Rename tensors by the first rule that matches the whole key; a key that no rule matches keeps its name."""
    expressions = [(re.compile(pattern), name) for pattern, name in rules]
    renamed = {}
    for key, tensor in state.items():
        match, name = next(
            ((found, name) for pattern, name in expressions if (found := pattern.fullmatch(key))), (None, key)
        )
        if name is not None:
            renamed[match.expand(name) if match else key] = tensor
    return renamed


def reordered(tensor: Tensor, sizes: Sequence[int], order: Sequence[int], dim: int = 0) -> Tensor:
    """Reorder a dimension that enumerates several indices, as rows of qkv do: (q/k/v, head, channel) to another order.

    A tensor whose size does not divide accordingly is returned unchanged, and `check_fit` will refuse it.

    Args:
        tensor: published weights.
        sizes: how many values each index has, the slowest first; one of them may be -1.
        order: the indices, by place in `sizes`, in their new order.
        dim: the dimension.
    """
    if tensor.ndim <= dim or tensor.shape[dim] % prod(size for size in sizes if size != -1):
        return tensor
    last = dim + len(sizes) - 1
    axes = [*range(dim), *(dim + place for place in order), *range(last + 1, tensor.ndim + len(sizes) - 1)]
    return tensor.unflatten(dim, tuple(sizes)).permute(axes).flatten(dim, last)


def load_reference(network: nn.Module, state: State, convert: Converter, source: str = "the checkpoint") -> None:
    """Load published weights into a network, strictly.

    Args:
        network: a network of ours, with the same sizes.
        state: tensors by their published names.
        convert: the family's converter.
        source: where the tensors come from, named in errors.

    Raises:
        UserError: if a tensor is missing, left over or of another shape, naming each of them.
    """
    tensors = convert(state, network)
    check_fit(tensors, network.state_dict(), source)
    network.load_state_dict(tensors)


def check_fit(given: State, wanted: State, source: str) -> None:
    """Compare tensors with those that a network needs, by name and shape.

    Raises:
        UserError: naming what is missing, left over or of another shape.
    """
    found = misfits(given, wanted)
    if found:
        raise UserError(f"{source} must hold exactly the tensors of the network, but has {found}: check its size")


def misfits(given: State, wanted: State) -> str:
    """Return, in words, which tensors are missing, left over or of another shape; empty if there are none."""
    missing = [name for name in wanted if name not in given]
    surplus = [name for name in given if name not in wanted]
    misshapen = [
        f"{name} {tuple(given[name].shape)} instead of {tuple(wanted[name].shape)}"
        for name in wanted
        if name in given and given[name].shape != wanted[name].shape
    ]
    problems = {"missing": missing, "surplus": surplus, "of another shape": misshapen}
    return "; ".join(f"{what}: {_some(names)}" for what, names in problems.items() if names)


def _some(names: Sequence[str]) -> str:
    rest = len(names) - _SHOWN
    return ", ".join(names[:_SHOWN]) + (f" and {rest} more" if rest > 0 else "")
