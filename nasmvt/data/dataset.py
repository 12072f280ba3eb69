"""The interface of data sets, and what they are opened with."""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from nasmvt.data.config import DataConfig
from nasmvt.data.folders import is_folder, some
from nasmvt.data.report import LabelCounts, Look
from nasmvt.data.spellings import Spellings
from nasmvt.data.types import DataInfo, Sample
from nasmvt.errors import UserError

Split = Literal["train", "val"]


@dataclass(frozen=True, kw_only=True)
class Identity:
    """Which images and labels a data set holds; equal for equal data, on any machine and in any folder."""

    images: int
    """Number of images."""
    digest: str
    """Over the sorted names and sizes of the files, and the contents of the annotation files."""
    classes: tuple[str, ...]
    """Class names in the order of the labels."""


class Dataset(ABC):
    """Labelled images of one split, by index; picklable, so that loader processes can hold it."""

    info: DataInfo
    """What a network has to know; the same for every split of a data set."""

    left_out: Mapping[str, Sequence[str]] = {}
    """Files that are not read: names by reason (see `folders.LeftOut`)."""

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

    @abstractmethod
    def digest(self) -> str:
        """Return a digest of the names and sizes of the files and of the contents of annotation files.

        It depends on nothing else: neither on their folder nor on the order in which they are found.

        Raises:
            UserError: if a file is gone.
        """

    def look(self, index: int) -> Look:
        """Return what can be told about one image without decoding it; by default the whole sample is read.

        Raises:
            UnreadableImage: if it is not an image.
            UserError: if its labels break a rule of the format.
        """
        sample = self[index]
        return Look(size=(sample.image.height, sample.image.width), target=sample.target)

    def label_counts(self, indices: np.ndarray) -> LabelCounts | None:
        """Count the labels of some images, if all are in memory; None: the targets of `look` are to be counted."""
        return None

    def occupied(self, indices: np.ndarray) -> np.ndarray:
        """Return which of some images, bool, hold an object to train on; where a format has no objects, all do."""
        return np.ones(len(indices), dtype=bool)

    def identity(self) -> Identity:
        """Return which data these are, read from the files as they are now; no image is decoded.

        Raises:
            UserError: if a file is gone.
        """
        return Identity(images=len(self), digest=self.digest(), classes=self.info.classes)


class Limited(Dataset):
    """Some of the images of another data set."""

    def __init__(self, dataset: Dataset, indices: Sequence[int] | np.ndarray) -> None:
        self.info = dataset.info
        self.left_out = dataset.left_out
        self._dataset = dataset
        self._indices = np.asarray(indices, dtype=np.int64)

    def __len__(self) -> int:
        """Return the number of selected images."""
        return len(self._indices)

    def __getitem__(self, index: int) -> Sample:
        """Return a sample of the underlying data set."""
        return self._dataset[int(self._indices[index])]

    def look(self, index: int) -> Look:
        """Look at an image of the underlying data set."""
        return self._dataset.look(int(self._indices[index]))

    def label_counts(self, indices: np.ndarray) -> LabelCounts | None:
        """Count labels of the underlying data set."""
        return self._dataset.label_counts(self._indices[indices])

    def occupied(self, indices: np.ndarray) -> np.ndarray:
        """Tell images of the underlying data set."""
        return self._dataset.occupied(self._indices[indices])

    def digest(self) -> str:
        """Return a digest of the underlying data set and the selection."""
        return text_digest(self._dataset.digest(), self._indices.tobytes().hex())


class Cached(Limited):
    """Another data set whose samples stay in memory once they were read; a copy for another process begins without."""

    def __init__(self, dataset: Dataset) -> None:
        super().__init__(dataset, np.arange(len(dataset)))
        self._samples: dict[int, Sample] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_samples": {}}

    def __getitem__(self, index: int) -> Sample:
        """Return a sample of the underlying data set, which is read once."""
        if index not in self._samples:
            self._samples[index] = self._dataset[index]
        return self._samples[index]

    def digest(self) -> str:
        """Return the digest of the underlying data set."""
        return self._dataset.digest()


