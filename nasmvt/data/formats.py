"""Layouts of data on disk by name, and how one is opened."""

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from nasmvt.data.config import DataConfig
from nasmvt.data.dataset import Dataset, Limited, Request, Split
from nasmvt.data.folders import some
from nasmvt.data.types import DataInfo, Kind
from nasmvt.errors import UserError, listed
from nasmvt.registry import Registry
from nasmvt.seeding import derive_seed

Opener = TypeVar("Opener", bound=Callable[[Request], Dataset])


@dataclass(frozen=True, kw_only=True)
class Format:
    """A layout of data."""

    kinds: tuple[str, ...]
    """The kinds of task that it serves; none means every kind."""
    open: Callable[[Request], Dataset]
    """Opens one split of a data set."""


FORMATS: Registry[Format] = Registry(
    "data format", [f"nasmvt.data.{name}" for name in ("shapes", "imagefolder", "coco", "ade20k")]
)
"""The formats by name."""


_TELL_APART = {
    "classification": "set root to the folder that holds the splits, and give every class a folder",
    "segmentation": "name the class of what surrounds it by 'labels', such as {0: background, 1: object}",
}
"""Kinds that need two classes to tell apart, and what to do where there is one."""


def register_format(name: str, *kinds: str) -> Callable[[Opener], Opener]:
    """Register what opens a format, usually the class of its data set.

    Args:
        name: what `format` says in a configuration.
        kinds: the kinds of task that it serves; none means every kind.
    """

    def decorate(opener: Opener) -> Opener:
        module = inspect.getmodule(opener)
        FORMATS.add(name, Format(kinds=kinds, open=opener), module.__name__ if module else name)
        return opener

    return decorate


def open_dataset(config: DataConfig, kind: Kind, split: Split, seed: int, known: DataInfo | None = None) -> Dataset:
    """Open the training or the validation images of a task.

    Args:
        config: where the data are.
        kind: the kind of task, which the format must fit.
        split: which images; the names of the splits on disk are `config`'s.
        seed: what the shapes are drawn from, and what `config.limit` chooses by.
        known: what a model already knows of its data; without it the training split is looked at too, to find
            the classes.

    Raises:
        UserError: if format and kind do not fit, the files break a rule of the format, there are no classes to tell
            apart, or other ones than the model's.
    """
    chosen = FORMATS.get(config.format)
    if chosen.kinds and kind not in chosen.kinds:
        fitting = [repr(name) for name in FORMATS if kind in (FORMATS.get(name).kinds or (kind,))]
        raise UserError(
            f"the format '{config.format}' holds data for {listed(chosen.kinds)}, but the task is {kind}: "
            f"use one of the formats {listed(fitting)}"
        )
    dataset = chosen.open(Request(config=config, kind=kind, split=split, seed=seed, known=known))
    classes = dataset.info.classes
    if known is not None and classes != known.classes:
        raise UserError(
            f"{config.root or config.format} has the classes {some(classes, 10)}, but the model was trained for "
            f"{some(known.classes, 10)}: give the data set it was made for"
        )
    if len(classes) < 2 and kind in _TELL_APART:
        raise UserError(
            f"a task of {kind} needs two classes or more, but {config.root or config.format} has only "
            f"{listed(classes)}: {_TELL_APART[kind]}"
        )
    if config.limit is None or config.limit >= len(dataset):
        return dataset
    generator = np.random.default_rng(derive_seed("limit", seed, split))
    return Limited(dataset, np.sort(generator.permutation(len(dataset))[: config.limit]))
