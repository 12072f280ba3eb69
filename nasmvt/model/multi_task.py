"""Several task networks of one arch with tied shared tensors."""

from collections.abc import Callable, Iterator, Mapping

import numpy as np
import torch
from torch import Tensor, nn

from nasmvt.space import Arch, SearchSpace, Sharing
from nasmvt.space.sharing import layer_of
from nasmvt.tasks.build import Slot, buffer_slots, build_network, build_skeleton, parameter_slots
from nasmvt.tasks.modes import train_mode
from nasmvt.tasks.network import TaskNetwork
from nasmvt.tasks.norms import synchronise
from nasmvt.tasks.task import Task
from nasmvt.tasks.trainable import Probe, Trained, trained_of

Source = Callable[[str, Slot, bool], Tensor]
"""`source(task, slot, shared)` gives the tensor for a slot of a task's network; it is copied."""


class MultiTaskModel(nn.Module):
    """Plain task networks with tied tensors.

    A layer that `sharing` ties for some tasks is one set of parameters, held by each of their
    networks; `parameters()` yields it once. Buffers are never shared.
    """

    def __init__(
        self,
        space: SearchSpace,
        tasks: Mapping[str, Task],
        arch: Arch,
        sharing: Sharing,
        networks: Mapping[str, TaskNetwork],
    ) -> None:
        super().__init__()
        self.space = space
        self.tasks = {name: task.at(space, arch) for name, task in tasks.items()}
        self.arch = arch
        self.sharing = sharing
        self.frozen_norms: tuple[str, ...] = ()
        self.name = "model"
        """What its figures are called while it is trained."""
        self.networks = nn.ModuleDict(networks)

    @classmethod
    def assemble(
        cls,
        space: SearchSpace,
        tasks: Mapping[str, Task],
        arch: Arch,
        sharing: Sharing,
        source: Source,
        device: torch.device | str = "cpu",
    ) -> "MultiTaskModel":
        """Build a model whose tensors come from `source`, asked once for each tensor.

        Each is copied into contiguous memory of its own: matrix libraries choose their kernels, and so their
        rounding, by strides and alignment, and models of equal tensors must compute equal outputs. Tensors are
        placed on `device`, as are constants, which `source` is not asked for.
        """
        networks = {name: build_skeleton(space, task, arch, device) for name, task in tasks.items()}
        layers = {layer_of(slot.name) for network in networks.values() for slot in parameter_slots(network)}
        model = cls(space, tasks, arch, sharing.of_layers(layers), networks)
        parameters: dict[str, nn.Parameter] = {}
        for task, network in networks.items():
            for slot in parameter_slots(network):
                key = model.key(task, slot.name)
                if key not in parameters:
                    parameters[key] = nn.Parameter(copy_of(source(task, slot, key.startswith(_SHARED))))
                slot.owner._parameters[slot.leaf] = parameters[key]
            for slot in buffer_slots(network):
                slot.owner._buffers[slot.leaf] = copy_of(source(task, slot, False))
        return model

    @classmethod
    def fresh(cls, space: SearchSpace, tasks: Mapping[str, Task], arch: Arch, sharing: Sharing) -> "MultiTaskModel":
        """Build a model with freshly drawn weights; a shared tensor is drawn by the first task that has it."""
        drawn = {name: build_network(space, task, arch).state_dict() for name, task in tasks.items()}
        return cls.assemble(space, tasks, arch, sharing, lambda task, slot, shared: drawn[task][slot.name])

    def task(self, name: str) -> TaskNetwork:
        """Return the network of one task, an ordinary module."""
        network = self.networks[name]
        assert isinstance(network, TaskNetwork)
        return network

    def key(self, task: str, parameter: str) -> str:
        """Return the name under which a parameter is stored: `shared.<name>` or `<task>.<name>`."""
        return stored_key(task, parameter, task in self.sharing.tasks(layer_of(parameter)))

    def tensors(self) -> dict[str, Tensor]:
        """Return every parameter and buffer by the key it is stored under, shared ones once."""
        found: dict[str, Tensor] = {}
        for task, network in self.networks.items():
            for slot in parameter_slots(network):
                found[self.key(task, slot.name)] = slot.owner._parameters[slot.leaf].detach()  # type: ignore[union-attr]
            for slot in buffer_slots(network):
                buffer = slot.owner._buffers[slot.leaf]
                assert buffer is not None
                found[stored_key(task, slot.name, False)] = buffer
        return found

    # -- training (see `nasmvt.tasks.trainable`) --------------------------------------------------

    def draw(self, rng: np.random.Generator) -> Arch:
        """Return the model's only arch."""
        return self.arch

    def network_for_step(self, arch: Arch, task: str) -> TaskNetwork:
        """Return a task's network in training mode; `arch` is the model's own."""
        network = self.task(task)
        train_mode(network, self.frozen_norms)
        return network

    def synchronise_norms(self) -> None:
        """Let BatchNorms norm by the images of all processes from now on."""
        for name in self.tasks:
            synchronise(self.task(name))

    def probes(self, seed: int) -> Iterator[Probe]:
        """Yield the model as it is: its BatchNorm statistics are its own."""
        yield Probe(self.name, {name: self.task(name) for name in self.tasks}, stale_norms=False)

    def trained(self) -> Iterator[Trained]:
        """Yield every parameter once."""
        return trained_of({name: self.task(name) for name in self.tasks})


_SHARED = "shared."


def stored_key(task: str, name: str, shared: bool) -> str:
    """Return the key of a tensor in an exported file."""
    return f"{_SHARED}{name}" if shared else f"{task}.{name}"


def copy_of(tensor: Tensor) -> Tensor:
    """Return a contiguous copy without a gradient."""
    return torch.clone(tensor.detach(), memory_format=torch.contiguous_format)
