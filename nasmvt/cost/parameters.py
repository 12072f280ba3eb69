"""Counting parameters on `meta`: no weights, no gigabytes."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from nasmvt.space import Arch, SearchSpace, Sharing
from nasmvt.space.sharing import layer_of
from nasmvt.tasks.build import build_skeleton, parameter_slots
from nasmvt.tasks.task import Task


@dataclass(frozen=True, kw_only=True)
class ParameterCount:
    """Parameters of the task networks of one arch, a shared tensor counted once."""

    shared: int
    """In tensors that several tasks use."""
    specific: Mapping[str, int]
    """In each task's own part of the backbone."""
    heads: Mapping[str, int]
    """In each task's neck and head."""

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


class ParameterCounter:
    """Counts the parameters of archs of one space under one sharing; an arch is built once.

    Args:
        space: the search space.
        tasks: the tasks whose networks are counted together.
        sharing: the layers that tasks share; layers an arch does not have are passed over.
    """

    def __init__(self, space: SearchSpace, tasks: Mapping[str, Task], sharing: Sharing) -> None:
        self.space = space
        self.tasks = dict(tasks)
        self.sharing = sharing
        self.count = lru_cache(maxsize=100_000)(self._count)

    def total(self, arch: Arch) -> int:
        """Return the total of an arch."""
        return self.count(arch).total

    def _count(self, arch: Arch) -> ParameterCount:
        shared: dict[str, int] = {}
        specific = dict.fromkeys(self.tasks, 0)
        heads = dict.fromkeys(self.tasks, 0)
        for name, task in self.tasks.items():
            seen = {slot.name: slot.shape.numel() for slot in parameter_slots(build_skeleton(self.space, task, arch))}
            for parameter, size in seen.items():
                if name in self.sharing.tasks(layer_of(parameter)):
                    shared[parameter] = size
                elif parameter.startswith("backbone."):
                    specific[name] += size
                else:
                    heads[name] += size
        return ParameterCount(shared=sum(shared.values()), specific=specific, heads=heads)
