"""Copies of networks with the same tensors."""

from collections import OrderedDict

import torch
from torch import nn

from nasmvt.families.copying import with_same_tensors


class Odd(nn.Module):
    """Refers to its modules outside of `_modules`, has one twice, an absent one and an empty one."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(4, 4)
        self.again = self.first
        self.absent = None
        self.empty = nn.Sequential()
        self.none: nn.Module | None
        self.register_module("none", None)
        self.register_buffer("count", torch.zeros(1), persistent=False)
        self.known = {"first": [self.first]}
        self.run = self.first.forward

    def forward(self, x):
        return self.run(self.empty(x))


def test_a_copy_has_the_tensors_and_modules_of_its_own() -> None:
    network = Odd()
    twin = with_same_tensors(network)
    assert twin.first.weight is network.first.weight
    assert twin.count is network.count
    assert twin.first is not network.first
    assert twin.first is twin.again is twin.known["first"][0] is twin.run.__self__
    assert twin.empty is not network.empty
    assert isinstance(twin.empty, nn.Sequential)
    assert list(twin._modules) == list(network._modules)
    assert twin._non_persistent_buffers_set == {"count"}


def test_what_is_done_to_a_copy_leaves_the_network_as_it_is() -> None:
    network = Odd()
    twin = with_same_tensors(network)
    seen = []
    twin.first.register_forward_hook(lambda *_: seen.append(1))
    twin.first.weight = nn.Parameter(torch.zeros(4, 4))
    twin.empty.append(nn.Tanh())
    network(torch.rand(1, 4))
    assert not seen
    assert len(network.empty) == 0
    assert network.first.weight.abs().sum() > 0
    assert type(twin._forward_hooks) is OrderedDict
