"""What the settings that work by block or by unit find in drafted spaces: axes to put in order, names of blocks."""

import re
from collections.abc import Mapping
from typing import Any

from pydantic import TypeAdapter

from nasmvt.families.axis import Axis
from nasmvt.families.timm_units import Units

_NET = "backbone.net"


def axes(fixed: Mapping[str, Any]) -> list[Axis]:
    """Return the axes of hidden units and heads of a drafted space; what heads read is a width.

    Args:
        fixed: the fixed sizes of the space.
    """
    read = set(widths(fixed))
    units = TypeAdapter(dict[str, Units]).validate_python(fixed.get("units", {}))
    found = (_axis(its) for name, its in units.items() if name not in read)
    return [axis for axis in found if axis is not None]


def widths(fixed: Mapping[str, Any]) -> list[str]:
    """Return the choices of channels that heads read.

    Args:
        fixed: the fixed sizes of the space.
    """
    names = dict.fromkeys(each.get("units") for each in (fixed["classified"], *fixed["maps"]["levels"]))
    return [name for name in names if name is not None]


def _axis(units: Units) -> Axis | None:
    """Return the axis of some units; None: they lie in several dimensions of a tensor, or no weight reads them."""
    tensors: dict[str, int] = {}
    rows: dict[str, int] = {}
    for pattern in units.tensors:
        leaf = pattern if units.blocks is None else pattern.removeprefix(f"{units.blocks}.").split(".", 1)[1]
        (dim, parts, width), *others = units.packings(pattern)
        same = (tensors.setdefault(leaf, dim), rows.setdefault(leaf, parts * width)) == (dim, parts * width)
        if others or "*" in leaf or not same:
            return None
    reader = next((leaf for leaf, dim in tensors.items() if dim == 1 and leaf.endswith("weight")), None)
    if reader is None:
        return None
    modules = _NET if units.blocks is None else f"{_NET}.{units.blocks}.*"
    return Axis(modules=modules, tensors=tensors, reader=reader, rows=rows)


def block_names(fixed: Mapping[str, Any]) -> str | None:
    """Return what the names of the blocks match of which there may be fewer; None: there are none.

    Args:
        fixed: the fixed sizes of the space.
    """
    sequences = fixed.get("depths", {}).values()
    return "|".join(rf"{re.escape(f'{_NET}.{sequence}')}\.[^.\d]*(\d+)" for sequence in sequences) or None
