"""timm's networks under their own names: their sizes are read off timm's, which is built without weights."""

from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any

import timm
import torch
from torch import nn

from nasmvt.errors import UserError, listed

Reader = Callable[[str, nn.Module], Mapping[str, Any]]
"""`read(name, network) -> sizes`: the arguments with which a family's builder makes the same network.

Raises:
    UserError: if the network has what the family has not.
"""


def skeleton(name: str) -> nn.Module:
    """Return timm's network of a name, without weights."""
    with torch.device("meta"):
        network: nn.Module = timm.create_model(name.partition(".")[0])
    return network


def refused(name: str, what: str) -> UserError:
    """Return the error for a network that a family can't make, and why: "patches that overlap"."""
    return UserError(
        f"a family makes the networks of timm that consist of its own layers, but {name} has {what}: take another "
        "network, or draft a space from it ('nasmvt draft-space')"
    )


def check_layers(name: str, network: nn.Module, known: Collection[type[nn.Module]]) -> None:
    """Refuse a network that has layers of other classes than the known ones and containers."""
    found = {type(module).__name__: type(module) for module in network.modules()}
    others = sorted(kind for kind, cls in found.items() if cls not in known and cls not in _NEUTRAL)
    if others:
        raise refused(name, f"the layers {listed(others)}")


def one_of(name: str, what: str, values: Iterator[Any]) -> Any:
    """Return the value that all layers have in common.

    Raises:
        UserError: if they differ.
    """
    found = sorted(set(values), key=str)
    if len(found) != 1:
        raise refused(name, f"several values of {what} ({listed(found)})")
    return found[0]


_NEUTRAL = {nn.Identity, nn.Sequential, nn.ModuleList, nn.Dropout}
