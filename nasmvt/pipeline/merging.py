"""Which layers of several task networks have equal tensors and may be stored once."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from nasmvt.space import Sharing
from nasmvt.space.sharing import layer_of

Parameters = Mapping[str, Mapping[str, Tensor]]
"""For every task, the parameters of its network by name."""

_BACKBONE = "backbone."


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """The outcome for one layer that several tasks have."""

    tasks: tuple[str, ...]
    """The tasks that have the layer."""
    shared: tuple[str, ...]
    """Those that share it now: none, or two or more."""
    specific: tuple[str, ...]
    """Those that keep their own because the layer's score says so."""
    unlike: tuple[str, ...]
    """Those that keep their own because their tensors differ from the others'."""

    def to_dict(self) -> dict[str, list[str]]:
        """Return plain values for JSON."""
        return {"shared": list(self.shared), "specific by score": list(self.specific), "differs": list(self.unlike)}


@dataclass(frozen=True, kw_only=True)
class Merged:
    """The outcome of a merge."""

    sharing: Sharing
    """The shared layers; adaptive layers that are not shared have no tasks."""
    verdicts: Mapping[str, Verdict]
    """By layer, for every layer of the backbone that two or more tasks have."""
    adaptive: frozenset[str]
    """The layers that have a score."""

    @property
    def contradictions(self) -> list[str]:
        """The adaptive layers that are shared by their scores although their tensors differ."""
        return [layer for layer, verdict in self.verdicts.items() if layer in self.adaptive and verdict.unlike]

    def summary(self, sizes: Mapping[str, Mapping[str, int]]) -> dict[str, Any]:
        """Return the counts of a merge for JSON.

        Args:
            sizes: for every task, the elements of its parameters by name.
        """
        shared = {layer for layer, verdict in self.verdicts.items() if verdict.shared}
        elements = {name: n for held in sizes.values() for name, n in held.items() if layer_of(name) in shared}
        return {
            "layers": len(shared),
            "parameters": sum(elements.values()),
            "shared by score, but different": self.contradictions,
            "by kind of layer": self.by_kind(),
        }

    def by_kind(self) -> dict[str, dict[str, int]]:
        """Return, by kind of layer (its name with `*` for numbers), the number of layers with each outcome."""
        found: dict[str, dict[str, int]] = {}
        for layer, verdict in self.verdicts.items():
            kind = re.sub(r"\b\d+\b", "*", layer.removeprefix(_BACKBONE)) if layer != "backbone" else "(positions)"
            counts = found.setdefault(
                kind, {"layers": 0, "shared by all": 0, "by some": 0, "specific by score": 0, "different": 0}
            )
            counts["layers"] += 1
            if verdict.shared:
                counts["shared by all" if verdict.shared == verdict.tasks else "by some"] += 1
            elif verdict.unlike:
                counts["different"] += 1
            else:
                counts["specific by score"] += 1
        return found


def merge(parameters: Parameters, scores: Mapping[str, Mapping[str, bool]]) -> Merged:
    """Find the layers of the backbone that can be stored once without changing what a network computes.

    A layer is a module with all of its own parameters. It is shared by the largest group of tasks, two or more, whose
    parameters are equal to the last bit and whose scores, if it has one, say that it is shared. Buffers, BatchNorm
    statistics above all, stay with their task.

    Args:
        parameters: the parameters of each task's network.
        scores: for each task, the adaptive layers and whether the task uses the shared weight.
    """
    held = {task: _layers(tensors) for task, tensors in parameters.items()}
    adaptive = frozenset(layer for layers in scores.values() for layer in layers)
    order = dict.fromkeys(layer for layers in held.values() for layer in layers)
    verdicts, sharing = {}, {}
    for layer in order:
        tasks = tuple(task for task in held if layer in held[task])
        if len(tasks) < 2:
            continue
        willing = [task for task in tasks if scores.get(task, {}).get(layer, True)]
        group = _largest_equal(willing, layer, held)
        verdicts[layer] = Verdict(
            tasks=tasks,
            shared=group,
            specific=tuple(task for task in tasks if task not in willing),
            unlike=tuple(task for task in willing if task not in group and len(willing) > 1),
        )
        if group or layer in adaptive:
            sharing[layer] = group
    return Merged(sharing=Sharing.of(sharing), verdicts=verdicts, adaptive=adaptive)


def _layers(tensors: Mapping[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    layers: dict[str, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        if name.startswith(_BACKBONE):
            layers.setdefault(layer_of(name), {})[name] = tensor
    return layers


def _largest_equal(
    tasks: list[str], layer: str, held: Mapping[str, Mapping[str, Mapping[str, Tensor]]]
) -> tuple[str, ...]:
    """Return the largest group of tasks, at least two, whose tensors of a layer are equal; the first of equal size."""
    groups: list[list[str]] = []
    for task in tasks:
        group = next((g for g in groups if _equal(held[g[0]][layer], held[task][layer])), None)
        if group is None:
            groups.append([task])
        else:
            group.append(task)
    best = max(groups, key=len, default=[])
    return tuple(best) if len(best) > 1 else ()


def _equal(first: Mapping[str, Tensor], second: Mapping[str, Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)
