"""From factors to choices: which tensors belong to a choice, its name and its options."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from math import gcd
from typing import Any

from torch import nn

from nasmvt.drafting.factors import Factor
from nasmvt.drafting.network import Spot, Traced
from nasmvt.families.timm_units import PACKED
from nasmvt.space.sharing import fits

MULTIPLE = 8
"""Widths are multiples of this many channels."""

SHARES = (0.5, 0.75)
"""Shares of the published size that are offered, beside all of it."""

DEPTHS = (0.6, 0.8)
"""Shares of the published number of blocks that are offered, beside all of them."""

SMALLEST = 0.001
"""Share of the network's parameters below which units are not worth a choice."""

_FOLLOWS = re.compile(r"head|attn|inner|hidden|out|chs|val")
_NEVER = re.compile(r"head_dim|dim_head|head_size")
"""Names of numbers in modules that follow the number of units, and that never do."""


@dataclass
class Group:
    """Units of one choice."""

    name: str
    spots: dict[Factor, list[Spot]]
    """Where they are, for each block that has them (or for the whole network)."""
    sequence: str | None = None
    """The sequence of blocks that choose each for itself."""
    attributes: dict[str, int] = field(default_factory=dict)
    """Numbers in modules that follow, with so many per unit."""
    dense: bool = False
    """Whether it is the width of a map that the network returns."""

    @property
    def largest(self) -> int:
        """The largest number of units, which is the published one."""
        return max(factor.size for factor in self.spots)

    @property
    def heads(self) -> bool:
        """Whether they are attention heads."""
        return any("head" in name for name in self.attributes)

    @property
    def width(self) -> int:
        """Channels of a unit, where it has fewest."""
        return min(spot.width for spots in self.spots.values() for spot in spots)

    @property
    def step(self) -> int:
        """The number of units by which options differ at least."""
        return 1 if self.heads else MULTIPLE // gcd(MULTIPLE, self.width)

    @property
    def options(self) -> list[int]:
        """What is offered, in ascending order."""
        found = {max(self.step, round(share * self.largest / self.step) * self.step) for share in SHARES}
        return sorted({option for option in found if option < self.largest} | {self.largest})

    def tensors(self) -> dict[str, int | list[int] | list[list[int]]]:
        """Return its tensors with the dimension, and how often units come and how wide they are if need be."""
        found: dict[str, list[list[int]]] = {}
        for spot in (spot for spots in self.spots.values() for spot in spots):
            found.setdefault(spot.tensor, []).append([spot.dim, spot.parts, spot.width])
        return {name: _short(specs) for name, specs in found.items()}


def _short(specs: list[list[int]]) -> int | list[int] | list[list[int]]:
    if len(specs) > 1:
        return specs
    dim, *packing = specs[0]
    return dim if packing == [1, 1] else specs[0]


def depth_options(count: int, least: int) -> list[int]:
    """Return numbers of blocks to choose from: the first `least` always stay."""
    return sorted({number for share in DEPTHS if (number := int(share * count)) >= least} | {count})


def removable(network: nn.Module, residual: Mapping[str, Sequence[bool]]) -> dict[str, int]:
    """Return, for each sequence whose last blocks can go, how many must stay; none lies inside another."""
    found: dict[str, int] = {}
    for sequence, alike in residual.items():
        blocks = list(network.get_submodule(sequence).children())
        stay = len(blocks)
        while stay > 1 and alike[stay - 1] and any(tensor.ndim > 1 for tensor in blocks[stay - 1].parameters()):
            stay -= 1
        inside = any(sequence.startswith(f"{other}.") for other in found)
        if stay < len(blocks) and not inside:
            found[sequence] = stay
    return found


def groups(traced: Traced, sequences: Iterable[str]) -> tuple[list[Group], dict[str, list[str]]]:
    """Find the choices of units in a traced network.

    Args:
        traced: the network.
        sequences: those whose blocks may be fewer.

    Returns:
        The choices, and by reason the tensors whose units can't vary.
    """
    spots = traced.spots()
    total = sum(parameter.numel() for parameter in traced.network.parameters())
    returned = [set(traced.classified), *(set(dim) for _, dim in traced.maps)]
    reasons: dict[str, list[str]] = {}
    keyed: dict[tuple[str, str], dict[str, Factor]] = {}
    for factor, its in spots.items():
        reason = factor.fixed or _obstacle(traced.network, its)
        producer = _producer(its)
        if reason or producer is None:
            if reason and any(spot.tensor == producer and spot.parts == spot.width == 1 for spot in its):
                reasons.setdefault(reason, []).append(str(producer))
            continue
        sequence, block = _home(its, traced.residual, sequences)
        relative = producer.removeprefix(f"{sequence}.{block}.") if sequence else producer
        keyed.setdefault((sequence, relative), {})[block] = factor
    found: list[Group] = []
    for (sequence, relative), blocks in keyed.items():
        every = {factor: spots[factor] for factor in blocks.values()}
        names = list(traced.network.get_submodule(sequence)._modules) if sequence else []
        each = sequence in sequences and set(blocks) == set(names)
        path = relative.rpartition(".")[0] if "." in relative else relative
        if sequence and not each:
            path = f"{sequence}.{path}" if len(blocks) > 1 else f"{sequence}.{next(iter(blocks))}.{path}"
        elif sequence:
            path = f"{sequence}.{path}"
        group = Group(path, every, sequence if each else None)
        group.dense = any(factor in dims for factor in blocks.values() for dims in returned)
        for factor, its in every.items():
            group.attributes |= _attributes(traced.network, factor, its)
        touched = {spot.tensor for its in every.values() for spot in its}
        share = sum(traced.trace.tensors[name].numel() for name in touched) / total
        if group.heads:
            group.name = f"{path.rpartition('.')[0] or path}.heads"
        elif not sequence:
            group.name = f"{_last_sequence(traced, its) or path}.width"
        if len(group.options) < 2 or share < SMALLEST:
            few = f"has no more than {group.largest} units" if len(group.options) < 2 else "is too small to matter"
            reasons.setdefault(few, []).append(f"{path}.weight")
        else:
            found.append(group)
    _rename(found)
    return found, reasons


