"""Layouts of data on disk by name."""

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from nasmvt.registry import Registry

if TYPE_CHECKING:
    from nasmvt.data.dataset import Dataset, Request

Opener = TypeVar("Opener", bound="Callable[[Request], Dataset]")

_BUILTIN = ("shapes", "shapes_hard", "imagefolder", "coco", "coco_panoptic", "yolo", "voc", "ade20k", "cityscapes")


@dataclass(frozen=True, kw_only=True)
class Format:
    """A layout of data."""

    kinds: tuple[str, ...]
    """The kinds of task that it serves; empty means every kind."""
    open: "Callable[[Request], Dataset]"
    """Opens one split of a data set."""
    files: bool
    """Whether it reads files and therefore needs a root."""


FORMATS: Registry[Format] = Registry("data format", [f"nasmvt.data.{name}" for name in _BUILTIN])
"""The formats by name."""


def register_format(name: str, *kinds: str, files: bool = True) -> Callable[[Opener], Opener]:
    """Register the opener of a format, usually the class of its data set.

    Args:
        name: the value of `format` in a configuration.
        kinds: the kinds of task that it serves; empty means every kind.
        files: whether it reads files and therefore needs a root.
    """

    def decorate(opener: Opener) -> Opener:
        module = inspect.getmodule(opener)
        FORMATS.add(name, Format(kinds=kinds, open=opener, files=files), module.__name__ if module else name)
        return opener

    return decorate
