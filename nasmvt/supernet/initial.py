"""What a supernet begins with: tensors of a published network or of an earlier model, put where a subnet has them."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from nasmvt.errors import UserError, listed
from nasmvt.families import family
from nasmvt.families.layers import resized
from nasmvt.families.reference import State
from nasmvt.supernet.lending import fits
from nasmvt.supernet.supernet import Supernet
from nasmvt.tasks.build import buffer_slots, parameter_slots
from nasmvt.tasks.trainable import name_of

_BACKBONE = "backbone."
_SHOWN = 6


@dataclass(frozen=True, kw_only=True)
class Initial:
    """Weights to begin with, by the names of our task networks."""

    source: str
    """Where they come from, named in sentences."""
    tensors: Mapping[str, State]
    """For each task, parameters and buffers: of the backbone, maybe of neck and head too."""
    shared: State = field(default_factory=dict)
    """Those that tasks share; what is absent here comes from the first task that has it."""
    digest: str
    """Of what was read (see `digest_of`)."""
    left_out: Mapping[str, str] = field(default_factory=dict)
    """Tensors of the source that no task takes, by their names there, and why."""


@dataclass(frozen=True, kw_only=True)
class Filled:
    """What of a supernet has been filled."""

    source: str
    digest: str
    """See `Initial`."""
    backbones: Mapping[str, tuple[int, int]]
    """For each task, the values of its backbone that were filled, and all of them; statistics count."""
    fresh: tuple[str, ...]
    """Tensors of backbones of which no value was filled."""
    heads: Mapping[str, int]
    """For each task, the tensors of neck and head that were filled."""
    left_out: Mapping[str, str]
    ordered: tuple[str, ...] = ()
    """What was put in the order of importance."""

    def sentences(self) -> list[str]:
        """Return what was done, for the user."""
        parts = [f"{task} {filled / whole:.1%}" for task, (filled, whole) in self.backbones.items()]
        found = [f"{self.source} fills the backbones: {listed(parts)}"]
        if self.fresh:
            found.append(f"drawn anew: {_some(self.fresh)}")
        taken = [f"{count} of {task}" for task, count in self.heads.items() if count]
        if taken:
            found.append(f"tensors of necks and heads that fit: {listed(taken)}")
        for reason in dict.fromkeys(self.left_out.values()):
            found.append(f"left out, {reason}: {_some([n for n, why in self.left_out.items() if why == reason])}")
        return [*found, *self.ordered]


def begin_with(supernet: Supernet, initial: Initial) -> Filled:
    """Put weights into a supernet.

    Raises:
        UserError: if a tensor of a backbone is larger than the largest network's, or fits in none of its places.
    """
    held = {task: _Store(supernet, task) for task in supernet.tasks}
    _check(initial, held)
    backbones: dict[str, tuple[int, int]] = {}
    heads: dict[str, int] = {}
    fresh: dict[str, None] = {}
    with torch.no_grad():
        for task, store in held.items():
            filled = whole = heads[task] = 0
            for name, stored in store.own.items():
                given = initial.tensors[task].get(name)
                if not name.startswith(_BACKBONE):
                    if given is not None and given.shape == stored.shape:
                        stored.copy_(given)
                        heads[task] += 1
                    continue
                if name in supernet.lenders[task].transformations and given is None:
                    continue  # the identity
                whole += stored.numel()
                if given is None:
                    fresh[name] = None
                else:
                    filled += store.fill(name, given, shared=False)
            backbones[task] = filled, whole
        for key in supernet.shared:
            name = name_of(key)
            owners = supernet.layers[name.rpartition(".")[0]]
            given = next((t[name] for t in (initial.shared, *(initial.tensors[o] for o in owners)) if name in t), None)
            if given is not None:
                held[owners[0]].fill(name, given, shared=True)
    return Filled(
        source=initial.source,
        digest=initial.digest,
        backbones=backbones,
        fresh=tuple(fresh),
        heads=heads,
        left_out=initial.left_out,
    )


class _Store:
    """The tensors of one task in a supernet."""

    def __init__(self, supernet: Supernet, task: str) -> None:
        network = supernet.networks[task]
        self._lender = supernet.lenders[task]
        self._family = family(supernet.space.family)
        slots = (*parameter_slots(network), *buffer_slots(network))
        self.own = {slot.name: self._lender.stored(slot.name, False) for slot in slots}

    def fitted(self, name: str, given: Tensor) -> Tensor | None:
        """Return a tensor in the size in which it has a place, or None if there is no such size."""
        stored = self.own[name]
        if self._family.is_table(name):
            given = resized(given, stored.shape[2:])
        return given if fits(given.shape, stored.shape) else None

    def fill(self, name: str, given: Tensor, *, shared: bool) -> int:
        """Copy a tensor into its part of the stored one; return the number of its values."""
        fitted = self.fitted(name, given)
        assert fitted is not None
        self._lender.part(name, fitted.shape, shared).copy_(fitted)
        return fitted.numel()


def _check(initial: Initial, held: Mapping[str, _Store]) -> None:
    for task, tensors in initial.tensors.items():
        store = held[task]
        for name, given in tensors.items():
            if name in store.own and name.startswith(_BACKBONE) and store.fitted(name, given) is None:
                raise UserError(
                    f"initial weights must fit into the largest network of the space, but {name} of {initial.source} "
                    f"is {tuple(given.shape)} and that of task {task} {tuple(store.own[name].shape)}: widen the space, "
                    "or give other weights"
                )
    known = {name for store in held.values() for name in store.own}
    offered = {name for tensors in (*initial.tensors.values(), initial.shared) for name in tensors}
    homeless = sorted(name for name in offered - known if name.startswith(_BACKBONE))
    if homeless:
        raise UserError(
            f"every tensor of initial weights must have a place in the largest network of the space, but "
            f"{initial.source} has others: {_some(homeless)}: deepen the space, or give other weights"
        )


def digest_of(tensors: State) -> str:
    """Return a digest of tensors by name: names, types, shapes and values."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)};".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _some(names: tuple[str, ...] | list[str]) -> str:
    rest = len(names) - _SHOWN
    return listed(names[:_SHOWN]) + (f" and {rest} more" if rest > 0 else "")
