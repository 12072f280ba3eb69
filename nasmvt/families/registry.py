"""Families by name."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, get_args, get_origin

from pydantic import TypeAdapter, ValidationError
from torch import nn

from nasmvt.errors import UserError, listed, nearest
from nasmvt.families.axis import Axis
from nasmvt.families.reference import Converter
from nasmvt.families.rounding import Rounded
from nasmvt.registry import Registry
from nasmvt.space import Arch, Role, Roles, SearchSpace
from nasmvt.space.sharing import fits

Builder = Callable[..., nn.Module]
"""`builder(arch, *, kind, image_size, **fixed) -> backbone`, a plain module.

`kind` is the registered name of the task's kind ("classification", "detection", "segmentation", or one that
others registered), `image_size` its (height, width) in pixels, `fixed` the fixed sizes of the space. The
backbone maps images (B, 3, H, W) to a tuple of maps (B, C_i, H_i, W_i) and declares `strides` and `widths`,
one entry per map. A family whose networks depend on the kind builds that of segmentation for a kind that it
does not know: maps of every scale it has, for dense prediction.
"""

RECOMPUTING = {"gradient_checkpointing": "training.activation_checkpointing"}
"""What families read of a space up to version 0.4, and the setting that replaced it."""

Choices = Mapping[str, Any] | Callable[[Mapping[str, Any]], Mapping[str, Any]]
Axes = Sequence[Axis] | Callable[[Mapping[str, Any]], Sequence[Axis]]
Widths = Sequence[str] | Callable[[Mapping[str, Any]], Sequence[str]]
Blocks = str | Callable[[Mapping[str, Any]], str | None] | None


@dataclass(frozen=True, kw_only=True)
class Family:
    """A way to build the plain backbone of an arch."""

    name: str
    build: Builder
    choices: Choices
    """The choices that it reads from an arch, each with the type of its value: `int`, or `tuple[int, ...]` for one
    that is made per block; pydantic's `Annotated` types give ranges. A function gives those of a space's fixed sizes,
    which have been checked."""
    roles: Roles
    """Default roles of its layers, named as in a task network: `backbone.` comes first."""
    convert: Converter | None = None
    """Converts published names and layouts to those of a classifier of this family: `backbone.`, `head.`."""
    centred: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    """Patterns (as in `roles`) of names of parameters, with the dimensions along which a smaller one is the middle of
    the larger one; along all others it is the leading part."""

    tables: tuple[str, ...] = ()
    """Patterns of names of parameters that are tables of positions (1, C, H, W), which weights for another size of
    image are resized to."""

    axes: Axes = ()
    """Axes whose units may be put in the order of their importance, or a function that gives those of a space's fixed
    sizes."""

    widths: Widths = ()
    """Choices of a number of channels, made once, whose order is free: put in another order wherever they occur,
    backbone and head compute the same. What occurs is found by comparing networks, axes apart. A function gives those
    of a space's fixed sizes."""

    blocks: Blocks = None
    """Regular expression of the names of the blocks that a network is a chain of; the numbers in its groups, read as a
    tuple, give their order, and a group that is absent comes last. Activations are recomputed by block, and learning
    rates decay by block; None: neither. A function gives that of a space's fixed sizes."""

    retired: Mapping[str, str] = field(default_factory=dict)
    """Fixed sizes of older versions that no network depends on, with the setting that does their work now."""

    def backbone(self, space: SearchSpace, arch: Arch, *, kind: str, image_size: tuple[int, int]) -> nn.Module:
        """Build the plain backbone of an arch of a space (see `Builder`)."""
        fixed = {size: value for size, value in space.fixed.items() if size not in self.retired}
        return self.build(arch, kind=kind, image_size=image_size, **fixed)

    def axes_of(self, space: SearchSpace) -> Sequence[Axis]:
        """Return the axes of the networks of a space."""
        return self.axes(space.fixed) if callable(self.axes) else self.axes

    def widths_of(self, space: SearchSpace) -> Sequence[str]:
        """Return the choices of a space that are numbers of channels in free order."""
        return self.widths(space.fixed) if callable(self.widths) else self.widths

    def blocks_of(self, space: SearchSpace) -> str | None:
        """Return the regular expression of the blocks of the networks of a space."""
        return self.blocks(space.fixed) if callable(self.blocks) else self.blocks

    def centred_dims(self, parameter: str) -> tuple[int, ...]:
        """Return the dimensions along which a smaller parameter of that name is the middle of the larger one."""
        return next((dims for pattern, dims in self.centred.items() if fits(pattern, parameter)), ())

    def is_table(self, parameter: str) -> bool:
        """Return whether a parameter of that name is a table of positions (1, C, H, W)."""
        return any(fits(pattern, parameter) for pattern in self.tables)

    def check(self, space: SearchSpace) -> None:
        """Refuse a space whose choices or fixed sizes this family does not know, or can't build.

        Raises:
            UserError: naming the choice or the fixed size, and what the family knows.
        """
        known = {
            name: parameter
            for name, parameter in inspect.signature(self.build).parameters.items()
            if parameter.kind is parameter.KEYWORD_ONLY and name not in {"kind", "image_size"}
        }
        for size, value in space.fixed.items():
            if size in self.retired:
                continue
            if size not in known:
                raise UserError(
                    f"{space.name} fixes {size!r}, unknown to family {self.name}{nearest(size, known)} "
                    f"(known sizes: {listed(known)})"
                )
            self._check_value(space, size, known[size].annotation, value)
        for size, parameter in known.items():
            if parameter.default is parameter.empty and size not in space.fixed:
                raise UserError(f"family {self.name} needs {size!r} among the fixed sizes of {space.name}: add it")
        choices = self.choices(space.fixed) if callable(self.choices) else self.choices
        unlike = set(choices) ^ set(space.backbone_choices)
        if unlike:
            given = listed(space.backbone_choices)
            raise UserError(
                f"family {self.name} needs the choices {listed(choices)}, but {space.name} has {given}: "
                f"add or remove {listed(sorted(unlike))}"
            )
        for name, kind in choices.items():
            for arch in space.covering:
                self._check_value(space, name, kind, arch[name])
        if space.fixed.get("round_to", 1) > 1:
            self._check_rounding(space, choices)

    def _check_rounding(self, space: SearchSpace, choices: Mapping[str, Any]) -> None:
        """Refuse options that become the same width."""
        for name, kind in choices.items():
            if mark := _rounded(kind):
                mark.check(name, space.choices[name].options, space.fixed["round_to"])  # type: ignore[arg-type]

    def units(self, space: SearchSpace, choice: str, option: int) -> int:
        """Return how many units an option of a choice is, after the rounding of the space."""
        choices = self.choices(space.fixed) if callable(self.choices) else self.choices
        mark = _rounded(choices[choice])
        return option if mark is None else mark.to(option, space.fixed.get("round_to", 1))

    def _check_value(self, space: SearchSpace, name: str, kind: Any, value: object) -> None:
        try:
            TypeAdapter(kind).validate_python(value, strict=True)
        except ValidationError as error:
            rule = error.errors()[0]["msg"].replace("Input should", "it should", 1)
            raise UserError(
                f"family {self.name} can't build {name} = {value} of {space.name}: {rule}; fix the space"
            ) from None


