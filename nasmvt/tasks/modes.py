"""Training and evaluation mode, set temporarily and restored module by module."""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn


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
    with keeping_modes(network):
        network.eval()
        yield
