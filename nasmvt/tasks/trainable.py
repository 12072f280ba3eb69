"""The interface of whatever the training loop trains."""

from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple, Protocol

import numpy as np
from torch import Tensor, nn

from nasmvt.space import Arch, SearchSpace
from nasmvt.tasks.network import TaskNetwork
from nasmvt.tasks.task import Task


class Trained(NamedTuple):
    """A trained parameter."""

    name: str
    """Its name in the whole state dict."""
    parameter: nn.Parameter
    decays: bool
    """Whether weight decay applies to it."""
    scale: float = 1.0
    """Factor of its learning rate by its depth."""

    @property
    def plain(self) -> str:
        """Its name in a plain task network, whoever holds it; that of a score is "scores." and its layer's."""
        place, _, rest = self.name.partition(".")
        rest = name_of(rest)
        return {"networks": rest.partition(".")[2], "shared": rest}.get(place, f"{place}.{rest}")


def key_of(name: str) -> str:
    """Return a name that torch allows for a parameter: without dots."""
    return name.replace(".", "/")


def name_of(key: str) -> str:
    """Return the name of which `key_of` made a key."""
    return key.replace("/", ".")


class Probe(NamedTuple):
    """Networks to evaluate during a training."""

    name: str
    """Name of their metrics."""
    networks: Mapping[str, TaskNetwork]
    """The network of each task."""
    tasks: Mapping[str, Task]
    """The tasks as its arch has them: in its resolution."""
    stale_norms: bool
    """Whether to re-estimate BatchNorm statistics first, because they were averaged over many subnets."""


class Trainable(Protocol):
    """Weights of several tasks that a step trains on one arch: a `Supernet`, a `MultiTaskModel`."""

    space: SearchSpace
    tasks: dict[str, Task]
    frozen_norms: tuple[str, ...]
    """Patterns of the names of BatchNorms, as in a task network, that use their running statistics in training."""

    def draw(self, rng: np.random.Generator) -> Arch:
        """Return the arch of a step."""
        ...

    def network_for_step(self, arch: Arch, task: str) -> TaskNetwork:
        """Return a task's network of this arch in training mode, for one forward and one backward pass."""
        ...

    def synchronise_norms(self) -> None:
        """Let BatchNorms of the networks of steps norm by the images of all processes."""
        ...

    def probes(self, seed: int) -> Iterator[Probe]:
        """Yield what to evaluate; random choices depend on `seed` alone."""
        ...

    def trained(self) -> Iterable[Trained]:
        """Return the parameters to train, each once."""
        ...

    def state_dict(self) -> dict[str, Tensor]:
        """Return parameters and buffers by name, as in `nn.Module`."""
        ...

    def load_state_dict(self, state_dict: Mapping[str, Tensor]) -> object:
        """Load parameters and buffers, as in `nn.Module`."""
        ...


def undecayed(network: TaskNetwork) -> set[str]:
    """Return the names of a plain network's parameters to which no weight decay applies.

    These are biases of any shape (tables of relative position biases too), everything with fewer than two dimensions
    (norms, layer scales), and what backbone and head declare in `no_weight_decay()` (position tables, class tokens).
    """
    declared = {
        f"{part}.{name}"
        for part in ("backbone", "head")
        for name in getattr(getattr(network, part), "no_weight_decay", set)()
    }
    return {
        name
        for name, parameter in network.named_parameters(remove_duplicate=False)
        if parameter.ndim < 2 or "bias" in name.rpartition(".")[2] or name in declared
    }


def trained_of(networks: Mapping[str, TaskNetwork]) -> Iterator[Trained]:
    """Yield the parameters of task networks held as `networks.<task>`; shared ones once."""
    seen: set[int] = set()
    for task, network in networks.items():
        exempt = undecayed(network)
        for name, parameter in network.named_parameters():
            if id(parameter) not in seen:
                seen.add(id(parameter))
                yield Trained(f"networks.{task}.{name}", parameter, name not in exempt)
