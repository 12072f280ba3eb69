"""Training and evaluation mode, set temporarily and restored module by module."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from nasmvt.space.sharing import fits


def train_mode(network: nn.Module, frozen_norms: Sequence[str] = ()) -> None:
    """Put a task network in training mode, but for the BatchNorms whose names fit a pattern: they norm by their running
    statistics and leave them as they are.
    """
    network.train()
    if frozen_norms:
        for name, module in network.named_modules():
            if isinstance(module, _BatchNorm) and any(fits(pattern, name) for pattern in frozen_norms):
                module.eval()


@contextmanager
def keeping_modes(network: nn.Module) -> Iterator[None]:
    """Restore the training flag of every module when the block ends, whatever was set inside."""
    flags = [(module, module.training) for module in network.modules()]
    try:
        yield
    finally:
        for module, training in flags:
            module.training = training


@contextmanager
def evaluating(network: nn.Module) -> Iterator[None]:
    """Put the network in evaluation mode inside the block."""
    if not any(module.training for module in network.modules()):  # setting a flag costs far more than reading it
        yield
        return
    with keeping_modes(network):
        network.eval()
        yield
