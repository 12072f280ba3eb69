"""Families by name."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from torch import nn

from nasmvt.errors import UserError, listed, nearest
from nasmvt.space import Role, Roles, SearchSpace

Builder = Callable[..., nn.Module]
"""`builder(arch, *, kind, image_size, **fixed) -> backbone`, a plain module.

`kind` is the task's kind ("classification", "detection" or "segmentation"), `image_size` its (height,
width) in pixels, `fixed` the fixed sizes of the space. The backbone maps images (B, 3, H, W) to a tuple
of maps (B, C_i, H_i, W_i) and declares `strides` and `widths`, one entry per map.
"""


@dataclass(frozen=True, kw_only=True)
class Family:
    """A way to build the plain backbone of an arch."""

    name: str
    build: Builder
    choices: tuple[str, ...]
    """The choices that it reads from an arch."""
    roles: Roles
    """Default roles of its layers, named as in a task network: `backbone.` comes first."""

    def check(self, space: SearchSpace) -> None:
        """Refuse a space whose choices or fixed sizes this family does not know.

        Raises:
            UserError: naming the choice or the fixed size, and what the family knows.
        """
        unlike = set(self.choices) ^ set(space.choices)
        if unlike:
            given = listed(space.choices)
            raise UserError(f"family {self.name} needs the choices {listed(self.choices)}; {space.name} has {given}")
        known = [
            name
            for name, parameter in inspect.signature(self.build).parameters.items()
            if parameter.kind is parameter.KEYWORD_ONLY and name not in {"kind", "image_size"}
        ]
        for size in space.fixed:
            if size not in known:
                raise UserError(
                    f"{space.name} fixes {size!r}, unknown to family {self.name}{nearest(size, known)} "
                    f"(known sizes: {listed(known)})"
                )


_FAMILIES: dict[str, Family] = {}


def register(name: str, *, choices: Sequence[str], roles: Mapping[str, Role | str]) -> Callable[[Builder], Builder]:
    """Register a builder as the family `name`: the choices it reads, the default roles of its layers."""

    def decorate(build: Builder) -> Builder:
        _FAMILIES[name] = Family(name=name, build=build, choices=tuple(choices), roles=Roles.of(roles))
        return build

    return decorate


def family(name: str) -> Family:
    """Return a family by name.

    Raises:
        UserError: if there is none of that name.
    """
    if name not in _FAMILIES:
        raise UserError(f"there is no family {name!r}{nearest(name, _FAMILIES)} (families: {listed(_FAMILIES)})")
    return _FAMILIES[name]
