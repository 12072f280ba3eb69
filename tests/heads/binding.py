"""What the supernet does to a network built on `meta`, in a few lines."""

import torch
from torch import Tensor, nn


def bind(skeleton: nn.Module, real: nn.Module) -> None:
    """Hang copies of the parameters and buffers of `real` into `skeleton`."""
    for target, source in zip(skeleton.modules(), real.modules(), strict=True):
        for name, tensor in source._parameters.items():
            target._parameters[name] = None if tensor is None else nn.Parameter(tensor.detach().clone())
        for name, tensor in source._buffers.items():
            target._buffers[name] = None if tensor is None else tensor.clone()


def tensors_outside_the_state(network: nn.Module) -> list[Tensor]:
    """Return tensors that modules keep as plain attributes, in lists and tuples too."""
    found: list[Tensor] = []
    for module in network.modules():
        for name, value in vars(module).items():
            if name in ("_parameters", "_buffers", "_modules"):
                continue
            items = value if isinstance(value, list | tuple) else [value]
            found += [item for item in items if isinstance(item, torch.Tensor)]
    return found
