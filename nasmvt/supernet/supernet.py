"""The supernet: a store of weights that lends views of them to plain networks."""

from collections.abc import Callable, Mapping
from functools import lru_cache
from itertools import compress

import torch
from torch import Tensor, nn

from nasmvt.errors import UserError
from nasmvt.families import family
from nasmvt.model import MultiTaskModel
from nasmvt.model.multi_task import backbone_no_decay, copy_of
from nasmvt.space import Arch, Role, SearchSpace, Sharing
from nasmvt.space.sharing import SharingRule, layer_of
from nasmvt.supernet.config import SupernetConfig
from nasmvt.supernet.lending import choose, copied, leading
from nasmvt.tasks.build import Slot, buffer_slots, build_network, build_skeleton, parameter_slots
from nasmvt.tasks.network import TaskNetwork
from nasmvt.tasks.task import Task


class Supernet(nn.Module):
    """The weights, scores and buffers of every subnet of a space, for several tasks.

    The largest network of every task holds the specific tensors. A layer that several tasks have is,
    by its role, specific (each network keeps its own), shared (the networks hold one tensor in common)
    or adaptive: then `shared` holds one more tensor, and `scores` says which of the two a task uses.

    Args:
        space: the search space.
        tasks: the tasks by name.
        config: granularity, start and threshold of the scores.

    Raises:
        UserError: if the family does not know the space's choices or sizes, if tasks have a shared or
            adaptive layer in different shapes, or if a subnet is no leading slice of the largest.
    """

    def __init__(self, space: SearchSpace, tasks: Mapping[str, Task], config: SupernetConfig | None = None) -> None:
        super().__init__()
        chosen = family(space.family)
        chosen.check(space)
        self.space = space
        self.tasks = dict(tasks)
        self.config = config or SupernetConfig()
        self.roles = space.layer_roles(chosen.roles)
        self.networks = nn.ModuleDict({name: build_network(space, task, space.largest) for name, task in tasks.items()})
        self.shared = nn.ParameterDict()
        self.scores = nn.ParameterDict()
        self.layers = self._divide()
        self._skeleton = lru_cache(maxsize=32)(self._build_skeleton)
        for arch in space.covering:  # refuses, before anything is trained, what can't be built or is no leading slice
            for task in tasks:
                self._skeleton(arch, task)

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
                self.shared[_key(name)] = nn.Parameter(copy_of(first))
                if _key(layer) not in self.scores:
                    self.scores[_key(layer)] = nn.Parameter(self._first_score(len(tasks)))
            for _, slot in slots:
                tied = first if role is Role.SHARED else nn.Parameter(copy_of(first))
                slot.owner._parameters[slot.leaf] = tied
        return layers

    def _first_score(self, tasks: int) -> Tensor:
        shape = (1,) if self.config.granularity == "layer" else (tasks,)
        start = self.config.score_start
        return torch.rand(shape) if start == "uniform" else torch.full(shape, float(start))

    # -- lending ----------------------------------------------------------------------------------

    def subnet(self, arch: Arch, task: str) -> TaskNetwork:
        """Return the network of an arch, with the stored tensors as they are now.

        With gradients enabled it holds views, for one training step: gradients flow through them into the store,
        and BatchNorm updates its slice of the stored statistics. Ask again after an optimizer step: the views belong
        to the autograd graph of one. Without gradients it holds contiguous copies, and so computes, bit for bit, what
        the materialized and the exported model compute.
        """
        lend = leading if torch.is_grad_enabled() else copied
        network, parameters, buffers = self._skeleton(arch, task)
        stored, statistics = self._own(task)
        sharing = self.sharing()
        for slot in parameters:
            own = lend(stored[slot.name], slot.shape)
            if _key(slot.name) in self.shared:
                layer = layer_of(slot.name)
                common = lend(self.shared[_key(slot.name)], slot.shape)
                own = choose(common, own, self._score(layer, task), task in sharing.tasks(layer))
            slot.owner._parameters[slot.leaf] = own  # type: ignore[assignment]
        for slot in buffers:
            slot.owner._buffers[slot.leaf] = lend(statistics[slot.name], slot.shape)
        return network

    def materialize(
        self, arch: Arch, sharing: Sharing | None = None, tasks: tuple[str, ...] | None = None
    ) -> MultiTaskModel:
        """Return an arch as plain networks of its own, with contiguous copies of the stored tensors.

        Args:
            arch: the subnet.
            sharing: which layers the tasks share; None: as the scores say.
            tasks: the tasks wanted; None: all.
        """
        sharing = self.sharing() if sharing is None else sharing
        own = {name: self._own(name) for name in (tasks or self.tasks)}

        def source(task: str, slot: Slot, shared: bool) -> Tensor:
            parameters, buffers = own[task]
            if slot.name in buffers:
                return leading(buffers[slot.name], slot.shape)
            adaptive = shared and _key(slot.name) in self.shared
            stored = self.shared[_key(slot.name)] if adaptive else parameters[slot.name]
            return leading(stored, slot.shape)

        return MultiTaskModel.assemble(self.space, {name: self.tasks[name] for name in own}, arch, sharing, source)

    # -- sharing ----------------------------------------------------------------------------------

    def sharing(self, rule: SharingRule = "learned") -> Sharing:
        """Return which layers the tasks share: by the present scores, or with `all` or `none` of the adaptive ones."""
        if rule == "all":
            return Sharing.of(self.layers)
        fixed = {layer: tasks for layer, tasks in self.layers.items() if _key(layer) not in self.scores}
        return Sharing.of(fixed if rule == "none" else fixed | self._above_threshold())

    def _above_threshold(self) -> dict[str, tuple[str, ...]]:
        """Return, for each adaptive layer, the tasks whose score is above the threshold; one transfer from a GPU."""
        scores = {layer: self.scores[_key(layer)].detach() for layer in self.layers if _key(layer) in self.scores}
        if not scores:
            return {}
        above = (torch.cat(list(scores.values())) > self.config.threshold).cpu()
        parts = zip(scores, above.split([score.numel() for score in scores.values()]), strict=True)
        each = {layer: part.expand(len(self.layers[layer])).tolist() for layer, part in parts}
        return {layer: tuple(compress(self.layers[layer], flags)) for layer, flags in each.items()}

    def no_weight_decay(self) -> set[str]:
        """Return the names of parameters that are not to decay: what backbones declare, and the scores."""
        return backbone_no_decay(self.networks) | {f"scores.{key}" for key in self.scores}

    def _score(self, layer: str, task: str) -> Tensor:
        score = self.scores[_key(layer)]
        return score if score.numel() == 1 else score[self.layers[layer].index(task)]

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "Supernet":
        """Forget the skeletons when the weights move: their constants would stay behind."""
        self._skeleton.cache_clear()
        super()._apply(fn, recurse)
        return self

    # -- structure --------------------------------------------------------------------------------

    def _own(self, task: str) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        network = self.networks[task]
        return dict(network.named_parameters()), dict(network.named_buffers())

    def _build_skeleton(self, arch: Arch, task: str) -> tuple[TaskNetwork, list[Slot], list[Slot]]:
        device = next(self.networks[task].parameters()).device
        network = build_skeleton(self.space, self.tasks[task], arch, device)
        parameters, buffers = parameter_slots(network), buffer_slots(network)
        stored = {name: tensor.shape for group in self._own(task) for name, tensor in group.items()}
        for slot in (*parameters, *buffers):
            held = stored.get(slot.name)
            found = "absent" if held is None else tuple(held)
            if (
                held is None
                or len(held) != len(slot.shape)
                or any(n > m for n, m in zip(slot.shape, held, strict=True))
            ):
                raise UserError(
                    f"every subnet must be a leading slice of the largest network, but {slot.name} of task {task} "
                    f"is {tuple(slot.shape)} in a subnet and {found} in the largest: change the family"
                )
        return network, parameters, buffers


def _key(name: str) -> str:
    """Return a name as torch allows it for a parameter: without dots."""
    return name.replace(".", "/")
