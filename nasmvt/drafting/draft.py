"""Drafting a space: trace, choose, check that every option runs, and say what can't vary."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from nasmvt.drafting.factors import factors
from nasmvt.drafting.network import Traced, trace, traced
from nasmvt.drafting.units import Group, compressed, depth_options, groups, removable
from nasmvt.errors import UserError
from nasmvt.families.timm_resized import Draft, TimmNetwork
from nasmvt.families.vit_mvt import STAGES
from nasmvt.space import SearchSpace

FAMILY = "timm"
_STIFF = "has a size that timm's code takes from elsewhere too, and does not run in a smaller one alone"


@dataclass(frozen=True)
class Drafted:
    """A drafted space."""

    values: dict[str, Any]
    """The space as plain values, all but its name."""
    notes: Mapping[str, str]
    """A remark on each choice."""
    fixed: Mapping[str, Sequence[str]]
    """By reason, what can't vary."""
    parameters: tuple[int, int]
    """Of the smallest and of the published network, without classifier."""

    def space(self, name: str) -> SearchSpace:
        """Return the space under a name."""
        return SearchSpace.model_validate({"name": name, **self.values})


def draft(model: str) -> Drafted:
    """Draft the space of a network of timm; its weights are neither read nor needed.

    Args:
        model: timm's name, with or without the tag of its weights.

    Raises:
        UserError: if timm knows no such network, it gives no maps that a head could read, or nothing of it can vary.
    """
    found = traced(model)
    depths = removable(found.network, found.residual)
    maps = _maps(found)
    choices = {
        sequence: options
        for sequence, least in depths.items()
        if len(options := depth_options(_length(found, sequence), STAGES if sequence == maps["blocks"] else least)) > 1
    }
    units, reasons = groups(found, choices)
    refused = _refused(model, found, maps, units, choices)
    for item, why in refused.items():
        reasons.setdefault(why, []).append(item)
    units = [group for group in units if group.name not in refused]
    choices = {sequence: options for sequence, options in choices.items() if _depth(sequence) not in refused}
    for group in units:
        if group.sequence is not None and group.sequence not in choices:
            choices[group.sequence] = [_length(found, group.sequence)]
    if not units and not choices:
        raise UserError(
            f"nothing of {model} was found that can vary: draft another network, or write a family of its own"
        )
    values = _values(model, found, maps, units, choices)
    published = sum(parameter.numel() for parameter in found.network.parameters())
    smallest = _network(values, values["choices"], found, "classification")
    count = sum(parameter.numel() for parameter in smallest.net.parameters())
    notes = {_depth(sequence): f"blocks of {sequence}" for sequence in choices}
    notes |= {group.name: _note(group) for group in units}
    return Drafted(values, notes, reasons, (count, published))


def _note(group: Group) -> str:
    what = "attention heads" if group.heads else "channels" if group.width == 1 else f"groups of {group.width} channels"
    sizes = sorted({factor.size for factor in group.spots})
    narrower = (
        f" of the widest block; {', '.join(map(str, sizes[:-1]))} elsewhere, which scale along" if sizes[1:] else ""
    )
    return what + narrower


def _length(found: Traced, sequence: str) -> int:
    return len(found.network.get_submodule(sequence)._modules)


def _depth(sequence: str) -> str:
    return f"{sequence.replace('.', '_')}_depth"


def _maps(found: Traced) -> dict[str, Any]:
    """Choose the maps for dense prediction.

    Raises:
        UserError: if no head could read them.
    """
    name = type(found.network).__name__
    strides = found.strides
    if not strides or any(
        abs(side * stride - found.side) >= stride for (side, _), stride in zip(found.maps, strides, strict=True)
    ):
        raise UserError(
            f"the maps of a network must divide its images into cells, but those of {name} do not: draft another"
        )
    if len(set(strides)) == 1 and len(strides) > 1:
        blocks = next((s for s in found.residual if _length(found, s) == len(strides)), None)
        level = {"stride": strides[0], "index": -1}
        return {"levels": [level], "blocks": blocks, "norm": found.norm}
    last = {stride: place for place, stride in enumerate(strides) if stride >= 4}
    if not last:
        raise UserError(
            f"the maps of a network must have cells of 4 pixels and more, but those of {name} do not: draft another"
        )
    levels = [{"stride": stride, "index": last[stride]} for stride in sorted(last)[-4:]]
    return {"levels": levels, "blocks": None, "norm": False}


