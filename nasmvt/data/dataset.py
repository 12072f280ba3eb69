"""What every data set offers, and how one is opened."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np

from nasmvt.data.config import DataConfig
from nasmvt.data.types import DataInfo, Kind, Sample
from nasmvt.errors import UserError
from nasmvt.seeding import derive_seed

Split = Literal["train", "val"]

_KIND_OF_FORMAT: dict[str, Kind] = {
    "imagefolder": "classification",
    "coco": "detection",
    "ade20k": "segmentation",
}


class Dataset(ABC):
    """Labelled images of one split, by index; picklable, so that loader processes can hold it."""

    info: DataInfo
    """What a network has to know; the same for every split of a data set."""

    @abstractmethod
    def __len__(self) -> int:
        """Return the number of images."""

    @abstractmethod
    def __getitem__(self, index: int) -> Sample:
        """Decode one image and its labels.

        Raises:
            IndexError: if there is no such image.
            UnreadableImage: if the image can't be decoded.
            UserError: if its labels break a rule of the format.
        """


class Limited(Dataset):
    """Some of the images of another data set."""

    def __init__(self, dataset: Dataset, indices: Sequence[int]) -> None:
        self.info = dataset.info
        self._dataset = dataset
        self._indices = list(indices)

    def __len__(self) -> int:
        """Return the number of images that are left."""
        return len(self._indices)

    def __getitem__(self, index: int) -> Sample:
        """Return a sample of the data set behind."""
        return self._dataset[self._indices[index]]


def open_dataset(config: DataConfig, kind: Kind, split: Split, seed: int) -> Dataset:
    """Open the training or the validation images of a task.

    Args:
        config: where the data are.
        kind: the kind of task, which the format must fit.
        split: which images; the names of the splits on disk are `config`'s.
        seed: what the shapes are drawn from, and what `config.limit` chooses by.

    Raises:
        UserError: if format and kind do not fit, or the files break a rule of the format.
    """
    dataset = _open(config, kind, split, seed)
    if config.limit is None or config.limit >= len(dataset):
        return dataset
    generator = np.random.default_rng(derive_seed("limit", seed, split))
    return Limited(dataset, sorted(generator.permutation(len(dataset))[: config.limit].tolist()))


def _open(config: DataConfig, kind: Kind, split: Split, seed: int) -> Dataset:
    # The formats import this file, hence the late imports.
    if config.format == "shapes":
        from nasmvt.data.shapes import Shapes

        return Shapes(config, kind, split, seed)
    expected = _KIND_OF_FORMAT[config.format]
    if kind != expected:
        fitting = next(name for name, other in _KIND_OF_FORMAT.items() if other == kind)
        raise UserError(
            f"the format '{config.format}' holds data for {expected}, but the task is {kind}: "
            f"use the format '{fitting}' or 'shapes'"
        )
    root = data_root(config)
    if config.format == "imagefolder":
        from nasmvt.data.imagefolder import ImageFolder

        return ImageFolder(config, root, split)
    if config.format == "coco":
        from nasmvt.data.coco import Coco

        return Coco(config, root, split)
    from nasmvt.data.ade20k import Ade20k

    return Ade20k(config, root, split)


def data_root(config: DataConfig) -> Path:
    """Return the folder of the data set.

    Raises:
        UserError: if none is given or it does not exist.
    """
    if config.root is None or not config.root.is_dir():
        raise UserError(f"there is no folder {config.root}: set root to the folder of the data set")
    return config.root


def split_name(config: DataConfig, split: Split) -> str:
    """Return the name that a split has on disk."""
    return config.train_split if split == "train" else config.val_split


def class_names(config: DataConfig, found: Sequence[str]) -> tuple[str, ...]:
    """Return the names that `config.classes` gives to the classes found, or those that were found.

    Raises:
        UserError: if there are more or fewer of them.
    """
    if config.classes is None:
        return tuple(found)
    if len(config.classes) != len(found):
        raise UserError(
            f"the data set {config.root or config.format} has {len(found)} classes, but 'classes' names "
            f"{len(config.classes)}: name every class, in the order of the labels"
        )
    return config.classes
