"""One more task for a finished model, whose own tensors stay as they are."""

from collections.abc import Collection, Iterator
from itertools import compress

import numpy as np
import torch
from torch import Tensor, nn

from nasmvt.errors import UserError, listed, nearest
from nasmvt.families import family
from nasmvt.model import MultiTaskModel
from nasmvt.model.multi_task import stored_key
from nasmvt.space import Arch, Role, Sharing
from nasmvt.space.sharing import SharingRule, layer_of
from nasmvt.supernet.lending import Loan, Slice
from nasmvt.tasks.build import Slot, buffer_slots, build_network, build_skeleton, parameter_slots
from nasmvt.tasks.modes import train_mode
from nasmvt.tasks.network import TaskNetwork
from nasmvt.tasks.norms import synchronise
from nasmvt.tasks.task import Task
from nasmvt.tasks.trainable import Probe, Trained, key_of, name_of, trained_of


class AddedTask(nn.Module):
    """The network of a new task that may use what the tasks of a finished model share; only the new task is trained.

    Layers that tasks of the model share are frozen. The new task uses those of role `shared`; for an adaptive one it
    has tensors of its own as well, and a score decides, as in the supernet. Layers that nobody shares, neck, head and
    BatchNorm statistics are its own.

    A frozen tensor that a task begins with and uses says nothing about the alternative, so scores begin at the
    threshold, with the own tensors in use: they sink where the task has moved away from the shared tensor for good, and
    rise where the way back would lower the loss.

    Args:
        base: the finished model; it is not changed.
        task: the new task.
        rule: whether adaptive layers are shared by their scores (`learned`), `all`, `none`, or those given by name.
        threshold: a layer is shared while its score is above it.
        like: a task of the model; the new one begins with its tensors where names and shapes fit. None: the backbone
            begins with the shared tensors and, where there are none, with those of the first task; neck and head with
            fresh ones.

    Raises:
        UserError: if the model has a task of the new one's name, or none that is called `like`.
    """

    def __init__(
        self,
        base: MultiTaskModel,
        task: Task,
        rule: SharingRule | Collection[str] = "learned",
        threshold: float = 0.5,
        like: str | None = None,
    ) -> None:
        super().__init__()
        known = listed(base.tasks)
        if task.name in base.tasks:
            raise UserError(f"the model has a task {task.name!r} already (tasks: {known}): name the new one otherwise")
        if like is not None and like not in base.tasks:
            raise UserError(f"the model has no task {like!r} to begin with{nearest(like, base.tasks)} (tasks: {known})")
        self.space, self.arch, self.tasks = base.space, base.arch, {task.name: task}
        self.frozen_norms: tuple[str, ...] = ()
        self._task, self._base, self._threshold = task, [base], threshold  # in a list: no submodule
        self.networks = nn.ModuleDict({task.name: build_network(self.space, task, self.arch)})  # as elsewhere
        stored = base.tensors()
        self.frozen = self._find_frozen(stored)
        roles = self.space.layer_roles(family(self.space.family).roles)
        layers = dict.fromkeys(layer_of(name_of(key)) for key in self.frozen)
        given = [] if isinstance(rule, str) else rule
        self._always = {layer for layer in layers if rule == "all" or roles(layer) is Role.SHARED or layer in given}
        adaptive = [layer for layer in layers if rule == "learned" and layer not in self._always]
        self.scores = nn.ParameterDict({key_of(layer): nn.Parameter(torch.tensor([threshold])) for layer in adaptive})
        self._begin_with(stored, like)

    def _find_frozen(self, stored: dict[str, Tensor]) -> nn.ParameterDict:
        """Return the shared tensors of the layers that fit the new network as a whole."""
        shared = {slot.name: stored.get(stored_key("", slot.name, True)) for slot in parameter_slots(self.network)}
        unlike = {
            layer_of(slot.name)
            for slot in parameter_slots(self.network)
            if (tensor := shared[slot.name]) is None or tensor.shape != slot.shape
        }
        return nn.ParameterDict(
            {
                key_of(name): nn.Parameter(tensor, requires_grad=False)
                for name, tensor in shared.items()
                if tensor is not None and layer_of(name) not in unlike
            }
        )

    def _begin_with(self, stored: dict[str, Tensor], like: str | None) -> None:
        """Copy tensors of the model into the new network."""
        first = next(iter(self._base[0].tasks))
        own = self.network.state_dict()
        for name, tensor in own.items():
            if like is not None:
                keys = [stored_key(like, name, False), stored_key(like, name, True)]
            else:
                keys = [stored_key(first, name, True), stored_key(first, name, False)]
            found = [stored[key] for key in keys if key in stored and stored[key].shape == tensor.shape]
            if found and (like is not None or name.startswith("backbone.")):
                tensor.copy_(found[0])

    # -- what it is made of -----------------------------------------------------------------------

    @property
    def network(self) -> TaskNetwork:
        """The new task's network with the tensors of its own."""
        network = self.networks[self._task.name]
        assert isinstance(network, TaskNetwork)
        return network

    def sharing(self) -> Sharing:
        """Return how the tasks of the model and the new one share layers, by the present scores."""
        used = self._used()
        layers = self._base[0].sharing.to_dict()
        return Sharing.of({n: (*tasks, *([self._task.name] if n in used else [])) for n, tasks in layers.items()})

    def model(self) -> MultiTaskModel:
        """Return the model with the new task, with copies of all tensors: the old tasks' are equal to those before."""
        base = self._base[0]
        stored = base.tensors()
        own = {**dict(self.network.named_parameters(remove_duplicate=False)), **dict(self.network.named_buffers())}

        def source(task: str, slot: Slot, shared: bool) -> Tensor:
            if task == self._task.name and not shared:
                return own[slot.name].to(device)
            return stored[stored_key(task, slot.name, shared)]

        tasks, device = {**base.tasks, **self.tasks}, next(base.parameters()).device
        return MultiTaskModel.assemble(self.space, tasks, self.arch, self.sharing(), source, device)

    def within(self, most: int) -> set[str]:
        """Return the layers to share so that at most so many parameters are added: those of the highest scores.

        Raises:
            UserError: if sharing all that can be shared adds more.
        """
        used, frozen = self._used(), {layer_of(name_of(key)) for key in self.frozen}
        least = self._added(frozen)
        if most < least:
            raise UserError(
                f"a bound of {most:,} added parameters is below the {least:,} of the task's neck, head and layers that "
                "the model does not share: raise it, or make the head smaller"
            )
        scores = {name_of(key): float(score.detach()) for key, score in self.scores.items()}
        for layer in sorted(scores, key=lambda name: -scores[name]):
            if self._added(used) <= most:
                break
            used.add(layer)
        return used

    def _added(self, used: set[str]) -> int:
        return sum(p.numel() for name, p in self.network.named_parameters() if layer_of(name) not in used)

    def _used(self) -> set[str]:
        """Return the layers whose frozen tensors the new task uses."""
        if not self.scores:
            return self._always
        above = (torch.cat([*self.scores.values()]).detach() > self._threshold).tolist()
        return self._always | {name_of(key) for key in compress(self.scores, above)}

    def _lent(self) -> TaskNetwork:
        """Return the network with the tensors that the scores choose, as part of the autograd graph."""
        device = next(self.network.parameters()).device
        network, used = build_skeleton(self.space, self._task, self.arch, device), self._used()
        own, buffers = dict(self.network.named_parameters()), dict(self.network.named_buffers())
        lent: dict[str, Tensor] = {}
        for slot in parameter_slots(network):
            if slot.name not in lent:
                lent[slot.name] = self._choose(slot, own[slot.name], used)
            slot.owner._parameters[slot.leaf] = lent[slot.name]  # type: ignore[assignment]
        for slot in buffer_slots(network):
            slot.owner._buffers[slot.leaf] = buffers[slot.name]
        return network

    def _choose(self, slot: Slot, own: Tensor, used: set[str]) -> Tensor:
        layer, key = layer_of(slot.name), key_of(slot.name)
        if layer in self._always:
            return self.frozen[key]
        if key_of(layer) not in self.scores:
            return own
        loan, whole = Loan(), Slice.of(slot.shape, slot.shape, (), layer)
        loan.add_choice(whole, self.frozen[key], own, (self.scores[key_of(layer)], 0), layer in used)
        return loan.take()[0]

    # -- training (see `nasmvt.tasks.trainable`) --------------------------------------------------

    def draw(self, rng: np.random.Generator) -> Arch:
        """Return the model's arch."""
        return self.arch

    def network_for_step(self, arch: Arch, task: str) -> TaskNetwork:
        """Return the new task's network in training mode, for one forward and one backward pass; `arch` is the
        model's own."""
        network = self._lent()
        train_mode(network, self.frozen_norms)
        return network

    def synchronise_norms(self) -> None:
        """Let BatchNorms of the new network norm by the images of all processes from now on."""
        synchronise(self.network)

    def probes(self, seed: int) -> Iterator[Probe]:
        """Yield the new task's network: its BatchNorm statistics are its own."""
        with torch.no_grad():
            yield Probe("added", {self._task.name: self._lent()}, self.tasks, stale_norms=False)

    def trained(self) -> Iterator[Trained]:
        """Yield the new task's parameters, without those of layers that are always shared, and the scores."""
        for item in trained_of({self._task.name: self.network}):
            if layer_of(item.plain) not in self._always:
                yield item
        for key, score in self.scores.items():
            yield Trained(f"scores.{key}", score, decays=False)
