"""Channels of a width that is a choice, in the order of their importance, wherever blocks and heads have them.

A family declares the choices whose channels have a free order. Which tensors have these channels is found by comparing
the largest networks with narrower ones: necks and heads of any kind belong to it, too. What heads make of them nobody
declares, so every task's network is asked whether it computes what it did.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from nasmvt.errors import UserError, listed
from nasmvt.families import family
from nasmvt.space import SearchSpace
from nasmvt.supernet.importance import Score, Units, stored_as, units_of_axes
from nasmvt.supernet.supernet import Supernet
from nasmvt.tasks.build import buffer_slots, build_skeleton, parameter_slots

_SAME = 1e-6
"""Of the largest value, in float64."""


def put_widths_in_order(supernet: Supernet, score: Score, *, required: bool) -> tuple[list[str], list[str]]:
    """Put the channels of the widths that the family declares in order, the most important first, for all tasks.

    Every task's largest network computes the same as before, up to rounding; a width for which one does not stays as
    it is.

    Args:
        supernet: whose weights are put in order.
        score: gives the importance of channels.
        required: whether to refuse what can't be put in order.

    Returns:
        The choices whose channels are in order, and those whose channels stayed as they were.

    Raises:
        UserError: if it is required and the family declares no widths that vary, or heads depend on their order.
    """
    space = supernet.space
    declared = family(space.family).widths_of(space)
    choices = [name for name in declared if len(space.choices[name].options) > 1]
    if required and not choices:
        raise UserError(
            f"initial.order_widths needs widths that vary and whose channels have a free order, but the family "
            f"{space.family} declares none for {space.name}: leave it out"
        )
    claimed = {(id(tensor), dim) for units in units_of_axes(supernet) for tensor, dim in units.held}
    places = {choice: _places(supernet, choice) for choice in choices}
    in_heads = {place.task for its in places.values() for place in its if place.name.startswith("head.")}
    before = _computed(supernet, in_heads) if choices else {}
    ordered: list[str] = []
    for choice in choices:
        units = _channels(supernet, _counts(space, choice)[1], places[choice], claimed)
        if not units.readers:
            continue
        order = units.in_order(score)
        units.reorder(order)
        if all(_alike(now, before[task]) for task, now in _computed(supernet, in_heads).items()):
            ordered.append(choice)
        else:
            units.reorder(torch.argsort(order))
    left = [choice for choice in choices if choice not in ordered]
    if required and left:
        raise UserError(
            f"initial.order_widths needs channels whose order no head and no layer depends on, but one depends on that "
            f"of {listed(left)}: leave it out"
        )
    return ordered, left


def _counts(space: SearchSpace, choice: str) -> tuple[int, int]:
    """Return the channels of the narrowest and of the largest networks."""
    units, options = family(space.family).units, cast(Sequence[int], space.choices[choice].options)
    return units(space, choice, options[0]), units(space, choice, options[-1])


class _Place(NamedTuple):
    """A dimension of a parameter or buffer that has the channels of a choice."""

    task: str
    name: str
    dim: int
    length: int
    """How much of the dimension these are; in necks and heads they may be concatenated with others, and come first."""


def _places(supernet: Supernet, choice: str) -> list[_Place]:
    """Return the dimensions that are longer in the largest networks than in narrower ones by whole channels."""
    space = supernet.space
    fewer, count = _counts(space, choice)
    narrow = space.arch({**space.largest.to_dict(), choice: space.choices[choice].options[0]})
    found = []
    for task, network in supernet.networks.items():
        small = _shapes(build_skeleton(space, supernet.tasks[task], narrow, "meta"))
        for name, shape in _shapes(network).items():
            for dim, (length, other) in enumerate(zip(shape, small.get(name, shape), strict=True)):
                each, rest = divmod(length - other, count - fewer)
                whole = each * count == length or not name.startswith("backbone.")
                if each and not rest and whole:
                    found.append(_Place(task, name, dim, each * count))
    return found


def _channels(supernet: Supernet, count: int, places: Sequence[_Place], claimed: Collection[tuple[int, int]]) -> Units:
    """Return the channels that lie in some places, but for the dimensions of stored tensors that others claim."""
    held: dict[tuple[int, int], tuple[Tensor, int]] = {}
    readers: dict[int, tuple[Tensor, int]] = {}
    for task, name, dim, length in places:
        for tensor in stored_as(supernet, task, name):
            if tensor.shape[dim] > length:
                held[id(tensor), dim] = tensor.detach().narrow(dim, 0, length), dim
            elif (id(tensor), dim) not in claimed:
                held[id(tensor), dim] = tensor, dim
                if dim == 1 and name.endswith("weight"):
                    readers[id(tensor)] = tensor, dim
    return Units(count, tuple(held.values()), tuple(readers.values()))


def _shapes(network: nn.Module) -> dict[str, torch.Size]:
    return {slot.name: slot.shape for slot in (*parameter_slots(network), *buffer_slots(network))}


def _computed(supernet: Supernet, in_heads: Collection[str]) -> Mapping[str, list[Tensor]]:
    """Return what every task's largest network computes for one image, in float64.

    These are the maps that its head reads; for tasks whose head has the channels too, what the head computes.
    """
    model = supernet.materialize(supernet.space.largest).cpu().double().eval()
    found: dict[str, list[Tensor]] = {}
    for task in supernet.tasks:
        network, size = model.task(task), supernet.tasks[task].nominal_size
        image = torch.rand(1, 3, *size, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        with torch.inference_mode():
            computed = network(image) if task in in_heads else network.maps(image)
        found[task] = [leaf for leaf in tree_leaves(computed) if isinstance(leaf, Tensor)]
    return found


def _alike(now: list[Tensor], before: list[Tensor]) -> bool:
    return all(
        a.shape == b.shape and float((a - b).abs().max()) <= _SAME * float(b.abs().max())
        for a, b in zip(now, before, strict=True)
    )
