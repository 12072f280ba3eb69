"""Axes of a network along which units can be put in another order without changing what it computes."""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, kw_only=True)
class Axis:
    """Tensors of one module that have an axis of units in common: hidden channels, attention heads.

    A leading slice keeps the first units. Put in another order in all of these tensors, they compute the same.
    """

    modules: str
    """Pattern (as in roles) of the names of the modules, `backbone.` first. One that lacks `reader` is passed over."""
    tensors: Mapping[str, int]
    """Parameters and buffers by their names below the module, with the axis' dimension; a module may lack some."""
    reader: str
    """The tensor among them that reads the units: its weights say how much of a unit goes on."""
    count: str | None = None
    """The module's attribute that says how many units there are, such as `attn.num_heads`: a unit is then several
    consecutive rows. None: every row is a unit."""

    rows: Mapping[str, int] = field(default_factory=dict)
    """How many consecutive rows of a tensor a unit has, where `count` is None. A module in which the tensors that are
    named here have different numbers of units is passed over."""

    spread: str | None = None
    """The BatchNorm before the units, below the module: by its weight, its bias and its activation (timm's `act`) the
    values of some spread further than those of others."""
    gain: str | None = None
    """The BatchNorm behind what reads them, whose weight and variance scale the reader's rows."""
