"""Opening the data of a task."""

import numpy as np

from nasmvt.data.config import DataConfig
from nasmvt.data.dataset import Cached, Dataset, Limited, Request, Split
from nasmvt.data.folders import some
from nasmvt.data.formats import FORMATS, Format
from nasmvt.data.targets import TARGETS
from nasmvt.data.types import DataInfo
from nasmvt.errors import UserError, listed
from nasmvt.seeding import derive_seed


def open_dataset(config: DataConfig, kind: str, split: Split, seed: int, known: DataInfo | None = None) -> Dataset:
    """Open the training or the validation images of a task.

    Args:
        config: where the data are.
        kind: the kind of task, which the format must serve.
        split: which images; the names of the splits on disk are `config`'s.
        seed: for drawing the shapes and for the choice by `config.limit`.
        known: what a model already knows of its data; without it the training split is read too, to find
            the classes.

    Raises:
        UserError: if format and kind do not fit, the files break a rule of the format, there are fewer than two
            classes where two are needed, or the classes are not the model's.
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
    advice = TARGETS.get(kind).advice_for_one_class
    if len(classes) < 2 and advice is not None:
        raise UserError(
            f"a task of {kind} needs two classes or more, but {config.root or config.format} has only "
            f"{listed(classes)}: {advice}"
        )
    if config.limit is not None and config.limit < len(dataset):
        generator = np.random.default_rng(derive_seed("limit", seed, split))
        dataset = Limited(dataset, np.sort(generator.permutation(len(dataset))[: config.limit]))
    return Cached(dataset) if config.cache else dataset


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
