"""From a space, a task and an arch to a task network: with weights, or as a skeleton on `meta`."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from nasmvt.families import family
from nasmvt.space import Arch, SearchSpace
from nasmvt.tasks.meta import OnMeta
from nasmvt.tasks.network import TaskNetwork
from nasmvt.tasks.task import Task


def build_network(space: SearchSpace, task: Task, arch: Arch) -> TaskNetwork:
    """Build the plain network of an arch for a task, with freshly drawn weights."""
    return task.at(space, arch).network(build_backbone(space, task, arch))


def build_backbone(space: SearchSpace, task: Task, arch: Arch) -> nn.Module:
    """Build the plain backbone of an arch for a task, with freshly drawn weights."""
    return family(space.family).backbone(space, arch, kind=task.config.kind, image_size=task.nominal_size)


def build_skeleton(space: SearchSpace, task: Task, arch: Arch, device: torch.device | str = "cpu") -> TaskNetwork:
    """Build the network on `meta`: structure without weights, to count or to bind tensors to.

    Constants that are not part of the state dict (buffers registered with `persistent=False`) are real, on `device`,
    unless that too is `meta`.
    """
    real = torch.device(device).type != "meta"
    with OnMeta(constants=real):
        network = build_network(space, task, arch)
    if real:
        materialize_constants(network, lambda: build_network(space, task, arch), device)
    return network


class SizeReader:
    """Reads the parameter sizes of the task networks of several archs of one space.

    Neck and head depend on the backbone's strides and widths and on what the arch chooses for them alone: they are
    built once for each combination, which halves the time per arch.
    """

    def __init__(self, space: SearchSpace, task: Task) -> None:
        self._space = space
        self._task = task
        self._heads: dict[tuple[Any, ...], dict[str, int]] = {}

    def __call__(self, arch: Arch) -> dict[str, int]:
        """Return the number of elements of every parameter of an arch's task network, by name."""
        with OnMeta():
            backbone = build_backbone(self._space, self._task, arch)
            seam = (backbone.strides, backbone.widths, self._space.chosen_for(self._task.name, arch))
            if seam not in self._heads:
                sizes = _sizes(self._task.at(self._space, arch).network(backbone))
                self._heads[seam] = {n: size for n, size in sizes.items() if not n.startswith("backbone.")}
        return {f"backbone.{name}": size for name, size in _sizes(backbone).items()} | self._heads[seam]


def _sizes(network: nn.Module) -> dict[str, int]:
    return {slot.name: slot.shape.numel() for slot in parameter_slots(network)}


@dataclass(frozen=True)
class Slot:
    """The place of a parameter or buffer in a network."""

    owner: nn.Module
    leaf: str
    name: str
    """The tensor's full name; the first one if a network uses a tensor under several names."""
    shape: torch.Size


def parameter_slots(network: nn.Module) -> list[Slot]:
    """Return the places of a network's parameters, including those it uses twice."""
    first: dict[int, str] = {}
    slots = []
    for name, owner, leaf, tensor in _members(network, "_parameters"):
        slots.append(Slot(owner, leaf, first.setdefault(id(tensor), name), tensor.shape))
    return slots


def buffer_slots(network: nn.Module) -> list[Slot]:
    """Return the places of the buffers in a network's state dict (BatchNorm statistics)."""
    return [
        Slot(owner, leaf, name, tensor.shape)
        for name, owner, leaf, tensor in _members(network, "_buffers")
        if leaf not in owner._non_persistent_buffers_set
    ]


def _members(network: nn.Module, kind: str) -> Iterator[tuple[str, nn.Module, str, Tensor]]:
    for prefix, owner in network.named_modules():
        members: dict[str, Tensor | None] = getattr(owner, kind)
        for leaf, tensor in members.items():
            if tensor is not None:
                yield f"{prefix}.{leaf}" if prefix else leaf, owner, leaf, tensor


def constant_slots(network: nn.Module) -> list[Slot]:
    """Return the places of constants: buffers that are not part of the state dict."""
    return [
        Slot(owner, leaf, name, tensor.shape)
        for name, owner, leaf, tensor in _members(network, "_buffers")
        if leaf in owner._non_persistent_buffers_set
    ]


def materialize_constants(network: nn.Module, rebuild: Callable[[], nn.Module], device: torch.device | str) -> None:
    """Give constants real values; if they were computed on `meta`, the network is built once on the CPU."""
    constants = [(slot, slot.owner.get_buffer(slot.leaf)) for slot in constant_slots(network)]
    real = dict(rebuild().named_buffers()) if any(tensor.is_meta for _, tensor in constants) else {}
    for slot, tensor in constants:
        slot.owner._buffers[slot.leaf] = real.get(slot.name, tensor).to(device)
