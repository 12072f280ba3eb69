"""Any network of timm in other sizes: the family of drafted spaces (`nasmvt draft-space`, docs/draft-space.md).

The space says what belongs together: which dimensions of which tensors consist of the same units (channels, attention
heads, groups of a convolution), and which sequences may be shorter. The plain network is timm's own, with smaller
tensors and fewer blocks. Where the units of a dimension do not lie one after the other (the rows of a `qkv` are q/k/v,
head, channel), the layer stores them unit by unit and puts its weight in timm's order before it computes.

Shapes: B batch, C channels, H height, W width.
"""

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Annotated, Any

import timm
import torch
from pydantic import Field, TypeAdapter
from torch import Tensor, nn

from nasmvt.config import Config
from nasmvt.errors import UserError, nearest
from nasmvt.families.copying import with_same_tensors
from nasmvt.families.reference import State
from nasmvt.families.registry import register
from nasmvt.families.rounding import Rounded
from nasmvt.families.timm_axes import axes, block_names, widths
from nasmvt.families.timm_units import Count, PackedConv2d, PackedLinear, Plan, Units, packed
from nasmvt.families.vit_mvt import STAGES, stage_ends
from nasmvt.space import Arch


class Map(Config):
    """A map that the network returns."""

    stride: Count
    """Pixels per cell."""
    width: Count
    """Channels, as published."""
    units: str | None = None
    """The choice that the channels follow."""
    each: Count | None = None
    """Channels of a unit; null (drafts of version 0.5): those that make the choice's largest number of units."""
    index: int = -1
    """Its place among those that timm offers."""


class Maps(Config):
    """The maps for dense prediction."""

    levels: list[Map]
    """One per stride, ascending; of a network without stages (`blocks`), the one that all its blocks have."""
    blocks: str | None = None
    """The sequence after whose quarters the maps are taken, in a network without stages."""
    norm: bool = False
    """Whether the network's last norm is applied to them."""


