"""The data of an experiment: opened once, divided by the seed, provided as batches."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from PIL import Image

from nasmvt.data.dataset import Dataset, Split
from nasmvt.data.eval_set import EvalSet
from nasmvt.data.geometry import Size
from nasmvt.data.loader import TrainLoader
from nasmvt.data.opening import open_dataset
from nasmvt.data.splits import split_train
from nasmvt.data.types import Batch, DataInfo
from nasmvt.pipeline.experiment import Experiment
from nasmvt.seeding import derive_seed
from nasmvt.tasks.config import TaskConfig
from nasmvt.tasks.task import Task


@dataclass(frozen=True)
class TaskData:
    """The data set of one task and its division."""

    name: str
    config: TaskConfig
    seed: int
    known: DataInfo | None = None
    """What a model knows about its data; the val split can then be opened without the training split."""

    @cached_property
    def train(self) -> Dataset:
        """The undivided training split."""
        return open_dataset(self.config.data, self.config.kind, "train", self.seed)

    @cached_property
    def val(self) -> Dataset:
        """The validation split, for the final model only."""
        known = self.known or (self.train.info if "train" in vars(self) else None)
        return open_dataset(self.config.data, self.config.kind, "val", self.seed, known)

    def at(self, size: Size) -> "TaskData":
        """Return the same data, opened once, placed for another `image_size`."""
        config = self.config.model_copy(update={"data": self.config.data.at(size)})
        other = replace(self, config=config)
        vars(other).update({key: value for key, value in vars(self).items() if key in {"train", "val", "division"}})
        return self if size == self.config.data.image_size else other

    def open(self, split: Split) -> Dataset:
        """Return a split by name."""
        return self.train if split == "train" else self.val

    @cached_property
    def division(self) -> tuple[np.ndarray, np.ndarray]:
        """Indices into `train`: for training, and for comparing candidates."""
        return split_train(
            len(self.train), self.config.data.search_fraction, derive_seed("split", self.name, self.seed)
        )

    @cached_property
    def first_batch(self) -> Batch:
        """The first training batch."""
        return self.train_loader().batch(0)

    def train_loader(self, batch_size: int | None = None, order: int = 0) -> TrainLoader:
        """Return the augmented training batches; another `order` has the same images in another order and form."""
        seed = derive_seed("train", self.name, self.seed, *([order] if order else []))
        size = batch_size or self.config.batch_size
        indices = self.division[0]
        if self.config.data.skip_empty:
            indices = indices[self.train.occupied(indices)]
        return TrainLoader(self.train, indices, self.config.data, size, seed)

    def recalibration_images(self, images: int) -> EvalSet:
        """Return training images, placed as for evaluation, for BatchNorm statistics: as many as given, by seed.

        They come in random order, in batches of nearly one size: statistics are averages over batches, and batches of
        few classes, as sorted data sets give, vary too little.
        """
        rng = np.random.default_rng(derive_seed("recalibration", self.name, self.seed))
        chosen = rng.permutation(self.division[0])[:images]
        batches = max(1, -(-len(chosen) // self.config.eval_batch_size))
        size = max(1, -(-len(chosen) // batches))
        return EvalSet(self.train, chosen, self.config.data, size, on_canvas=True)

    def search_images(self, images: int | None = None) -> EvalSet:
        """Return the images that candidates are compared on: the search split, or `images` of it drawn by seed.

        Data sets are often sorted, for example by class, so the first ones are not representative.
        """
        return self._set(self.train, self._drawn(self.division[1], images, "search"))

    def judging_images(self, least: int) -> EvalSet:
        """Return the search split, and training images where it has less than `least`, drawn by seed.

        For what was not trained on either: a change of a finished model.
        """
        train, search = self.division
        more = self._drawn(train, max(0, least - len(search)), "judging")
        return self._set(self.train, np.sort(np.concatenate((search, more))))

    def search_pictures(self, images: int) -> list[Image.Image]:
        """Return images of the search split as they are, drawn by seed."""
        return [self.train[int(i)].image for i in self._drawn(self.division[1], images, "search")]

    @cached_property
    def search_batch(self) -> Batch:
        """The first batch of the search split, drawn by seed, with targets on the canvas: for drawing."""
        chosen = self._drawn(self.division[1], self.config.eval_batch_size, "search")
        return next(iter(self._set(self.train, chosen, on_canvas=True)))

    def val_images(self) -> EvalSet:
        """Return the whole validation split."""
        return self._set(self.val, np.arange(len(self.val)))

    def _drawn(self, part: np.ndarray, images: int | None, purpose: str) -> np.ndarray:
        """Return some of the indices of a part of the training split, in order; None: all."""
        rng = np.random.default_rng(derive_seed(purpose, self.name, self.seed))
        return part[np.sort(rng.permutation(len(part))[:images])]

    def _set(self, dataset: Dataset, indices: np.ndarray, on_canvas: bool = False) -> EvalSet:
        return EvalSet(dataset, indices, self.config.data, self.config.eval_batch_size, on_canvas=on_canvas)


def placed(data: Mapping[str, TaskData], tasks: Mapping[str, Task]) -> dict[str, TaskData]:
    """Return data placed as tasks are in the resolutions of an arch."""
    return {name: item.at(tasks[name].nominal_size) if name in tasks else item for name, item in data.items()}


def open_data(experiment: Experiment) -> dict[str, TaskData]:
    """Open the training data of every task and check what can be checked before anything is written.

    Raises:
        UserError: if a data set is missing or broken, or no search split is left.
    """
    found = {name: TaskData(name, config, experiment.seed) for name, config in experiment.tasks.items()}
    check_division(found)
    return found


def check_division(data: Mapping[str, TaskData]) -> None:
    """Refuse data from which a search split or a first batch can't be made.

    Raises:
        UserError: with the reason.
    """
    for item in data.values():
        _ = item.division
        _ = item.first_batch


def infos_of(data: Mapping[str, TaskData]) -> dict[str, DataInfo]:
    """Return what the networks need to know about the data sets."""
    return {name: item.train.info for name, item in data.items()}