def _obstacle(network: nn.Module, spots: Sequence[Spot]) -> str:
    """Return why units can't be kept by leading slices, if they can't."""
    if len({(spot.tensor, spot.dim) for spot in spots}) < len(spots):
        return "occurs twice in one dimension"
    for spot in spots:
        owner, _, leaf = spot.tensor.rpartition(".")
        if spot.parts > 1 and (type(network.get_submodule(owner)) not in PACKED or leaf not in {"weight", "bias"}):
            return "is laid out in parts outside of convolutions and linear layers"
    return ""


def _producer(spots: Sequence[Spot]) -> str | None:
    """Return the first weight whose rows the units are."""
    return next((s.tensor for s in spots if s.dim == 0 and s.tensor.endswith("weight")), None)


def _home(spots: Sequence[Spot], known: Iterable[str], sequences: Iterable[str]) -> tuple[str, str]:
    """Return the sequence and the block that hold all of some units: the outermost that may be shorter, or the last."""
    inside: list[tuple[str, str]] = []
    for sequence in known:
        if all(spot.tensor.startswith(f"{sequence}.") for spot in spots):
            blocks = {spot.tensor.removeprefix(f"{sequence}.").partition(".")[0] for spot in spots}
            if len(blocks) == 1 and all(spot.tensor.count(".") > sequence.count(".") + 2 for spot in spots):
                inside.append((sequence, blocks.pop()))
    shorter = [home for home in inside if home[0] in sequences]
    return (shorter or inside[::-1] or [("", "")])[0]


def _last_sequence(traced: Traced, spots: Sequence[Spot]) -> str | None:
    """Return the innermost sequence with the last layer whose rows some units are."""
    layers = [spot.tensor for spot in spots if spot.dim == 0 and traced.trace.tensors[spot.tensor].ndim > 1]
    return next(
        (sequence for sequence in reversed(list(traced.residual)) if layers[-1].startswith(f"{sequence}.")), None
    )


def _attributes(network: nn.Module, factor: Factor, spots: Sequence[Spot]) -> dict[str, int]:
    """Return numbers in the modules around some units that follow, with so many per unit."""
    sizes = {spot.parts * spot.width for spot in spots}
    composed = max(sizes) > 1
    names = {spot.tensor.rpartition(".")[0] for spot in spots}
    common = _common(names)
    owners = {
        name
        for leaf in names
        for end in range(leaf.count(".") + 2)
        if (name := ".".join(leaf.split(".")[:end])) and name.startswith(common) and not _is_layer(network, name)
    }
    found: dict[str, int] = {}
    for name in sorted(owners):
        for key, value in vars(network.get_submodule(name)).items():
            if type(value) is not int or not composed or _NEVER.search(key) or not _FOLLOWS.search(key):
                continue
            if value == factor.size and "head" in key:
                found[f"{name}.{key}"] = 1
            elif value != factor.size and value % factor.size == 0 and value // factor.size in sizes:
                found[f"{name}.{key}"] = value // factor.size
    return found


def _is_layer(network: nn.Module, name: str) -> bool:
    return type(network.get_submodule(name)).__module__.startswith("torch.nn")


def _common(names: Iterable[str]) -> str:
    """Return the innermost module that holds all of some modules."""
    paths = [name.split(".") for name in names]
    same = [parts[0] for parts in zip(*paths, strict=False) if len(set(parts)) == 1]
    return ".".join(same)


def _rename(found: Sequence[Group]) -> None:
    """Give choices names that are identifiers and differ."""
    taken: dict[str, int] = {}
    for group in found:
        name = group.name.replace(".", "_")
        taken[name] = taken.get(name, 0) + 1
        group.name = name if taken[name] == 1 else f"{name}{taken[name]}"


def compressed(
    tensors: Mapping[str, Any], sequence: str | None, homes: Iterable[str], every: Iterable[str]
) -> dict[str, Any]:
    """Return tensors by as few patterns as fit no others: `layer1.*.conv1.weight`.

    Args:
        tensors: values by name.
        sequence: the sequence whose blocks choose, if there is one.
        homes: sequences, over whose blocks patterns may go.
        every: the names of all tensors of the network.
    """
    known = list(every)
    found: dict[str, Any] = {}
    covered: set[str] = set()
    for name, value in tensors.items():
        if name in covered:
            continue
        chosen, most = name, [name]
        for home in [sequence] if sequence else homes:
            if name.startswith(f"{home}."):
                rest = name.removeprefix(f"{home}.").split(".", 1)
                pattern = f"{home}.*.{rest[-1]}"
                fitting = [other for other in known if fits(pattern, other)] if len(rest) == 2 else []
                alike = all(other not in covered and tensors.get(other) == value for other in fitting)
                if alike and len(fitting) > len(most):
                    chosen, most = pattern, fitting
        found[chosen] = value
        covered.update(most)
    return found