def _rounded(kind: Any) -> Rounded | None:
    """Return the mark of the type of a choice, or of its entries, that says what is rounded."""
    marks = getattr(get_args(kind)[0] if get_origin(kind) is tuple else kind, "__metadata__", ())
    return next((mark for mark in marks if isinstance(mark, Rounded)), None)


FAMILIES: Registry[Family] = Registry("family")
"""The families that are known by name; those of nasmvt register themselves when `nasmvt.families` is imported."""


def register(
    name: str,
    *,
    choices: Choices,
    roles: Mapping[str, Role | str],
    convert: Converter | None = None,
    centred: Mapping[str, tuple[int, ...]] | None = None,
    tables: Sequence[str] = (),
    axes: Axes = (),
    widths: Widths = (),
    blocks: Blocks = None,
    retired: Mapping[str, str] | None = None,
) -> Callable[[Builder], Builder]:
    """Register a builder as the family `name`.

    Args:
        name: what a space's `family` says.
        choices: the choices that it reads from an arch, with the types of their values, or a function of the space's
            fixed sizes that gives them.
        roles: default roles of its layers, by pattern.
        convert: converts published weights; None: there are none.
        centred: parameters whose smaller versions are the middle of the larger, by pattern, with the dimensions.
        tables: tables of positions (1, C, H, W) that may be resized, by pattern.
        axes: axes whose units may be put in the order of their importance, see `Family`.
        widths: choices of a number of channels that may be put in that order, too, see `Family`.
        blocks: regular expression of the names of blocks, see `Family`.
        retired: fixed sizes of older versions, with the settings that replace them.

    Raises:
        UserError: when it decorates, if another module has registered a family of that name.
    """

    def decorate(build: Builder) -> Builder:
        known = Family(
            name=name,
            build=build,
            choices=choices,
            roles=Roles.of(roles),
            convert=convert,
            centred=centred or {},
            tables=tuple(tables),
            axes=axes,
            widths=widths,
            blocks=blocks,
            retired=retired or {},
        )
        FAMILIES.add(name, known, build.__module__)
        return build

    return decorate


def family(name: str) -> Family:
    """Return a family by its registered name, or by "module:family" if a module of the user's registers it.

    Raises:
        UserError: if there is none of that name, or no such module.
    """
    return FAMILIES.get(name)
