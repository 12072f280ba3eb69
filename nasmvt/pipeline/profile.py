"""The costs of an arch: parameters by task, part and role, multiply-accumulates, and milliseconds."""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import takewhile
from typing import Any

import torch

from nasmvt.cost import LatencyTable
from nasmvt.cost.latency import measure_latency
from nasmvt.cost.macs import count_macs
from nasmvt.cost.parameters import ParameterCount, add_up, tensor_sizes
from nasmvt.errors import UserError
from nasmvt.families import family
from nasmvt.pipeline.profile_subject import Subject
from nasmvt.space import Role, Roles, Sharing
from nasmvt.space.pattern import Pattern
from nasmvt.space.sharing import SharingRule, layer_of
from nasmvt.tasks.choices import check_choices

Sizes = Mapping[str, Mapping[str, int]]
"""For every task, the elements of its parameters by name."""

EVALUATED = ("backbone", "neck", "head")
"""The parts of a task network that evaluation runs; others only serve training."""


@dataclass(frozen=True, kw_only=True)
class Part:
    """Parameters of one part of the task networks and of one role."""

    name: str
    """Of the module, or of a parameter outside of modules."""
    role: Role
    """Of its layers; layers that only one task has are specific."""
    tasks: Mapping[str, int]
    """Their number in the network of each task that has it."""


@dataclass(frozen=True, kw_only=True)
class Profile:
    """The costs of one arch with all its tasks."""

    subject: Subject
    """What was profiled."""
    pattern: str | None
    """Name of the counting pattern."""
    parameters: Mapping[SharingRule, ParameterCount]
    """Of all task networks together, shared tensors once, by sharing rule."""
    parts: tuple[Part, ...]
    """Of each task network alone."""
    macs: Mapping[str, Mapping[str, int]]
    """Multiply-accumulates of one image, by task and by `backbone`, `neck`, `head`."""
    milliseconds: Mapping[str, float] | None
    """Of a call, by task, if they were measured or a table gives them."""
    device: str | None
    """Where they were measured."""

    @property
    def training_only(self) -> dict[str, int]:
        """Parameters that evaluation does not use, by task; the totals include them."""
        found: dict[str, int] = {}
        for part in self.parts:
            if part.name.partition(".")[0] not in EVALUATED:
                for task, size in part.tasks.items():
                    found[task] = found.get(task, 0) + size
        return found

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        subject = self.subject
        sizes = {name: list(task.config.data.image_size) for name, task in subject.tasks.items()}
        return {
            "kind": subject.kind,
            "source": subject.source,
            "space": subject.space.name,
            "family": subject.space.family,
            "pattern": self.pattern,
            "arch": {"name": subject.arch_name, "id": subject.arch.id, "values": subject.arch.to_dict()},
            "tasks": {
                name: {"kind": task.config.kind, "image_size": sizes[name], "classes": len(task.info.classes)}
                for name, task in subject.tasks.items()
            },
            "parameters": {name: count.to_dict() for name, count in self.parameters.items()},
            "training_only": self.training_only,
            "parts": [{"part": part.name, "role": str(part.role), "tasks": dict(part.tasks)} for part in self.parts],
            "macs": {task: {"total": sum(macs.values()), **macs} for task, macs in self.macs.items()},
            "milliseconds": None if self.milliseconds is None else dict(self.milliseconds),
            "device": self.device,
        }


def profile(
    subject: Subject,
    *,
    sharing: SharingRule | None = None,
    pattern: Pattern | None = None,
    device: torch.device | None = None,
    table: LatencyTable | None = None,
) -> Profile:
    """Count the costs of an arch, on `meta`, without weights.

    Args:
        subject: what to profile.
        sharing: how layers are shared; None: as learned, if known, and both extremes.
        pattern: another way to count.
        device: where latency is measured, with real networks; None: not measured.
        table: gives the latency instead, of the tasks that it has; it must be of this space (see `LatencyTable.check`).

    Raises:
        UserError: if the learned sharing is requested but unknown, if a layer that can be shared has another size
            in another task, or if the pattern does not fit the space.
    """
    space = subject.space
    family(space.family).check(space)
    check_choices(space, subject.tasks)
    if pattern is not None:
        space = pattern.apply(space)
        family(space.family).check(space)
    learned = subject.learned if pattern is None else None
    if sharing == "learned" and learned is None:
        reason = "there are no scores" if pattern is None else f"the pattern {pattern.name} has other roles"
        raise UserError(f"learned sharing needs the scores of a run, but {reason}: pass --sharing all or none")
    sizes = {name: tensor_sizes(space, task, subject.arch) for name, task in subject.tasks.items()}
    if pattern is not None:
        pattern.check(dict.fromkeys(name for tensors in sizes.values() for name in tensors))
        largest = {name: tensor_sizes(space, task, space.largest) for name, task in subject.tasks.items()}
        sizes = _stored_sizes(pattern, sizes, largest)
    roles = effective_roles(sizes, space.layer_roles(family(space.family).roles))
    sharings: dict[SharingRule, Sharing] = {} if learned is None else {"learned": learned}
    sharings["all"], sharings["none"] = sharing_bounds(sizes, roles)
    counts = {name: add_up(sizes, how) for name, how in sharings.items() if sharing in {None, name}}
    milliseconds = where = None
    if table is not None:
        where = table.setting.processor
        known = [name for name in subject.tasks if name in table.tasks]
        milliseconds = {name: int(table.tables(subject.space, name).of(subject.arch)[0]) / 1000 for name in known}
    elif device is not None:
        where = str(device)
        milliseconds = {
            name: measure_latency(space, task, subject.arch, device) for name, task in subject.tasks.items()
        }
    return Profile(
        subject=subject,
        pattern=None if pattern is None else pattern.name,
        parameters=counts,
        parts=_parts(sizes, roles),
        macs={name: _macs_by_part(count_macs(space, task, subject.arch)) for name, task in subject.tasks.items()},
        milliseconds=milliseconds,
        device=where,
    )


