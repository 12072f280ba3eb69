"""Counting the parameters of one arch on `meta`: without weights."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from nasmvt.space import Arch, SearchSpace, Sharing
from nasmvt.space.sharing import layer_of
from nasmvt.tasks.build import SizeReader
from nasmvt.tasks.task import Task


@dataclass(frozen=True, kw_only=True)
class ParameterCount:
    """Parameters of the task networks of one arch, a shared tensor counted once."""

    shared: int
    """In tensors shared by several tasks."""
    specific: Mapping[str, int]
    """In the task-specific part of the backbone, by task."""
    heads: Mapping[str, int]
    """In the neck and head, by task."""

    @property
    def total(self) -> int:
        """All of them: what a budget bounds."""
        return self.shared + sum(self.specific.values()) + sum(self.heads.values())

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON, the total first."""
        return {
            "total": self.total,
            "shared": self.shared,
            "specific": dict(self.specific),
            "heads": dict(self.heads),
        }


def tensor_sizes(space: SearchSpace, task: Task, arch: Arch) -> dict[str, int]:
    """Return the number of elements of every parameter of a task network, by name."""
    return SizeReader(space, task)(arch)


def add_up(sizes: Mapping[str, Mapping[str, int]], sharing: Sharing) -> ParameterCount:
    """Add up the tensors of the task networks of one arch.

    Args:
        sizes: for every task, the elements of its parameters by name.
        sharing: the layers that tasks share; their tensors count once. Layers an arch does not have are passed over.
    """
    shared: dict[str, int] = {}
    specific = dict.fromkeys(sizes, 0)
    heads = dict.fromkeys(sizes, 0)
    for task, tensors in sizes.items():
        for name, size in tensors.items():
            if task in sharing.tasks(layer_of(name)):
                shared[name] = size
            elif name.startswith("backbone."):
                specific[task] += size
            else:
                heads[task] += size
    return ParameterCount(shared=sum(shared.values()), specific=specific, heads=heads)


def count_parameters(space: SearchSpace, tasks: Mapping[str, Task], arch: Arch, sharing: Sharing) -> ParameterCount:
    """Count the parameters of one arch, its networks being built on `meta`; `Costs` counts many archs at once."""
    return add_up({name: tensor_sizes(space, task, arch) for name, task in tasks.items()}, sharing)
