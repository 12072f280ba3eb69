"""Opening the data of a task."""

import numpy as np

from nasmvt.data.config import DataConfig
from nasmvt.data.dataset import Dataset, Limited, Request, Split
from nasmvt.data.folders import some
from nasmvt.data.formats import FORMATS, Format
from nasmvt.data.types import DataInfo, Kind
from nasmvt.errors import UserError, listed
from nasmvt.seeding import derive_seed

_TELL_APART = {
    "classification": "set root to the folder that holds the splits, and give every class a folder",
    "segmentation": "name the class of what surrounds it by 'labels', such as {0: background, 1: object}",
}
"""Kinds that need two classes to tell apart, and what to do where there is one."""


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
    dataset = _divided(chosen, Request(config=config, kind=kind, split=split, seed=seed, known=known))
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


def _divided(chosen: Format, request: Request) -> Dataset:
    """Open a split; with `split` set it is a part of the training split, by seed."""
    share = request.config.split
    if share is None:
        return chosen.open(request)
    whole = chosen.open(request.train)
    count = round(len(whole) * share)
    if not 0 < count < len(whole):
        raise UserError(
            f"'split' must leave images to train and to validate, but {share} of {len(whole)} images is {count}: "
            f"change it or add images"
        )
    order = np.random.default_rng(derive_seed("validation split", request.seed)).permutation(len(whole))
    return Limited(whole, np.sort(order[count:] if request.split == "train" else order[:count]))