def effective_roles(sizes: Sizes, roles: Roles) -> dict[str, Role]:
    """Return the role of every layer; layers that fewer than two tasks have are specific.

    Raises:
        UserError: if a layer that can be shared has another size in another task.
    """
    found = {}
    for layer, tasks in _owners(sizes).items():
        role = roles(layer) if len(tasks) > 1 else Role.SPECIFIC
        found[layer] = role
    names = dict.fromkeys(name for tensors in sizes.values() for name in tensors)
    for name in (name for name in names if found[layer_of(name)] is not Role.SPECIFIC):
        held = {task: tensors[name] for task, tensors in sizes.items() if name in tensors}
        if len(set(held.values())) > 1:
            given = ", ".join(f"{task} {size:,}" for task, size in held.items())
            raise UserError(
                f"a layer of role {found[layer_of(name)]} needs one size in all tasks, but {name} has {given} "
                "elements: make it specific"
            )
    return found


def sharing_bounds(sizes: Sizes, roles: Mapping[str, Role]) -> tuple[Sharing, Sharing]:
    """Return the two extremes: all layers shared that can be, and only those of role shared."""
    owners = {layer: tasks for layer, tasks in _owners(sizes).items() if roles[layer] is not Role.SPECIFIC}
    fixed = {layer: tasks if roles[layer] is Role.SHARED else () for layer, tasks in owners.items()}
    return Sharing.of(owners), Sharing.of(fixed)


def _owners(sizes: Sizes) -> dict[str, tuple[str, ...]]:
    """Return the tasks that have each layer."""
    owners: dict[str, dict[str, None]] = {}
    for task, tensors in sizes.items():
        for name in tensors:
            owners.setdefault(layer_of(name), {})[task] = None
    return {layer: tuple(tasks) for layer, tasks in owners.items()}


def _stored_sizes(pattern: Pattern, sizes: Sizes, largest: Sizes) -> dict[str, dict[str, int]]:
    """Return the sizes, with those of the largest network where the pattern stores them so."""
    return {
        task: {name: largest[task][name] if pattern.stores_unsliced(name) else size for name, size in tensors.items()}
        for task, tensors in sizes.items()
    }


def _parts(sizes: Sizes, roles: Mapping[str, Role]) -> tuple[Part, ...]:
    """Add up parameters by part and role, in the order of the networks."""
    found: dict[tuple[str, Role], dict[str, int]] = {}
    for task, tensors in sizes.items():
        for name, size in tensors.items():
            tasks = found.setdefault((_part_of(name), roles[layer_of(name)]), {})
            tasks[task] = tasks.get(task, 0) + size
    parts = [Part(name=name, role=role, tasks=tasks) for (name, role), tasks in found.items()]
    return tuple(sorted(parts, key=lambda part: _rank(part.name)))


def _rank(part: str) -> int:
    top = part.partition(".")[0]
    return EVALUATED.index(top) if top in EVALUATED else len(EVALUATED)


def _part_of(parameter: str) -> str:
    """Return the part of a parameter: at most three names of modules, up to the first number in a list.

    "backbone.blocks.0.fc1.weight" -> "backbone.blocks", "head.roi_heads.box_head.4.bias" ->
    "head.roi_heads.box_head", "backbone.pos_embed" -> "backbone.pos_embed".
    """
    modules = parameter.split(".")[:-1]
    names = list(takewhile(lambda module: not module.isdecimal(), modules[:3]))
    if len(names) > 1:
        return ".".join(names)
    return ".".join(modules[:2]) if len(modules) > 1 else parameter


def _macs_by_part(macs: Mapping[str, int]) -> dict[str, int]:
    found = dict.fromkeys(EVALUATED, 0)
    for module, count in macs.items():
        part = module.partition(".")[0]
        found[part] = found.get(part, 0) + count
    return found
