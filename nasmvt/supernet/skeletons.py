"""The structure of the network of any arch, without building it.

What a module contains (a width, a stride, whether it exists at all) depends on a few slots of the arch, like its cost:
the tables of `nasmvt.cost.tables` find these slots, visit every combination of their options once, and are checked on
random archs. Nothing here depends on a family.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import Enum
from typing import Any

import torch
from torch import nn

from nasmvt.cost.tables import ItemTables
from nasmvt.errors import UserError
from nasmvt.space import Arch, SearchSpace
from nasmvt.supernet.structure import CLASS, Field, Fields, OpaqueError, Part, Place, comparable, join, split, structure
from nasmvt.tasks.build import build_backbone, materialize_constants
from nasmvt.tasks.meta import OnMeta
from nasmvt.tasks.task import Task

MOST_BUILT = 1000
"""Maximum number of networks that are built to derive the structure of the others."""


class _Absent(Enum):
    ABSENT = 0


_ABSENT = _Absent.ABSENT
_QUICK = {bool, int, str}
"""Types whose equal values are interchangeable."""


@dataclass(frozen=True, eq=False)
class Group:
    """The parts that the same slots decide, in one combination of their options."""

    parts: tuple[Part, ...]


class Skeletons:
    """The parts of every arch's network of one task.

    Args:
        space: the search space.
        task: the task.
        finish: changes modules that were built, before their structure is read; None: nothing does.

    Raises:
        OpaqueError: if networks of this family hold values that can't be compared, or differ in too many ways.
    """

    def __init__(self, space: SearchSpace, task: Task, finish: Callable[[nn.Module], None] | None = None) -> None:
        self._space = space
        self._finish = finish
        self._task = task
        self._around: dict[Any, dict[str, Fields]] = {}
        self._built = 0
        self._largest = self._structure(space.largest)
        self._numbers: dict[tuple[str, Any], int] = {}
        self._values: list[Any] = [None]
        self._absent: dict[str, dict[str, int]] = {}
        self._places: dict[str, tuple[str, Place]] = {}
        if self._measure(space.largest):
            raise OpaqueError("two networks of one arch differ")
        try:
            self._tables = ItemTables(space, self._measure)
        except UserError as error:
            raise OpaqueError(str(error)) from None
        modules = {name: _Module(name) for name in (*self._largest, *(name for name, _ in self._places.values()))}
        for name, fields in self._largest.items():
            modules[name].largest = split(fields)
        for item, (name, place) in self._places.items():
            modules[name].varying[place] = item
            modules[name].slots = tuple(sorted({*modules[name].slots, *self._tables.slots[item]}))
        together: dict[tuple[int, ...], _Together] = {}
        for module in modules.values():
            together.setdefault(module.slots, _Together(module.slots)).modules.append(module)
        self._together = list(together.values())
        self._numbers.clear()
        self._around.clear()

    def groups(self, arch: Arch, device: torch.device) -> list[Group]:
        """Return the parts of an arch's network, constants on a device; archs with the same options share groups."""
        indices = tuple([max(index, 0) for index in self._space.encode(arch).tolist()])
        found = []
        for each in self._together:
            key = device, *[indices[slot] for slot in each.slots]
            group = each.groups.get(key)
            if group is None:
                parts = (self._part(module, indices, device) for module in each.modules)
                group = each.groups[key] = Group(tuple(part for part in parts if part is not None))
            found.append(group)
        return found

    def _part(self, module: "_Module", indices: tuple[int, ...], device: torch.device) -> Part | None:
        entries = dict(module.largest)
        for place, item in module.varying.items():
            number = self._tables.cost(item, indices)
            if number:
                entries[place] = self._values[number]
        present = {place: value for place, value in entries.items() if value is not _ABSENT}
        if (CLASS, -1) not in present:
            return None
        return Part.of(module.name, join(present), device)

    def _measure(self, arch: Arch) -> dict[str, int]:
        """Return a number for everything that differs from the largest network."""
        numbers = {}
        found = self._structure(arch)
        for name in self._largest.keys() | found.keys():
            if name not in found:
                numbers.update(self._lacking(name))
            elif found[name] is not self._largest.get(name):
                fields, largest = found[name], self._largest.get(name, {})
                for field in fields.keys() | largest.keys():
                    value, usual = fields.get(field, _ABSENT), largest.get(field, _ABSENT)
                    if not _same(value, usual):
                        numbers.update(self._differences(name, field, value, usual))
        return numbers

    def _lacking(self, name: str) -> dict[str, int]:
        """Return the numbers of a network that lacks a module of the largest."""
        if name not in self._absent:
            self._absent[name] = {}
            for field, usual in self._largest[name].items():
                self._absent[name].update(self._differences(name, field, _ABSENT, usual))
        return self._absent[name]

    def _differences(self, name: str, field: Field, value: Any, usual: Any) -> Iterator[tuple[str, int]]:
        """Yield the places where a value differs from the usual one, with a number that is equal for equal values."""
        one, other = ({} if it is _ABSENT else split({field: it}) for it in (value, usual))
        for place in one.keys() | other.keys():
            known = comparable(one.get(place, _ABSENT))
            if known != comparable(other.get(place, _ABSENT)):
                item = "|".join((name, *field, str(place[1])))
                self._places[item] = name, place
                number = self._numbers.setdefault((item, known), len(self._values))
                if number == len(self._values):
                    self._values.append(one.get(place, _ABSENT))
                yield item, number

    def _structure(self, arch: Arch) -> dict[str, Fields]:
        """Return the structure of an arch's network; neck and head are built once for each seam."""
        self._built += 1
        if self._built > MOST_BUILT:
            raise OpaqueError(f"networks of {self._space.name} differ in too many ways")
        with OnMeta(constants=True):
            backbone = build_backbone(self._space, self._task, arch)
        materialize_constants(backbone, lambda: build_backbone(self._space, self._task, arch), "cpu")
        if self._finish is not None:
            self._finish(backbone)
        seam = (backbone.strides, backbone.widths, self._space.chosen_for(self._task.name, arch))
        if seam not in self._around:
            self._around[seam] = self._neck_and_head(backbone, self._task.at(self._space, arch))
        return self._around[seam] | structure(backbone, "backbone")

    def _neck_and_head(self, backbone: nn.Module, task: Task) -> dict[str, Fields]:
        with OnMeta(constants=True):
            network = task.network(backbone)
        materialize_constants(network, lambda: task.network(backbone), "cpu")
        if self._finish is not None:
            self._finish(network)
        every = structure(network)
        return {name: fields for name, fields in every.items() if name.split(".")[0] != "backbone"}


class _Module:
    """The content of a module in the largest network, and which of it varies."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.largest: dict[Place, Any] = {}
        self.varying: dict[Place, str] = {}
        """Names of items by place."""
        self.slots: tuple[int, ...] = ()


class _Together:
    """The modules that vary with the same slots."""

    def __init__(self, slots: tuple[int, ...]) -> None:
        self.slots = slots
        self.modules: list[_Module] = []
        self.groups: dict[tuple[Any, ...], Group] = {}
        """By the device and the options in the slots."""


def _same(one: Any, other: Any) -> bool:
    """Return whether two values are obviously the same; others have to be compared in full."""
    if type(one) is not type(other):
        return False
    if type(one) in {tuple, list}:
        return len(one) == len(other) and all(map(_same, one, other))
    if type(one) is float:
        return one.hex() == other.hex()
    return one is other or (type(one) in _QUICK and bool(one == other))
