"""The structure of a module tree as comparable values.

A constructor mostly repeats itself from one arch to the next. The *parts* of a tree describe its result: for
every module its class, its attributes, its children, and the shapes of its tensors.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from functools import partial
from types import BuiltinFunctionType, FunctionType, ModuleType
from typing import Any

import torch
from pydantic import BaseModel
from torch import Tensor, nn

Field = tuple[str, str]
"""The role of a value in a module (class, order, attribute, child, parameter, tie, buffer, constant), and its name."""
Fields = dict[Field, Any]
"""The complete content of a module."""

Place = tuple[Field, int]
"""A field, and the index in a sequence; -1 for a value that is not an item of one."""

CLASS: Field = ("class", "")
ORDER: Field = ("order", "")
"""Names of children, parameters and buffers, in order."""

_ATOMS = (
    *(type(None), bool, int, float, complex, str, bytes, type, Enum, ModuleType, BuiltinFunctionType),
    *(torch.dtype, torch.device, torch.memory_format),
)
EMPTY = {name: value for name, value in vars(nn.Module()).items() if isinstance(value, dict | set)}
"""Dictionaries that every module has; those of children and tensors, the others of hooks."""
_TENSORS = {"_modules", "_parameters", "_buffers"}
_DEEPEST = 8
_HEAP_TYPE = 1 << 9


class OpaqueError(Exception):
    """A module holds a value that can't be compared: a hook, a closure over a module, a module that is no child."""


def structure(root: nn.Module, prefix: str = "") -> dict[str, Fields]:
    """Return the content of the modules of a tree, by name; `prefix` is the name of the root.

    Raises:
        OpaqueError: naming the attribute that can't be compared.
    """
    names = {id(module): joined(prefix, name) for name, module in root.named_modules()}
    first: dict[int, str] = {}
    found = {}
    for module in root.modules():
        name = names[id(module)]
        fields: Fields = {CLASS: type(module), ORDER: (*module._modules, *module._parameters, *module._buffers)}
        found[name] = fields
        if isinstance(module, torch.jit.ScriptModule):
            raise OpaqueError(f"{name} is compiled")
        for attribute, value in vars(module).items():
            if attribute not in EMPTY or (value and attribute == "_non_persistent_buffers_set"):
                fields["attribute", attribute] = value
            elif value and attribute not in _TENSORS:
                raise OpaqueError(f"{name} has hooks")
        for child, part in module._modules.items():
            fields["child", child] = None if part is None else names[id(part)]
        for leaf, parameter in module._parameters.items():
            fields["parameter", leaf] = None if parameter is None else tuple(parameter.shape)
            if parameter is not None:
                fields["tie", leaf] = first.setdefault(id(parameter), joined(name, leaf))
        for leaf, tensor in module._buffers.items():
            if tensor is not None and leaf in module._non_persistent_buffers_set:
                fields["constant", leaf] = tensor
            else:
                fields["buffer", leaf] = None if tensor is None else tuple(tensor.shape)
    return found


def joined(prefix: str, name: str) -> str:
    """Return the full name of what the module `prefix` calls `name`."""
    return f"{prefix}.{name}" if prefix and name else prefix or name


