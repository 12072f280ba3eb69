"""The supernet: a store of weights that lends views of them to plain networks."""

from collections.abc import Iterator, Mapping
from itertools import compress
from typing import cast

import numpy as np
import torch
from torch import Tensor, nn

from nasmvt.errors import UserError
from nasmvt.families import family
from nasmvt.model import MultiTaskModel
from nasmvt.model.multi_task import copy_of
from nasmvt.seeding import derive_seed
from nasmvt.space import Arch, Role, SearchSpace, Sharing
from nasmvt.space.sharing import SharingRule, layer_of
from nasmvt.supernet.config import SupernetConfig
from nasmvt.supernet.kernels import Sides, add_transformations
from nasmvt.supernet.lender import Adaptive, Lender
from nasmvt.tasks.build import Slot, build_network, parameter_slots
from nasmvt.tasks.choices import check_choices
from nasmvt.tasks.modes import train_mode
from nasmvt.tasks.network import TaskNetwork
from nasmvt.tasks.task import Task
from nasmvt.tasks.trainable import Probe, Trained, key_of, name_of, trained_of, undecayed


class Supernet(nn.Module):
    """The weights, scores and buffers of every subnet of a space, for several tasks.

    The largest network of every task holds the specific tensors. A layer that several tasks have is,
    by its role, specific (each network keeps its own), shared (the networks hold the same tensor)
    or adaptive: then `shared` holds one more tensor, and `scores` decides which of the two a task uses.
    With `kernel_transformations` they hold the matrices too that make smaller kernels (see `nasmvt.supernet.kernels`).

    Args:
        space: the search space.
        tasks: the tasks by name.
        config: granularity, initial value and threshold of the scores.

    Raises:
        UserError: if the family or the tasks do not know the space's choices or sizes, if tasks have a shared or
            adaptive layer in different shapes, if a subnet is not a leading slice of the largest, or if kernels
            are to be transformed of which there are none.
    """

    def __init__(self, space: SearchSpace, tasks: Mapping[str, Task], config: SupernetConfig | None = None) -> None:
        super().__init__()
        chosen = family(space.family)
        chosen.check(space)
        check_choices(space, tasks)
        self.space = space
        self.tasks = dict(tasks)
        self.config = config or SupernetConfig()
        self.roles = space.layer_roles(chosen.roles)
        self.networks = nn.ModuleDict({name: build_network(space, task, space.largest) for name, task in tasks.items()})
        sides: Sides = {}
        if self.config.kernel_transformations:
            sides = add_transformations(space, tasks, self._task_networks())
        self.shared = nn.ParameterDict()
        self.scores = nn.ParameterDict()
        self.layers = self._divide()
        self.frozen_norms: tuple[str, ...] = ()
        self._known: tuple[list[tuple[int, int]], Sharing] | None = None
        self.lenders = {
            name: Lender(space, task, self.networks[name], self._adaptive(name), sides) for name, task in tasks.items()
        }
        for arch in space.covering:  # refuses at once what can't be built or is not a part of the largest network
            for lender in self.lenders.values():
                lender.check(arch)

    def _divide(self) -> dict[str, tuple[str, ...]]:
        """Set up the shared tensors and scores; return, for each layer that can be shared, its tasks."""
        owners: dict[str, list[tuple[str, Slot]]] = {}
        for task, network in self.networks.items():
            for slot in parameter_slots(network):
                owners.setdefault(slot.name, []).append((task, slot))
        layers: dict[str, tuple[str, ...]] = {}
        for name, slots in owners.items():
            layer, tasks = layer_of(name), tuple(dict.fromkeys(task for task, _ in slots))
            role = self.roles(layer)
            if role is Role.SPECIFIC or len(tasks) < 2:
                continue
            if len({slot.shape for _, slot in slots}) > 1:
                shapes = ", ".join(f"{task} {tuple(slot.shape)}" for task, slot in slots)
                raise UserError(
                    f"a layer of role {role} needs one shape in all tasks, but {name} has {shapes}: make it specific"
                )
            layers[layer] = tasks
            first = slots[0][1].owner._parameters[slots[0][1].leaf]
            assert first is not None
            if role is Role.ADAPTIVE:
                self.shared[key_of(name)] = nn.Parameter(copy_of(first))
                if key_of(layer) not in self.scores:
                    self.scores[key_of(layer)] = nn.Parameter(self._first_score(len(tasks)))
            tensors = {task: first if role is Role.SHARED else nn.Parameter(copy_of(first)) for task in tasks}
            for task, slot in slots:
                slot.owner._parameters[slot.leaf] = tensors[task]
        return layers

    def _adaptive(self, task: str) -> dict[str, Adaptive]:
        """Return the places of the shared tensors and scores of a task's adaptive parameters."""
        found = {}
        for key in self.shared:
            name = name_of(key)
            layer = layer_of(name)
            if task in self.layers[layer]:
                found[name] = Adaptive(
                    layer=layer,
                    shared=(self.shared._parameters, key),
                    score=(self.scores._parameters, key_of(layer)),
                    place=0 if self.config.granularity == "layer" else self.layers[layer].index(task),
                )
        return found

    def _first_score(self, tasks: int) -> Tensor:
        shape = (1,) if self.config.granularity == "layer" else (tasks,)
        start = self.config.score_start
        return torch.rand(shape) if start == "uniform" else torch.full(shape, float(start))

    # -- lending ----------------------------------------------------------------------------------

    def subnet(self, arch: Arch, task: str, sharing: Sharing | None = None) -> TaskNetwork:
        """Return a network of an arch that holds views of the stored tensors, for one training step.

        Gradients flow through the views into the store, and BatchNorm updates its slice of the stored statistics. The
        network belongs to the caller: nothing lent later changes it. Ask again after an optimizer step: the views
        belong to the autograd graph of one step. `materialize` gives a network with tensors of its own.

        Args:
            arch: the subnet.
            task: the task.
            sharing: which layers the tasks share; None: by the current scores, which synchronises with the device.
        """
        return self.lenders[task].lend(arch, self.sharing() if sharing is None else sharing)

    def materialize(
        self, arch: Arch, sharing: Sharing | None = None, tasks: tuple[str, ...] | None = None
    ) -> MultiTaskModel:
        """Return an arch as plain networks of its own, with contiguous copies of the stored tensors.

        Matrix libraries may round a strided view differently from a copy: what is evaluated, searched and exported is
        what this returns, so that a candidate computes, bit for bit, what the exported model computes.

        Args:
            arch: the subnet.
            sharing: which layers the tasks share; None: by the scores.
            tasks: the requested tasks; None: all.
        """
        sharing = self.sharing() if sharing is None else sharing
        wanted = {name: self.tasks[name] for name in (tasks or self.tasks)}

        def source(task: str, slot: Slot, shared: bool) -> Tensor:
            return self.lenders[task].value(slot.name, slot.shape, shared)

        return MultiTaskModel.assemble(self.space, wanted, arch, sharing, source, self.device)

    @property
    def device(self) -> torch.device:
        """Where the stored tensors are."""
        return next(self.parameters()).device

    # -- sharing ----------------------------------------------------------------------------------

    def sharing(self, rule: SharingRule = "learned") -> Sharing:
        """Return which layers the tasks share: by the current scores, or with `all` or `none` of the adaptive ones."""
        scores = {name_of(key): score for key, score in self.scores.items()}
        adaptive: dict[str, tuple[str, ...]] = {}
        if rule == "none":
            adaptive = dict.fromkeys(scores, ())
        elif rule == "learned" and scores:
            above = (torch.cat(list(scores.values())) > self.config.threshold).cpu()  # one transfer from a GPU
            for layer, part in zip(scores, above.split([len(score) for score in scores.values()]), strict=True):
                tasks = self.layers[layer]
                adaptive[layer] = tuple(compress(tasks, part.tolist() * (len(tasks) // len(part))))
        return Sharing.of({**self.layers, **adaptive})

    # -- training (see `nasmvt.tasks.trainable`) --------------------------------------------------

    def draw(self, rng: np.random.Generator) -> Arch:
        """Draw the arch of a step, uniformly."""
        return self.space.sample(rng)

    def network_for_step(self, arch: Arch, task: str) -> TaskNetwork:
        """Return a task's subnet whose gradients flow into the store, for one forward and one backward pass."""
        network = self.lenders[task].lend_for_step(arch, self._present_sharing())
        if self.frozen_norms:
            train_mode(network, self.frozen_norms)
        return network

    def synchronise_norms(self) -> None:
        """Let BatchNorms of lent networks norm by the images of all processes from now on."""
        for lender in self.lenders.values():
            lender.synchronise_norms()

    def probes(self, seed: int) -> Iterator[Probe]:
        """Yield the smallest subnet, a fixed random one, and the largest."""
        fixed = self.space.sample(np.random.default_rng(derive_seed(seed, "fixed random subnet")))
        for name, arch in (("smallest", self.space.smallest), ("random", fixed), ("largest", self.space.largest)):
            model = self.materialize(arch)
            yield Probe(name, {task: model.task(task) for task in self.tasks}, model.tasks, stale_norms=True)

    def trained(self) -> Iterator[Trained]:
        """Yield every parameter once; a shared one decays as in the plain network, scores and transformations never."""
        networks = self._task_networks()
        matrices: set[str] = set().union(*(lender.transformations for lender in self.lenders.values()))
        for item in trained_of(networks):
            yield item._replace(decays=item.decays and item.plain not in matrices)
        exempt = matrices.union(*(undecayed(network) for network in networks.values()))
        for key, parameter in self.shared.items():
            yield Trained(f"shared.{key}", parameter, name_of(key) not in exempt)
        for key, parameter in self.scores.items():
            yield Trained(f"scores.{key}", parameter, decays=False)

    def _present_sharing(self) -> Sharing:
        """Return the sharing by the scores, read from the device again only after a score changed."""
        versions = [(id(score), score._version) for score in self.scores.values()]
        if self._known is None or self._known[0] != versions:
            self._known = (versions, self.sharing())
        return self._known[1]

    def _task_networks(self) -> dict[str, TaskNetwork]:
        return cast(dict[str, TaskNetwork], dict(self.networks.items()))