def _with_widths(
    found: Traced, maps: Mapping[str, Any], units: Sequence[Group]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the maps with their channels and the choices that these follow, and so what the classifier reads."""
    owners = {factor: group.name for group in units for factor in group.spots}

    def described(dim: Any, **rest: Any) -> dict[str, Any]:
        width = _channels(dim)
        for factor in factors(dim):
            if factor in owners:
                rest |= {"units": owners[factor], "each": width // factor.size}
        return {**rest, "width": width}

    levels = [described(found.maps[level["index"]][1], **level) for level in maps["levels"]]
    return {**maps, "levels": levels}, described(found.classified, stride=max(found.strides))


def _values(
    model: str, found: Traced, maps: Mapping[str, Any], units: Sequence[Group], choices: Mapping[str, Sequence[int]]
) -> dict[str, Any]:
    """Return the space as plain values."""
    names = list(found.trace.tensors)
    homes = list(found.residual)
    levels, classified = _with_widths(found, maps, units)
    options: dict[str, Any] = {_depth(sequence): list(numbers) for sequence, numbers in choices.items()}
    held: dict[str, Any] = {}
    for group in units:
        per = {} if group.sequence is None else {"per": _depth(group.sequence)}
        options[group.name] = {"options": group.options, **per} if per else group.options
        numbers = [
            f"{n}.{k}" for n, m in found.network.named_modules() if n for k, v in vars(m).items() if type(v) is int
        ]
        held[group.name] = {
            "largest": group.largest,
            **({"blocks": group.sequence} if group.sequence is not None else {}),
            **({"step": group.step} if len({factor.size for factor in group.spots}) > 1 else {}),
            "tensors": compressed(group.tensors(), group.sequence, homes, names),
            **(
                {"attributes": compressed(group.attributes, group.sequence, homes, numbers)} if group.attributes else {}
            ),
        }
    published = {}
    for name, its in options.items():
        last = (its["options"] if isinstance(its, dict) else its)[-1]
        published[name] = [last] * options[its["per"]][-1] if isinstance(its, dict) else last
    unused = {key: modules for key, modules in found.unused.items() if modules}
    return {
        "family": FAMILY,
        "choices": options,
        "fixed": {
            "model": model,
            **found.how,
            "maps": {key: value for key, value in levels.items() if value},
            "classified": classified,
            **({"unused": unused} if unused else {}),
            "depths": {_depth(sequence): sequence for sequence in choices},
            "units": held,
        },
        "roles": _roles(found),
        "archs": {"published": published},
    }


def _roles(found: Traced) -> dict[str, str]:
    """Return patterns of the layers that tasks share by score: convolutions and linear layers but the first."""
    found_roles: dict[str, str] = {}
    modules = dict(found.network.named_modules())
    for name, module in modules.items():
        if not isinstance(module, (nn.Conv2d, nn.Linear)) or _follows_images(found, name):
            continue
        home = next((sequence for sequence in found.residual if name.startswith(f"{sequence}.")), None)
        pattern = name if home is None else f"{home}.*.{name.removeprefix(f'{home}.').split('.', 1)[1]}"
        found_roles[f"backbone.net.{pattern}"] = "adaptive"
    return found_roles


def _follows_images(found: Traced, layer: str) -> bool:
    """Return whether a layer reads the images, or its shape depends on their size."""
    weight = found.trace.tensors[f"{layer}.weight"]
    return any("of the" in factor.fixed for dim in found.trace.dims(weight)[:2] for factor in factors(dim))


# -- checking -------------------------------------------------------------------------------------


def _refused(
    model: str, found: Traced, maps: Mapping[str, Any], units: Sequence[Group], choices: Mapping[str, Sequence[int]]
) -> dict[str, str]:
    """Return the choices whose smallest option does not run, or is no part of the network, with the reason."""
    values = _values(model, found, maps, units, _with_needed(found, units, choices))

    def bad(some: Sequence[str]) -> dict[str, str]:
        picked = {name: its if name in some else _published_only(its) for name, its in values["choices"].items()}
        why = _problem(values, picked, found) if some else ""
        if not why or len(some) == 1:
            return dict.fromkeys(some, why) if why else {}
        middle = len(some) // 2
        return bad(some[:middle]) | bad(some[middle:]) or dict.fromkeys(some[:middle], why)

    refused: dict[str, str] = {}
    while more := bad([name for name in values["choices"] if name not in refused]):
        refused |= more
    return refused


def _with_needed(
    found: Traced, units: Sequence[Group], choices: Mapping[str, Sequence[int]]
) -> dict[str, Sequence[int]]:
    needed = {group.sequence: [_length(found, group.sequence)] for group in units if group.sequence is not None}
    return {**needed, **choices}


def _published_only(choice: Any) -> Any:
    return {**choice, "options": choice["options"][-1:]} if isinstance(choice, dict) else choice[-1:]


def _network(values: Mapping[str, Any], choices: Mapping[str, Any], found: Traced, kind: str) -> TimmNetwork:
    """Return the network of first options on `meta`."""
    space = SearchSpace.model_validate({"name": "draft", "family": FAMILY, "choices": choices})
    with torch.device("meta"):
        return Draft(values["fixed"], (found.side, found.side)).network(space.smallest, kind)


def _problem(values: Mapping[str, Any], choices: Mapping[str, Any], found: Traced) -> str:
    """Return why the network of first options is none, or is no part of the published one; "": it is one."""
    try:
        network = _network({**values, "fixed": {**values["fixed"], "unused": {}}}, choices, found, "segmentation")
        small = trace(network.net, found.how, found.side, found.norm)
        space = SearchSpace.model_validate({"name": "draft", "family": FAMILY, "choices": choices})
        arch = space.smallest
        read = [small.maps[place][1] for place in network.indices or ()]
        if [_channels(dim) for dim in read] != list(network.widths):
            return _STIFF
    except (RuntimeError, TypeError, ValueError, AssertionError, IndexError, UserError):
        return _STIFF
    wanted, got = found.sizes(), small.sizes()
    for name, places in Draft.plan_of(found.network, values["fixed"]).tensors.items():
        shape = found.trace.tensors[name].shape
        for place in places if (name, 0) in got else ():
            sizes = list(wanted[name, place.dim])
            if place.published(shape) not in sizes:
                return "is not told apart from other units of a tensor"
            sizes.remove(place.published(shape))
            kept = place.kept(shape, arch)
            wanted[name, place.dim] = sorted([*sizes, kept] if kept > 1 else sizes)
    changed = any(wanted[place] != sizes for place, sizes in got.items())
    return "does not keep its meaning in smaller sizes" if changed else ""


def _channels(dim: Any) -> int:
    width = 1
    for factor in factors(dim):
        width *= factor.size
    return width