class TimmNetwork(nn.Module):
    """A network of timm as a backbone.

    Args:
        net: timm's network, without classifier.
        strides: pixels per cell of each map.
        widths: channels of each map.
        indices: places of the maps among those that `net.forward_intermediates` offers; None: what the classifier
            reads, as a map of a single cell.
        norm: whether the network's last norm is applied to the maps.
        image_size: the only (height, width) that the network reads; None: any.
    """

    def __init__(
        self,
        net: nn.Module,
        *,
        strides: Sequence[int],
        widths: Sequence[int],
        indices: Sequence[int] | None = None,
        norm: bool = False,
        image_size: tuple[int, int] | None = None,
    ) -> None:
        super().__init__()
        self.net: Any = net
        self.strides = tuple(strides)
        self.widths = tuple(widths)
        self.indices = None if indices is None else tuple(indices)
        self.norm = norm
        self.image_size = image_size

    def no_weight_decay(self) -> set[str]:
        """Return the parameters that are not to decay, by timm's own word."""
        names: set[str] = getattr(self.net, "no_weight_decay", set)()
        return {f"net.{name}" for name in names}

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Map images (B, 3, H', W') to maps (B, C, H, W), or to (B, C, 1, 1).

        Raises:
            UserError: if the network reads images of another size alone.
        """
        if self.image_size is not None and tuple(images.shape[2:]) != self.image_size:
            height, width = self.image_size
            raise UserError(
                f"{type(self.net).__name__} is built for images of {height} x {width} pixels and reads no others, but "
                f"was given {images.shape[2]} x {images.shape[3]}: give every image the task's size"
            )
        if self.indices is None:
            return (self.net(images)[:, :, None, None],)
        options = {"norm": True} if self.norm else {}
        return tuple(
            self.net.forward_intermediates(
                images, indices=list(self.indices), output_fmt="NCHW", intermediates_only=True, **options
            )
        )


Depths = dict[str, str]
AllUnits = dict[str, Units]


def units_of(fixed: Mapping[str, Any]) -> AllUnits:
    """Return the units of a drafted space by choice, rounded as its fixed sizes say."""
    found: AllUnits = TypeAdapter(AllUnits).validate_python(fixed.get("units", {}))
    return {name: units.rounded(fixed.get("round_to", 1)) for name, units in found.items()}


def create(model: str, image_size: Sequence[int], settings: Mapping[str, Any], sized: bool) -> nn.Module:
    """Create timm's network without its classifier and with fresh weights.

    Raises:
        UserError: if timm knows no such network, or can't build it.
    """
    name = model.partition(".")[0]
    if not timm.is_model(name):
        raise UserError(f"timm knows no network {model!r}{nearest(name, timm.list_models()) or ': check its name'}")
    size = {"img_size": tuple(image_size)} if sized else {}
    try:
        network: nn.Module = timm.create_model(name, num_classes=0, **{**settings, **size})
    except (AssertionError, TypeError, ValueError, RuntimeError) as error:
        why = str(error).split("\n")[0] or type(error).__name__
        raise UserError(
            f"timm can't build {name} for images of {image_size[0]} x {image_size[1]} pixels ({why}): give another "
            "size or other settings"
        ) from None
    return network


class Draft:
    """A drafted network, ready to be built in any size.

    Args:
        fixed: the fixed sizes of its space, see `build`.
        image_size: (height, width) in pixels.
    """

    def __init__(self, fixed: Mapping[str, Any], image_size: tuple[int, int]) -> None:
        self._published = create(fixed["model"], image_size, fixed.get("settings", {}), fixed.get("sized", False))
        self.units = units_of(fixed)
        self.maps = Maps.model_validate(fixed["maps"])
        self.classified = Map.model_validate(fixed["classified"])
        self.unused: Mapping[str, Sequence[str]] = fixed.get("unused", {})
        self.only = image_size if fixed.get("sized") and not fixed.get("any_size") else None
        self.plan = self.plan_of(self._published, fixed)

    @staticmethod
    def plan_of(network: nn.Module, fixed: Mapping[str, Any]) -> Plan:
        """Return what of a network as published follows which choices."""
        return Plan(network, fixed.get("depths", {}), units_of(fixed))

    def network(self, arch: Mapping[str, Any], kind: str) -> TimmNetwork:
        """Return the plain network of an arch; tensors that it has whole are those of all networks of this draft."""
        arch, dense = dict(arch), kind != "classification"
        net: Any = with_same_tensors(self._published)
        self.plan.apply(net, arch)
        for name in self.unused.get("dense" if dense else "classification", ()):
            owner, _, leaf = name.rpartition(".")
            setattr(net.get_submodule(owner), leaf, nn.Identity())
        maps, indices = [self.classified], None
        if dense:
            maps, indices = self.maps.levels, [level.index for level in self.maps.levels]
            if self.maps.blocks is not None:
                count = len(net.get_submodule(self.maps.blocks)._modules)
                several = kind != "detection" and count >= STAGES
                indices = list(stage_ends(count)) if several else [count - 1]
                maps = maps * len(indices)
        return TimmNetwork(
            net,
            strides=[level.stride for level in maps],
            widths=[self._width(level, arch) for level in maps],
            indices=indices,
            norm=dense and self.maps.norm,
            image_size=self.only,
        )

    def _width(self, level: Map, arch: Mapping[str, Any]) -> int:
        if level.units is None:
            return level.width
        units = self.units[level.units]
        each = level.each or level.width // units.largest
        return each * units.kept(level.width // each, arch[level.units])


@lru_cache(maxsize=12)
def _skeleton(fixed: str, image_size: tuple[int, int], meta_constants: bool) -> Draft:
    """Return a network on `meta`, whose constants may be real."""
    return Draft(json.loads(fixed), image_size)


def _kept(units: Units) -> Callable[[int, int], int]:
    return lambda option, _: units.kept(units.largest, option)


def choices(fixed: Mapping[str, Any]) -> dict[str, Any]:
    """Return the choices of a drafted space, with the types of their options."""
    found: dict[str, Any] = dict.fromkeys(fixed.get("depths", {}), Count)
    for name, its in units_of(fixed).items():
        option = Annotated[int, Field(ge=1, le=its.largest), Rounded(_kept(its))]
        found[name] = option if its.blocks is None else tuple[option, ...]
    return found


def convert(state: State, network: nn.Module) -> dict[str, Tensor]:
    """Convert timm's tensors: tables of positions are resized by timm, units are put one after the other."""
    backbone = network.get_submodule("backbone")
    assert isinstance(backbone, TimmNetwork)
    net = backbone.net
    classifier = net.pretrained_cfg.get("classifier", ())
    heads = tuple(f"{name}." for name in ((classifier,) if isinstance(classifier, str) else classifier))
    of_head = {f"head.{name}": tensor for name, tensor in state.items() if name.startswith(heads)}
    rest = {name: tensor for name, tensor in state.items() if not name.startswith(heads)}
    resize = getattr(sys.modules[type(net).__module__], "checkpoint_filter_fn", None)
    if resize is not None:
        rest = resize(rest, net)
    packings = {
        f"{name}.{leaf}": its
        for name, module in net.named_modules()
        if isinstance(module, (PackedLinear, PackedConv2d))
        for leaf, its in module.packings.items()
    }
    return of_head | {f"backbone.net.{name}": packed(tensor, packings.get(name, ())) for name, tensor in rest.items()}


@register("timm", choices=choices, roles={}, convert=convert, axes=axes, widths=widths, blocks=block_names)
def build(
    arch: Arch,
    *,
    kind: str,
    image_size: tuple[int, int],
    model: str,
    maps: Maps,
    classified: Map,
    settings: dict[str, Any] | None = None,
    sized: bool = False,
    any_size: bool = False,
    depths: Depths | None = None,
    units: AllUnits | None = None,
    unused: dict[str, list[str]] | None = None,
    round_to: Count = 1,
) -> TimmNetwork:
    """Build the backbone of an arch for one kind of task.

    Classification: what timm's classifier reads. Any other kind: the maps for dense prediction; of a network without
    stages, the last one for detection and those after each quarter of the depth for others.

    Args:
        arch: the arch.
        kind: the task's kind.
        image_size: the task's (height, width) in pixels.
        model: timm's name, with or without the tag of its weights.
        maps: the maps for dense prediction.
        classified: what the classifier reads.
        settings: further arguments of `timm.create_model`.
        sized: whether the network is built for images of a size.
        any_size: whether it reads others all the same.
        depths: for each choice of a depth, the sequence that may be shorter.
        units: the other choices.
        unused: by "classification" and "dense", modules that are not needed there.
        round_to: units are kept in such numbers that their channels are multiples of it.
    """
    fixed = {
        "model": model,
        "maps": maps,
        "classified": classified,
        "settings": settings or {},
        "sized": sized,
        "any_size": any_size,
        "depths": depths or {},
        "units": units or {},
        "unused": unused or {},
        "round_to": round_to,
    }
    size = (int(image_size[0]), int(image_size[1])) if sized else (0, 0)
    on_meta = torch.empty(0).is_meta
    drafted = _skeleton(json.dumps(fixed), size, torch.zeros(0).is_meta) if on_meta else Draft(fixed, size)
    return drafted.network(arch, kind)
