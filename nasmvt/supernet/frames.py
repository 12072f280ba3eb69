"""Modules made from parts, without a constructor; they hold no parameters until some are lent to them."""

from collections.abc import Iterable, Mapping
from copy import deepcopy
from typing import Any, NamedTuple

import torch
from torch import nn

from nasmvt.supernet.structure import EMPTY, Part, joined
from nasmvt.tasks.build import buffer_slots, parameter_slots

Cell = tuple[dict[str, Any], str]
"""The place of a tensor: the parameters of a module, or its buffers, and a name in them."""


class Hold(NamedTuple):
    """A tensor of a module."""

    cell: Cell
    name: str
    """Its full name; the first one of a tied tensor."""
    shape: torch.Size


class Frame:
    """Some modules of a tree, reusable.

    Args:
        parts: the parts of these modules.
    """

    def __init__(self, parts: Iterable[Part]) -> None:
        self.modules: dict[str, nn.Module] = {}
        self.parameters: list[Hold] = []
        self.ties: list[Hold] = []
        """Further places of tied parameters, which may be those of another frame."""
        self.buffers: list[Hold] = []
        self.trains = True
        """Whether new modules are in training mode, so that `train()` would change nothing."""
        self._states: list[tuple[dict[str, Any], Part, int]] = []
        self._children: list[tuple[dict[str, nn.Module | None], Mapping[str, str | None]]] = []
        for part in parts:
            self._make(part)
        self.reset()

    @classmethod
    def of(cls, network: nn.Module) -> "Frame":
        """Return the frame of a network that was built."""
        frame = cls(())
        frame.modules[""] = network
        frame.trains = False
        known = set[str]()
        for slot in parameter_slots(network):
            holds = frame.ties if slot.name in known else frame.parameters
            holds.append(Hold((slot.owner._parameters, slot.leaf), slot.name, slot.shape))
            known.add(slot.name)
        for slot in buffer_slots(network):
            frame.buffers.append(Hold((slot.owner._buffers, slot.leaf), slot.name, slot.shape))
        return frame

    def _make(self, part: Part) -> None:
        self.modules[part.name] = module = part.cls.__new__(part.cls)
        state = vars(module)
        state.update({name: type(value)() for name, value in EMPTY.items()} | part.attributes | part.copied)
        self._states.append((state, part, len(state)))
        self.trains &= part.cls.train is nn.Module.train and part.attributes.get("training") is True
        if part.children:
            self._children.append((module._modules, part.children))
        for leaf, parameter in part.parameters.items():
            module._parameters[leaf] = None
            if parameter is not None:
                holds = self.parameters if parameter[0] == joined(part.name, leaf) else self.ties
                holds.append(Hold((module._parameters, leaf), *parameter))
        for leaf, buffer in part.buffers.items():
            module._buffers[leaf] = None
            if buffer is not None:
                self.buffers.append(Hold((module._buffers, leaf), *buffer))

    def reset(self) -> None:
        """Reset the modules' attributes and constants to those of new modules."""
        for state, part, size in self._states:
            state.update(part.attributes)
            if part.copied:
                state.update(deepcopy(part.copied))
            if part.constants:
                state["_buffers"].update(part.constants)
            if len(state) > size:
                for name in state.keys() - (EMPTY | part.attributes | part.copied):
                    del state[name]

    def link(self, modules: Mapping[str | None, nn.Module | None]) -> None:
        """Set the modules' children."""
        for children, names in self._children:
            for leaf, name in names.items():
                children[leaf] = modules[name]


def link(frames: Iterable[Frame]) -> nn.Module:
    """Join the modules of frames to a tree and return its root, whose name is ""."""
    modules: dict[str | None, nn.Module | None] = {None: None}
    for frame in frames:
        modules.update(frame.modules)
    for frame in frames:
        frame.link(modules)
    root = modules[""]
    assert root is not None
    return root
