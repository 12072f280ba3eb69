"""Published networks by name: plain modules, optionally with the weights that their authors released."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import timm
import torch
from torch import Tensor, nn

from nasmvt.errors import listed
from nasmvt.families.layers import Classifier
from nasmvt.families.reference import Converter, State, load_reference, misfits, read_state
from nasmvt.families.timm_networks import Reader, refused, skeleton
from nasmvt.registry import Registry

ClassifierBuilder = Callable[..., Classifier]
"""`build(classes=..., **sizes) -> Classifier`."""


@dataclass(frozen=True, kw_only=True)
class Published:
    """One published network."""

    name: str
    build: ClassifierBuilder
    sizes: Mapping[str, Any]
    """The arguments of `build`."""
    convert: Converter
    """Converts published names to those of the classifier: `backbone.`, `head.`."""


_NETWORKS: Registry[Published] = Registry("published network")


def publishes(
    sizes: Mapping[str, Mapping[str, Any]], *, convert: Converter
) -> Callable[[ClassifierBuilder], ClassifierBuilder]:
    """Register a builder of classifiers with the published sizes by name and the converter of their checkpoints."""

    def decorate(build: ClassifierBuilder) -> ClassifierBuilder:
        for name, values in sizes.items():
            entry = Published(name=name, build=build, sizes=values, convert=convert)
            _NETWORKS.add(name, entry, build.__module__)
        return build

    return decorate


@dataclass(frozen=True, kw_only=True)
class _Read:
    """How the networks of a class of timm's are made."""

    build: ClassifierBuilder
    read: Reader
    convert: Converter


_READ: dict[type[nn.Module], _Read] = {}


def reads(
    *classes: type[nn.Module], read: Reader, convert: Converter
) -> Callable[[ClassifierBuilder], ClassifierBuilder]:
    """Register a builder of classifiers for all networks of classes of timm's.

    Args:
        classes: the classes.
        read: gives the builder's arguments for one of them.
        convert: converts its tensors.
    """

    def decorate(build: ClassifierBuilder) -> ClassifierBuilder:
        _READ.update(dict.fromkeys(classes, _Read(build=build, read=read, convert=convert)))
        return build

    return decorate


def entry_of(name: str) -> Published:
    """Return a network by its name, or by timm's.

    Raises:
        UserError: if there is none of that name, or no family makes it.
    """
    if name in set(_NETWORKS) or not timm.is_model(name.partition(".")[0]):
        return _NETWORKS.get(name)
    theirs = skeleton(name)
    known = _READ.get(type(theirs))
    if known is None:
        classes = listed(sorted(cls.__name__ for cls in _READ))
        raise refused(name, f"the class {type(theirs).__name__}, where families know {classes}")
    entry = Published(name=name, build=known.build, sizes=known.read(name, theirs), convert=known.convert)
    with torch.device("meta"):
        ours = entry.build(classes=1, **entry.sizes).backbone
    unlike = misfits(_of_backbone(entry.convert)(theirs.state_dict(), ours), ours.state_dict())
    if unlike:
        raise refused(name, f"other tensors ({unlike})")
    return entry


def published_names() -> list[str]:
    """Return the names that `published` knows; it knows those of timm's networks besides that a family makes."""
    return sorted(_NETWORKS)


def published(
    name: str, *, classes: int | None = 1000, weights: str | Path | State | None = None, **changes: Any
) -> nn.Module:
    """Return a published network.

    Args:
        name: one of `published_names()`, "mpvit_small" for example, or timm's name of a vision transformer, ConvNeXt
            or EfficientNet, "deit_small_patch16_224" for example.
        classes: outputs of the classifier; None: the backbone alone, which returns its maps.
        weights: a checkpoint of the authors, as a file or as tensors by name; None: fresh weights. A classifier's
            checkpoint also serves the backbone alone.
        changes: sizes that differ from the published ones, `drop_path=0.2` for example.

    Raises:
        UserError: if there is no network of that name, no family makes it, or the checkpoint does not fit it.
    """
    entry = entry_of(name)
    network = entry.build(classes=classes or 1, **{**entry.sizes, **changes})
    if classes is None:
        target, convert = network.backbone, _of_backbone(entry.convert)
    else:
        target, convert = network, entry.convert
    if weights is not None:
        given = weights if isinstance(weights, Mapping) else read_state(weights)
        source = "the checkpoint" if isinstance(weights, Mapping) else str(weights)
        load_reference(target, given, convert, source)
    return target


def published_backbone_converter(name: str) -> Converter:
    """Return the converter of a published network's checkpoints to its backbone alone.

    Raises:
        UserError: if there is no network of that name.
    """
    return _of_backbone(entry_of(name).convert)


def _of_backbone(convert: Converter) -> Converter:
    """Return a converter to the backbone alone: what belongs to the head is left out."""

    def converted(state: State, network: nn.Module) -> dict[str, Tensor]:
        tensors = convert(state, Classifier(network, nn.Identity()))
        return {n.removeprefix("backbone."): tensor for n, tensor in tensors.items() if not n.startswith("head.")}

    return converted
