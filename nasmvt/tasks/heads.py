"""Heads by name: what they are called in a configuration, which kind of task they serve, and how they are built."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from torch import nn

from nasmvt.config import Config
from nasmvt.data.types import DataInfo
from nasmvt.registry import Registry


class HeadConfig(Config):
    """Settings of a head; the base of every head's own."""

    type: str
    """Which head this is: a registered name, or `module:name` for one that a module of yours registers."""

    def check_data(self, info: DataInfo) -> None:
        """Refuse data that the head can't be trained on.

        Raises:
            UserError: saying why.
        """

    def check_batch(self, images: int) -> None:
        """Refuse a number of images per training step with which the head can't learn.

        Raises:
            ValueError: saying why.
        """


@dataclass(frozen=True, kw_only=True)
class HeadParts:
    """What stands on the backbone of a task network.

    A head turns maps into what its kind of network asks for, and into losses:

    - `losses(maps, targets, sizes) -> dict of scalars`, in training mode;
    - `classify`, `detect` or `segment(maps, sizes)`, in evaluation mode (see the kind's network);
    - `workload(maps)` does once what evaluating takes at most, reading no values.

    `maps` are those of the neck, `sizes` the height and width of each image on the canvas, without padding.
    """

    neck: nn.Module
    """Turns the backbone's maps into those that the head reads."""
    head: nn.Module
    auxiliary: nn.Module | None = None
    """A head of which only `losses` is used."""


Builder = Callable[[Sequence[int], Sequence[int], Any, DataInfo], HeadParts]
"""`build(widths, strides, config, info)`: for a backbone whose maps have these channels and strides."""

B = TypeVar("B", bound=Builder)


@dataclass(frozen=True, kw_only=True)
class HeadType:
    """A way to build heads."""

    kind: str
    """The kind of task that it serves."""
    config: type[HeadConfig]
    """Its settings."""
    build: Builder


_BUILTIN = ("linear", "mask_rcnn", "retinanet", "upernet", "semantic_fpn", "segformer")

HEADS: Registry[HeadType] = Registry("head", [f"nasmvt.tasks.{name}" for name in _BUILTIN])
"""The heads by name."""


def register_head(name: str, *, kind: str, config: type[HeadConfig]) -> Callable[[B], B]:
    """Register a builder as the head `name`.

    Args:
        name: what `head.type` says.
        kind: the kind of task that it serves.
        config: its settings.

    Raises:
        UserError: when it decorates, if another module has registered a head of that name.
    """

    def decorate(build: B) -> B:
        HEADS.add(name, HeadType(kind=kind, config=config, build=build), build.__module__)
        return build

    return decorate