def comparable(value: Any, depth: int = 0) -> Any:
    """Return a hashable value that is equal for equal values.

    Raises:
        OpaqueError: if the value can't be compared, or refers to a module.
    """
    kind = type(value)
    if kind is float:
        return kind, value.hex()
    if isinstance(value, (*_ATOMS, _Sequence)):
        return kind, value
    if depth > _DEEPEST or isinstance(value, nn.Module):
        raise OpaqueError(f"a value of {kind.__name__} refers to a module or to itself")
    inner = depth + 1
    if isinstance(value, tuple | list):
        return kind, *(comparable(item, inner) for item in value)
    if isinstance(value, set | frozenset):
        return kind, frozenset(comparable(item, inner) for item in value)
    if isinstance(value, dict):
        return kind, *((comparable(key, inner), comparable(item, inner)) for key, item in value.items())
    if isinstance(value, FunctionType):
        seen = tuple(cell.cell_contents for cell in value.__closure__ or ())
        return kind, value.__code__, comparable((value.__defaults__, value.__kwdefaults__, seen), inner)
    if isinstance(value, partial):
        return kind, *(comparable(item, inner) for item in (value.func, value.args, value.keywords))
    if isinstance(value, Tensor) and not value.requires_grad:
        content = None if value.is_meta else value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy()
        return kind, value.dtype, value.device, value.shape, None if content is None else content.tobytes()
    if isinstance(value, BaseModel):
        return kind, comparable(value.model_dump(), inner)
    if kind.__flags__ & _HEAP_TYPE and hasattr(value, "__dict__") and kind.__reduce_ex__ is object.__reduce_ex__:
        return kind, comparable(vars(value), inner)
    raise OpaqueError(f"a value of {kind.__name__} can't be compared")


def is_atom(value: Any) -> bool:
    """Return whether a value is immutable and contains no other."""
    return isinstance(value, _ATOMS)


def split(fields: Mapping[Field, Any]) -> dict[Place, Any]:
    """Return fields with sequences split into items, by index; index -1 holds the sequence's type."""
    found: dict[Place, Any] = {}
    for name, value in fields.items():
        if isinstance(value, tuple | list) and type(value) in _SEQUENCES and all(map(is_atom, value)):
            found[name, -1] = _Sequence(type(value), len(value))
            found.update(((name, place), item) for place, item in enumerate(value))
        else:
            found[name, -1] = value
    return found


def join(entries: Mapping[Place, Any]) -> Fields:
    """Return the fields that were split."""
    return {
        name: value.kind(entries[name, at] for at in range(value.length)) if isinstance(value, _Sequence) else value
        for (name, place), value in entries.items()
        if place == -1
    }


_SEQUENCES = {tuple, list, torch.Size}


@dataclass(frozen=True)
class _Sequence:
    kind: type
    length: int


@dataclass(frozen=True)
class Part:
    """A module to be made."""

    name: str
    cls: type[nn.Module]
    attributes: dict[str, Any] = field(default_factory=dict)
    """Immutable values, shared by every module that is made."""
    copied: dict[str, Any] = field(default_factory=dict)
    """Values that every module gets its own copy of."""
    children: dict[str, str | None] = field(default_factory=dict)
    """Names of modules by the child's own name."""
    parameters: dict[str, tuple[str, torch.Size] | None] = field(default_factory=dict)
    """The tensor's full name (the first one of a tied tensor) and shape."""
    buffers: dict[str, tuple[str, torch.Size] | None] = field(default_factory=dict)
    """The same for buffers in the state dict."""
    constants: dict[str, Tensor] = field(default_factory=dict)
    """Values of the other buffers: never written to, and shared."""

    @classmethod
    def of(cls, name: str, fields: Fields, device: torch.device) -> "Part":
        """Return the part of a module that is made of `fields`, its constants on a device."""
        part = cls(name, fields[CLASS])
        for (kind, leaf), value in fields.items():
            if kind == "attribute":
                still = is_atom(value) or (isinstance(value, tuple) and all(map(is_atom, value)))
                (part.attributes if still else part.copied)[leaf] = value
        for leaf in fields[ORDER]:
            if ("child", leaf) in fields:
                part.children[leaf] = fields["child", leaf]
            elif ("parameter", leaf) in fields:
                shape = fields["parameter", leaf]
                part.parameters[leaf] = None if shape is None else (fields["tie", leaf], torch.Size(shape))
            elif ("buffer", leaf) in fields:
                shape = fields["buffer", leaf]
                part.buffers[leaf] = None if shape is None else (joined(name, leaf), torch.Size(shape))
            else:
                part.constants[leaf] = fields["constant", leaf].to(device)
        return part