@dataclass(frozen=True, kw_only=True)
class Request:
    """A request to a format: what to open."""

    config: DataConfig
    kind: str
    split: Split
    seed: int
    known: DataInfo | None = None
    """What a model already knows of its data; the training split is then not read to determine it."""

    @property
    def root(self) -> Path:
        """The folder of the data set.

        Raises:
            UserError: if none is given or it does not exist.
        """
        root = self.config.root
        if root is None:
            raise UserError(f"the format '{self.config.format}' reads files: set root to the folder of the data set")
        if not is_folder(root):
            raise UserError(f"there is no folder {root}: set root to the folder of the data set")
        return root

    @property
    def train(self) -> "Request":
        """The same for the training split."""
        return replace(self, split="train")

    @property
    def of_training(self) -> bool:
        """Whether the images are those of the training split."""
        return self.split_name == self.config.train_split

    @property
    def split_name(self) -> str:
        """The name that the split has on disk."""
        return self.config.train_split if self.split == "train" else self.config.val_split


def text_digest(*parts: str) -> str:
    """Return a digest of some texts."""
    return hashlib.blake2b("\n".join(parts).encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


def class_names(config: DataConfig, found: Sequence[str]) -> tuple[str, ...]:
    """Return the classes in the order of their labels: as found, or as `config.classes` orders or renames them.

    If `classes` are the names found, they give the order; other names replace them one by one.

    Raises:
        UserError: if there are more or fewer of them, or it is not clear which name replaces which.
    """
    given = config.classes
    if given is None:
        return tuple(found)
    where = config.root or config.format
    if len(given) != len(found):
        raise UserError(
            f"the data set {where} has {len(found)} classes ({some(found, 10)}), but 'classes' names "
            f"{len(given)}: name every class, in the order of the labels"
        )
    moved = [new for new, old in zip(given, found, strict=True) if new != old and new in found]
    if moved and set(given) != set(found):
        raise UserError(
            f"'classes' must order the classes of {where} or rename them one by one, but {some(moved)} is found "
            f"there at another position: give the names as found ({some(found, 10)}), or other ones for all of them"
        )
    return given


@dataclass(frozen=True)
class Classes:
    """The classes of a data set, and what its files call them."""

    names: tuple[str, ...]
    """In the order of the labels."""
    labels: Mapping[str, int]
    """The label of every name that the files use."""

    @classmethod
    def found(cls, config: DataConfig, found: Sequence[str]) -> "Classes":
        """Return the classes found in a training split, as `config.classes` orders or renames them.

        Raises:
            UserError: see `class_names`.
        """
        names = class_names(config, found)
        order = names if set(names) == set(found) else found
        return cls(names, {name: label for label, name in enumerate(order)})

    @classmethod
    def known(cls, config: DataConfig, names: tuple[str, ...], found: Sequence[str]) -> "Classes":
        """Return the classes that a model knows, for data in which some were found.

        Where `config.classes` renamed them one by one, the old names are known only if all are found.
        """
        renamed = config.classes is not None and len(found) == len(names) and not set(found) <= set(names)
        return cls(names, {name: label for label, name in enumerate(found if renamed else names)})

    def of(self, found: Sequence[str], where: Path) -> np.ndarray:
        """Return the label, int64, of each name that was found in one split.

        Args:
            found: the names.
            where: what an error names.

        Raises:
            UserError: if a name is not among the classes.
        """
        spellings = Spellings(self.labels)
        meant = [spellings.find(name) for name in found]
        unknown = [name for name, known in zip(found, meant, strict=True) if known is None]
        if unknown:
            raise UserError(
                f"every class of {where} must be one of the training split ({some(list(self.labels), 10)}), but "
                f"{some(unknown)} is not: rename or remove it"
            )
        return np.array([self.labels[name] for name in meant if name is not None], dtype=np.int64)
