"""Resizing networks of timm: which tensors follow which choices, and layers that store units one after the other.

Shapes: B batch, C channels, H height, W width.
"""

from collections.abc import Iterator, Mapping, Sequence
from math import gcd, lcm
from typing import Annotated, Any

import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from nasmvt.config import Config
from nasmvt.errors import UserError
from nasmvt.families.reference import reordered
from nasmvt.space.sharing import fits

Count = Annotated[int, Field(ge=1)]

Packing = tuple[int, int, int]
"""A dimension, how often its units come (q, k and v: 3), and the channels of a unit (of a head, of a group)."""


class Units(Config):
    """Units that a choice keeps the first of: channels, heads, groups."""

    largest: Count
    """The option with which everything is as published."""
    tensors: dict[str, int | list[int] | list[list[int]]]
    """By pattern (as in `roles`), the parameters and buffers that consist of them: a dimension, or [dimension, how
    often the units come, channels of a unit], or a list of such where several dimensions do."""
    attributes: dict[str, Count] = Field(default_factory=dict)
    """By pattern, the numbers in modules that follow: so many per unit."""
    blocks: str | None = None
    """The sequence whose blocks choose each for itself; None: the choice is made once."""
    step: Count = 1
    """Blocks with fewer units than `largest` keep their share of them, in multiples of this."""
    whole_steps: bool = False
    """Whether `largest` units are such multiples as well, and so fewer than published where they are none."""

    def packings(self, pattern: str) -> list[Packing]:
        """Return the dimensions of the tensors of a pattern that consist of them."""
        spec = self.tensors[pattern]
        if isinstance(spec, int):
            return [(spec, 1, 1)]
        several = [spec] if isinstance(spec[0], int) else spec
        return [(dim, parts, width) for dim, parts, width in several]

    def kept(self, published: int, option: int) -> int:
        """Return how many units stay of the published ones.

        Raises:
            UserError: if these are too few for one multiple that `rounded` asks for.
        """
        most = published // self.step * self.step if self.whole_steps else published
        if not most:
            raise UserError(
                f"the fixed size round_to asks for multiples of {self.step} units, but a layer has {published}: lower "
                "round_to, or remove their choice from the space"
            )
        share = self.step * max(1, round(published * option / self.largest / self.step))
        return most if option == self.largest else min(most, share)

    def rounded(self, round_to: int) -> "Units":
        """Return units of which as many are kept as fill multiples of so many channels.

        Tables with an entry per head or group have as many entries, not multiples.
        """
        if round_to == 1:
            return self
        width = max(width for pattern in self.tensors for _, _, width in self.packings(pattern))
        return self.model_copy(update={"step": lcm(self.step, round_to // gcd(round_to, width)), "whole_steps": True})


class PackedLinear(nn.Linear):
    """A linear layer whose weight and bias are stored unit by unit, and used in timm's order."""

    packings: Mapping[str, tuple[Packing, ...]]

    def forward(self, input: Tensor) -> Tensor:
        """Map (..., C) to (..., C')."""
        bias = None if self.bias is None else unpacked(self.bias, self.packings.get("bias", ()))
        return F.linear(input, unpacked(self.weight, self.packings.get("weight", ())), bias)


class PackedConv2d(nn.Conv2d):
    """The same for a convolution."""

    packings: Mapping[str, tuple[Packing, ...]]

    def forward(self, input: Tensor) -> Tensor:
        """Map (B, C, H, W) to (B, C', H', W')."""
        bias = None if self.bias is None else unpacked(self.bias, self.packings.get("bias", ()))
        return self._conv_forward(input, unpacked(self.weight, self.packings.get("weight", ())), bias)


PACKED: dict[type[nn.Module], type[nn.Module]] = {nn.Linear: PackedLinear, nn.Conv2d: PackedConv2d}
"""The layers that can store units one by one."""


def packed(tensor: Tensor, packings: Sequence[Packing]) -> Tensor:
    """Return a tensor of timm's with the units of some dimensions one after the other."""
    for dim, parts, width in packings:
        tensor = reordered(tensor, (parts, -1, width), (1, 0, 2), dim)
    return tensor


def unpacked(tensor: Tensor, packings: Sequence[Packing]) -> Tensor:
    """Return such a tensor in timm's order."""
    for dim, parts, width in packings:
        tensor = reordered(tensor, (-1, parts, width), (1, 0, 2), dim)
    return tensor


class _Place:
    """A dimension of a tensor that consists of units."""

    def __init__(self, choice: str, units: Units, packing: Packing, block: int | None) -> None:
        self.choice = choice
        self.units = units
        self.dim, self.parts, self.width = packing
        self.block = block

    def published(self, shape: Sequence[int]) -> int:
        """Return how many units a tensor of a published shape has."""
        return shape[self.dim] // (self.parts * self.width)

    def kept(self, shape: Sequence[int], arch: Mapping[str, Any]) -> int:
        """Return how many of them it keeps in the network of an arch."""
        option = arch[self.choice] if self.block is None else arch[self.choice][self.block]
        return self.units.kept(self.published(shape), option)


class Plan:
    """What of a network follows which choices.

    Args:
        network: the network as published.
        depths: for each choice of a depth, the sequence that may be shorter.
        units: the units by choice.
    """

    def __init__(self, network: nn.Module, depths: Mapping[str, str], units: Mapping[str, Units]) -> None:
        self.depths = dict(depths)
        places: dict[str, list[_Place]] = {}
        self.attributes: dict[str, list[_Place]] = {}
        names = list(network.state_dict())
        modules = {name: module for name, module in network.named_modules() if name}
        numbers = [
            f"{name}.{key}"
            for name, module in modules.items()
            for key, value in vars(module).items()
            if _is_count(value)
        ]
        for choice, its in units.items():
            for pattern in its.tensors:
                for name in _fitting(pattern, names):
                    block = _block(network, its.blocks, name)
                    held = (_Place(choice, its, packing, block) for packing in its.packings(pattern))
                    places.setdefault(name, []).extend(held)
            for pattern, each in its.attributes.items():
                for name in _fitting(pattern, numbers):
                    place = _Place(choice, its, (0, 1, each), _block(network, its.blocks, name))
                    self.attributes.setdefault(name, []).append(place)
        self.tensors = {name: places[name] for name in names if name in places}

    def packings(self, name: str) -> tuple[Packing, ...]:
        """Return the dimensions of a tensor whose units do not lie one after the other."""
        return tuple((p.dim, p.parts, p.width) for p in self.tensors.get(name, ()) if p.parts > 1)

    def apply(self, network: nn.Module, arch: Mapping[str, Any]) -> None:
        """Make a network as published that of an arch."""
        for choice, sequence in self.depths.items():
            blocks = network.get_submodule(sequence)
            for name in list(blocks._modules)[arch[choice] :]:
                del blocks._modules[name]
        modules = dict(network.named_modules())
        touched: dict[str, None] = {}
        for name, places in self.tensors.items():
            owner, _, leaf = name.rpartition(".")
            if owner not in modules:
                continue
            tensor = getattr(modules[owner], leaf)
            small = packed(tensor.detach(), self.packings(name))
            for place in places:
                kept = place.kept(tensor.shape, arch) * place.parts * place.width
                small = small.narrow(place.dim, 0, kept)
            small = small.clone()
            if isinstance(tensor, nn.Parameter):
                setattr(modules[owner], leaf, nn.Parameter(small, requires_grad=tensor.requires_grad))
            else:
                modules[owner]._buffers[leaf] = small
            touched[owner] = None
        for owner in touched:
            self._note_sizes(network, owner, modules[owner])
        for name, places in self.attributes.items():
            owner, _, leaf = name.rpartition(".")
            if owner in modules:
                for place in places:
                    kept = place.kept((getattr(modules[owner], leaf),), arch)
                    setattr(modules[owner], leaf, kept * place.width)

    def _note_sizes(self, network: nn.Module, name: str, module: nn.Module) -> None:
        """Let the attributes of a layer say what its tensors are."""
        if isinstance(module, nn.Conv2d):
            rows = module.weight.shape[0]
            module.groups = max(1, module.groups * rows // module.out_channels)
            module.out_channels, module.in_channels = rows, module.weight.shape[1] * module.groups
        elif isinstance(module, nn.Linear):
            module.out_features, module.in_features = module.weight.shape
        elif isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.num_features = len(module.weight if module.running_mean is None else module.running_mean)
        elif hasattr(module, "normalized_shape"):
            module.normalized_shape = tuple(module.get_parameter("weight").shape)  # type: ignore[assignment]
        elif isinstance(module, nn.GroupNorm):
            module.num_channels = len(module.weight)
        packings = {leaf: self.packings(f"{name}.{leaf}") for leaf in ("weight", "bias")}
        if any(packings.values()):
            twin = PACKED[type(module)].__new__(PACKED[type(module)])
            vars(twin).update(vars(module))
            twin.packings = packings  # type: ignore[assignment]
            owner, _, leaf = name.rpartition(".")
            setattr(network.get_submodule(owner), leaf, twin)


def _is_count(value: object) -> bool:
    return type(value) is int and value > 0


def _fitting(pattern: str, names: Sequence[str]) -> Iterator[str]:
    return (name for name in names if fits(pattern, name))


def _block(network: nn.Module, sequence: str | None, name: str) -> int | None:
    """Return the number of the block of a sequence that a name is in."""
    if sequence is None:
        return None
    block = name.removeprefix(f"{sequence}.").partition(".")[0]
    return list(network.get_submodule(sequence)._modules).index(block)
