"""Copies of a network that hold the network's own tensors, several times as fast as `copy.deepcopy`."""

from copy import deepcopy
from typing import Any

import torch
from torch import nn

_ATOMS = (type(None), bool, int, float, complex, str, bytes, type, torch.dtype, torch.Size)


def with_same_tensors(network: nn.Module) -> nn.Module:
    """Return a copy of a network whose modules are new, and whose parameters and buffers are those of the network."""
    tensors = (*network.parameters(), *network.buffers())
    return _copied(network, {id(tensor): tensor for tensor in tensors})


def _copied(module: nn.Module, memo: dict[int, Any]) -> nn.Module:
    if id(module) in memo:
        twin: nn.Module = memo[id(module)]
        return twin
    twin = memo[id(module)] = type(module).__new__(type(module))
    held = vars(twin)
    for key, value in vars(module).items():
        if key in {"_parameters", "_buffers"}:
            held[key] = value.copy()
        elif key == "_modules":
            held[key] = {name: None if child is None else _copied(child, memo) for name, child in value.items()}
        elif isinstance(value, _ATOMS) or (isinstance(value, tuple) and all(isinstance(one, _ATOMS) for one in value)):
            held[key] = value
        elif isinstance(value, (dict, list, set)) and not value:
            held[key] = value.copy()
        else:  # what may refer to modules, which have to be those of the copy
            held[key] = deepcopy(value, memo)
    return twin
