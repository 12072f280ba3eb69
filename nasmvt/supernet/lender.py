"""Lending the tensors of one task to networks."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from nasmvt.errors import UserError
from nasmvt.families import family
from nasmvt.space import Arch, SearchSpace, Sharing
from nasmvt.supernet.lending import choose, fits, part
from nasmvt.supernet.skeletons import Skeletons
from nasmvt.supernet.structure import Lend, OpaqueError, Part, assemble
from nasmvt.tasks.build import Slot, buffer_slots, build_skeleton, parameter_slots
from nasmvt.tasks.network import TaskNetwork
from nasmvt.tasks.task import Task


@dataclass(frozen=True)
class Adaptive:
    """The places of the shared tensor and the score of an adaptive parameter."""

    layer: str
    shared: Slot
    score: Slot
    place: int | None
    """The task's index into the scores of the layer; None: the tasks share one score."""


class Lender:
    """Lends the tensors of one task to networks of any arch.

    Args:
        space: the search space.
        task: the task.
        network: its largest network, which holds the specific tensors.
        adaptive: the adaptive parameters, by name.
    """

    def __init__(self, space: SearchSpace, task: Task, network: nn.Module, adaptive: Mapping[str, Adaptive]) -> None:
        self._space = space
        self._task = task
        self._parameters: dict[str, Slot] = {}
        for slot in parameter_slots(network):
            self._parameters.setdefault(slot.name, slot)
        self._buffers = {slot.name: slot for slot in buffer_slots(network)}
        self._adaptive = adaptive
        centred = family(space.family).centred_dims
        self._centred = {name: centred(name) for name in self._parameters}
        self._skeletons: Skeletons | None = None
        self.opaque: str | None = None
        """Why networks of this family have to be built by their constructor for every arch; None: they need not be."""

    def stored(self, name: str, shared: bool) -> Tensor:
        """Return a parameter or buffer as stored.

        Args:
            name: its name in the network.
            shared: whether to return the shared tensor, where there are two.
        """
        if name in self._buffers:
            return self._buffers[name].owner._buffers[name.rpartition(".")[2]]  # type: ignore[return-value]
        adaptive = self._adaptive.get(name)
        return _parameter(adaptive.shared if adaptive is not None and shared else self._parameters[name])

    def part(self, name: str, shape: torch.Size, shared: bool) -> Tensor:
        """Return the part of a stored parameter or buffer that a network with one of `shape` has: a view."""
        return part(self.stored(name, shared), shape, self._centred.get(name, ()))

    def lend(self, arch: Arch, sharing: Sharing) -> TaskNetwork:
        """Return a new network of an arch that holds views of the stored tensors."""

        parameters, adaptives, task, centred = self._parameters, self._adaptive, self._task.name, self._centred

        def parameter(name: str, shape: torch.Size) -> Tensor:
            own = _parameter(parameters[name])
            adaptive = adaptives.get(name)
            if adaptive is None:
                return part(own, shape, centred[name])
            score = _parameter(adaptive.score)
            if adaptive.place is not None:
                score = score[adaptive.place]
            use_shared = task in sharing.tasks(adaptive.layer)
            return choose(_parameter(adaptive.shared), own, score, use_shared, shape, centred[name])

        def buffer(name: str, shape: torch.Size) -> Tensor:
            return part(self.stored(name, False), shape)

        network = self._assemble(arch, parameter, buffer) or self._build(arch, parameter, buffer)
        assert isinstance(network, TaskNetwork)
        return network

    @property
    def _device(self) -> torch.device:
        return _parameter(next(iter(self._parameters.values()))).device

    def check(self, arch: Arch) -> None:
        """Refuse an arch that can't be built, or is no part of the largest network.

        Raises:
            UserError: naming the tensor.
        """
        network = build_skeleton(self._space, self._task, arch, "meta")
        for slot in (*parameter_slots(network), *buffer_slots(network)):
            self._check(slot.name, slot.shape)

    def _check(self, name: str, shape: torch.Size) -> None:
        slot = self._parameters.get(name) or self._buffers.get(name)
        if slot is None or not fits(shape, slot.shape):
            raise UserError(
                f"every subnet must be a leading slice of the largest network, but {name} of task {self._task.name} "
                f"is {tuple(shape)} in a subnet and {'absent' if slot is None else tuple(slot.shape)} in the largest: "
                "change the family"
            )

    def _check_part(self, part: Part) -> None:
        for wanted in (*part.parameters.values(), *part.buffers.values()):
            if wanted is not None:
                self._check(*wanted)

    def _assemble(self, arch: Arch, parameter: Lend, buffer: Lend) -> nn.Module | None:
        """Assemble the network without its constructor, or return None if this family's networks do not allow it."""
        if self._skeletons is None and self.opaque is None:
            try:
                self._skeletons = Skeletons(self._space, self._task, self._check_part)
            except OpaqueError as error:
                self.opaque = str(error)
        if self._skeletons is None:
            return None
        return assemble(self._skeletons.parts(arch, self._device), parameter, buffer)

    def _build(self, arch: Arch, parameter: Lend, buffer: Lend) -> nn.Module:
        network = build_skeleton(self._space, self._task, arch, self._device)
        lent: dict[str, Tensor] = {}
        for slot in parameter_slots(network):
            if slot.name not in lent:
                self._check(slot.name, slot.shape)
                lent[slot.name] = parameter(slot.name, slot.shape)
            slot.owner._parameters[slot.leaf] = lent[slot.name]  # type: ignore[assignment]
        for slot in buffer_slots(network):
            self._check(slot.name, slot.shape)
            slot.owner._buffers[slot.leaf] = buffer(slot.name, slot.shape)
        return network


def _parameter(slot: Slot) -> Tensor:
    return slot.owner._parameters[slot.leaf]  # type: ignore[return-value]
