"""What tracing says about a network of timm: units, sequences, maps."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from math import ceil, log2
from typing import Any

import torch
from torch import Tensor, nn

from nasmvt.drafting.factors import Dim, Factor, factors
from nasmvt.drafting.sizes import Sizes
from nasmvt.drafting.tracing import Trace
from nasmvt.errors import UserError
from nasmvt.families.timm_resized import create

ATTEMPTS: tuple[dict[str, Any], ...] = (
    {"sized": True, "any_size": True, "settings": {"dynamic_img_size": True, "dynamic_img_pad": True}},
    {"sized": True, "any_size": True, "settings": {"dynamic_img_size": True}},
    {"sized": True, "any_size": True, "settings": {"strict_img_size": False}},
    {"sized": True},
    {},
)
"""How networks of timm are told the size of images, the most flexible way first."""


@dataclass(frozen=True)
class Spot:
    """A dimension of a tensor that a factor is part of."""

    tensor: str
    dim: int
    parts: int
    """The product of the factors outside of it."""
    width: int
    """The product of the factors inside of it."""
    others: tuple[Factor, ...]
    """These factors."""


@dataclass
class Traced:
    """A network of timm as published, on `meta`, and what its runs say."""

    network: nn.Module
    how: Mapping[str, Any]
    """How it is created, see `ATTEMPTS`."""
    side: int
    """Pixels of a side of the images that were run."""
    trace: Trace
    classified: Dim = ()
    """The channels that the classifier reads."""
    maps: list[tuple[int, Dim]] = field(default_factory=list)
    """Side and channels of each map that timm offers."""
    norm: bool = False
    """Whether the maps are normed at the end."""
    unused: dict[str, list[str]] = field(default_factory=dict)
    """By "classification" and "dense", modules that are not needed."""
    residual: dict[str, list[bool]] = field(default_factory=dict)
    """For each sequence of numbered modules, whether each gives back what it got, with something added."""

    @property
    def strides(self) -> list[int]:
        """Pixels per cell of each map that timm offers: a power of two where one fits, as maps may be rounded up."""
        return [_stride(self.side, cells) for cells, _ in self.maps]

    def spots(self) -> dict[Factor, list[Spot]]:
        """Return where each factor occurs in the parameters and buffers."""
        found: dict[Factor, list[Spot]] = {}
        for name, dim, its in self.trace.places():
            for place, factor in enumerate(its):
                outer, inner = its[:place], its[place + 1 :]
                spot = Spot(name, dim, _size(outer), _size(inner), (*outer, *inner))
                found.setdefault(factor, []).append(spot)
        return found

    def sizes(self) -> dict[tuple[str, int], list[int]]:
        """Return the sizes of the factors of every dimension, in ascending order."""
        return {(name, dim): sorted(factor.size for factor in its) for name, dim, its in self.trace.places()}


def trace(network: nn.Module, how: Mapping[str, Any], side: int, norm: bool | None = None) -> Traced:
    """Run a network on `meta`, for classification and for dense prediction, and follow its dimensions.

    Args:
        network: timm's network, without classifier, on `meta`.
        how: how it was created.
        side: pixels of a side of the images.
        norm: whether the maps are normed at the end; None: as the network allows.

    Raises:
        UserError: if it gives no maps.
    """
    found = Traced(network.eval(), how, side, Trace(network))
    passed: dict[str, list[tuple[list[Dim], list[Dim]]]] = {}
    hooks = []
    for sequence, blocks in _sequences(network):
        for name, block in blocks:

            def note(module: nn.Module, given: tuple[Any, ...], made: Any, key: str = f"{sequence}.{name}") -> None:
                if given and isinstance(given[0], Tensor) and isinstance(made, Tensor):
                    passed.setdefault(key, []).append((found.trace.dims(given[0]), found.trace.dims(made)))

            hooks.append(block.register_forward_hook(note))
    with torch.no_grad(), torch.device("meta"):
        images = torch.empty(1, 3, side, side)
        with found.trace, Sizes(found.trace):
            found.trace.begin(images)
            classified = network(images)
        with found.trace, Sizes(found.trace):
            found.norm, maps = _maps(network, images, norm)
    for hook in hooks:
        hook.remove()
    name = type(network).__name__
    if not isinstance(classified, Tensor) or classified.ndim != 2:
        raise UserError(
            f"the classifier of a network must read one vector per image, but {name} has no such: draft another"
        )
    if any(not isinstance(each, Tensor) or each.ndim != 4 or each.shape[2] != each.shape[3] for each in maps):
        raise UserError(f"the maps of a network must be (B, C, H, W), but those of {name} are not: draft another")
    found.unused = {
        "classification": _unused(network, found.trace.read_by([classified])),
        "dense": _unused(network, found.trace.read_by(maps)),
    }
    found.classified = found.trace.dims(classified)[1]
    found.maps = [(each.shape[2], found.trace.dims(each)[1]) for each in maps]
    for sequence, blocks in _sequences(network):
        found.residual[sequence] = [
            bool(runs := passed.get(f"{sequence}.{block}", [])) and all(_alike(*dims) for dims in runs)
            for block, _ in blocks
        ]
    return found


def _maps(network: nn.Module, images: Tensor, norm: bool | None) -> tuple[bool, list[Tensor]]:
    """Return the maps that timm offers and whether they are normed, if they all have one size."""
    take = getattr(network, "forward_intermediates", None)
    if take is None:
        raise UserError(
            f"a network must give maps (timm's forward_intermediates), but {type(network).__name__} has none: draft "
            "another"
        )
    options: dict[str, Any] = {"norm": True} if norm else {}
    maps: list[Tensor] = take(images, intermediates_only=True, **options)
    if norm is None and len(maps) > 1 and len({each.shape for each in maps}) == 1:
        try:
            return True, take(images, intermediates_only=True, norm=True)
        except (AssertionError, TypeError):
            return False, take(images, intermediates_only=True)
    return bool(norm), maps


def traced(model: str) -> Traced:
    """Create a network of timm on `meta` and trace it with images of the size that it was published for.

    Raises:
        UserError: if timm knows no such network, or it can't be traced.
    """
    with torch.device("meta"):
        plain = create(model, (0, 0), {}, False)
    side = int(plain.pretrained_cfg["input_size"][-1])  # type: ignore[index]
    refused = None
    for how in ATTEMPTS:
        try:
            with torch.device("meta"):
                network = create(model, (side, side), how.get("settings", {}), how.get("sized", False))
            return trace(network, how, side)
        except UserError as error:
            refused = error
        except (RuntimeError, TypeError, ValueError, AssertionError, NotImplementedError, AttributeError) as error:
            refused = UserError(
                f"{model} can't be followed without values ({str(error).splitlines()[0] if str(error) else error!r}): "
                "draft another network, or write a family (docs/new-family.md)"
            )
    assert refused is not None
    raise refused


def _sequences(network: nn.Module) -> Iterator[tuple[str, list[tuple[str, nn.Module]]]]:
    """Yield the modules whose two or more children are numbered blocks of layers, with these."""
    for name, module in network.named_modules():
        children = [(leaf, child) for leaf, child in module._modules.items() if child is not None]
        stems = {leaf.rstrip("0123456789") for leaf, _ in children}
        blocks = [leaf for leaf, child in children if leaf[-1].isdecimal() and len(child._modules) > 1]
        if name and len(children) > 1 and len(blocks) == len(children) and len(stems) == 1:
            yield name, children


def _alike(given: list[Dim], made: list[Dim]) -> bool:
    return len(given) == len(made) and all(factors(a) == factors(b) for a, b in zip(given, made, strict=True))


def _unused(network: nn.Module, read: set[str]) -> list[str]:
    """Return the outermost modules that have tensors, none of which was read."""
    found: list[str] = []
    for name, module in network.named_modules():
        tensors = [f"{name}.{leaf}" for leaf in module.state_dict() if not leaf.endswith("num_batches_tracked")]
        if name and tensors and not read.intersection(tensors) and not name.startswith(tuple(f"{n}." for n in found)):
            found.append(name)
    return found


def _stride(side: int, cells: int) -> int:
    power: int = 2 ** round(log2(side / cells))
    return power if ceil(side / power) == cells else round(side / cells)


def _size(dim: Dim) -> int:
    size = 1
    for factor in dim:
        size *= factor.size
    return size
