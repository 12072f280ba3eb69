"""Shared by the families with several stages: choices made once per stage, `embed_dim1` to `embed_dim4`."""

from collections.abc import Sequence
from typing import Any

from nasmvt.errors import UserError, listed
from nasmvt.space import Arch

STAGES = 4
"""Stages of a network of a search space; stage 1 is at stride 4."""


def choices_per_stage(**kinds: Any) -> dict[str, Any]:
    """Return the choices of a family, with types, that are made once per stage: `depth=int` gives depth1 to depth4."""
    return {f"{name}{stage}": kind for name, kind in kinds.items() for stage in range(1, STAGES + 1)}


def per_stage(arch: Arch, name: str) -> tuple[Any, ...]:
    """Return an arch's options of a choice that is made once per stage."""
    return tuple(arch[f"{name}{stage}"] for stage in range(1, STAGES + 1))


def check_per_stage(network: str, **sizes: Sequence[object] | None) -> None:
    """Refuse sizes that differ in their number of stages; those that are None are passed over.

    Raises:
        UserError: naming each size with the number of its entries.
    """
    given = {name: len(values) for name, values in sizes.items() if values is not None}
    if len(set(given.values())) > 1:
        counts = listed(f"{name} {count}" for name, count in given.items())
        raise UserError(f"{network} needs every size once per stage, but got {counts}: give each the same number")
