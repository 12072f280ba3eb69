"""Training batches, each a function of (seed, step) alone."""

import itertools
import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from nasmvt.data.config import DataConfig
from nasmvt.data.dataset import Dataset
from nasmvt.data.geometry import Size
from nasmvt.data.pictures import UnreadableImage
from nasmvt.data.targets import TARGETS, Targets
from nasmvt.data.transforms import TrainTransform, collate, mean_colour
from nasmvt.data.types import Batch, Sample
from nasmvt.data.workers import prepare
from nasmvt.errors import UserError
from nasmvt.seeding import derive_seed, reseed, seeded

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Parts:
    """Which of the equal parts of every batch are wanted; as a rule the only one.

    The slots of a batch are dealt from both ends inwards, so a part of even size holds the pairs that mixup mixes.
    """

    of: int = 1
    """Parts of a batch."""
    wanted: Sequence[int] = (0,)
    """Which of them, in order."""

    def slots(self, part: int, batch_size: int) -> list[int]:
        """Return the slots of a part in ascending order."""
        inwards = [slot // 2 if slot % 2 == 0 else batch_size - 1 - slot // 2 for slot in range(batch_size)]
        size = batch_size // self.of
        return sorted(inwards[part * size : (part + 1) * size])


WHOLE = Parts()


class TrainLoader:
    """An endless stream of augmented batches, each a function of (seed, step) alone.

    The order of the images is one seeded permutation per epoch; a batch may span
    two or more epochs. With `config.workers` > 0, worker processes prepare the same batches.

    Raises:
        UserError: if there are no images, or the batch size is below 1.
    """

    def __init__(
        self,
        dataset: Dataset,
        indices: Sequence[int] | np.ndarray,
        config: DataConfig,
        batch_size: int,
        seed: int,
    ) -> None:
        if not len(indices):
            raise UserError("training needs at least one image, but the split is empty: add images")
        if batch_size < 1:
            raise UserError(f"a batch holds at least one image, but the batch size is {batch_size}: raise it")
        self._dataset = dataset
        self._indices = np.asarray(indices)
        self._config = config
        self._batch_size = batch_size
        self._seed = seed
        self._targets = TARGETS.get(dataset.info.kind)
        self._placing = {config.image_size: _Placing(config, self._targets)}
        self._epoch: tuple[int, np.ndarray] | None = None

    def check(self, parts: Parts) -> None:
        """Refuse parts that are unequal, or that mixed images would cross.

        Raises:
            UserError: saying why.
        """
        if self._batch_size % parts.of:
            raise UserError(
                f"a step is cut into {parts.of} equal parts (processes x training.accumulate), but 'batch_size' is "
                f"{self._batch_size}: make it a multiple of {parts.of}"
            )
        if parts.of > 1 and self._batch_size // parts.of % 2 and self._targets.mixes(self._config.augmentation):
            raise UserError(
                f"mixup and cutmix need parts of an even number of images, but 'batch_size' {self._batch_size} is cut "
                f"into {parts.of} parts (processes x training.accumulate): make it a multiple of {2 * parts.of}, or "
                "set data.augmentation.mixup and cutmix to 0"
            )

    def batch(self, step: int, part: int = 0, parts: Parts = WHOLE, size: Size | None = None) -> Batch:
        """Return the batch of a step, or a part of it; its targets are in canvas pixels.

        The images of a part are those of its slots in the whole batch, augmented and mixed alike; so are those of
        another `size` in place of `config.image_size`.

        Raises:
            UnreadableImage: if an image can't be decoded and `config.skip_unreadable` is off.
        """
        placing = self._placed_at(size or self._config.image_size)
        placed = []
        with seeded("augmentation", self._seed, step):
            for slot in parts.slots(part, self._batch_size):
                sample = self._sample(step * self._batch_size + slot)
                reseed("augmentation", self._seed, step, slot)
                placed.append(placing.transform(sample))
        batch = collate(placed, self._targets.collate, placing.placement, mean_colour(self._config))
        classes = len(self._dataset.info.classes)
        with seeded("mixup", self._seed, step):
            images, targets = self._targets.mix(batch.images, batch.targets, self._config.augmentation, classes)
        return replace(batch, images=images, targets=targets)

    def batches(
        self, start_step: int = 0, parts: Parts = WHOLE, sizes: Callable[[int], Sequence[Size]] | None = None
    ) -> Iterator[Batch]:
        """Yield the batches of `start_step`, `start_step` + 1 and so on, endlessly, each in the parts wanted.

        Args:
            start_step: the first step.
            parts: which parts of each.
            sizes: gives those that a step wants each part in, one after the other; None: `config.image_size` alone.
        """
        own = (self._config.image_size,)
        keys = (
            (step, part, parts, size)
            for step in itertools.count(start_step)
            for part in parts.wanted
            for size in (own if sizes is None else sizes(step))
        )
        return prepare(self._batch, keys, self._config.workers)

    def _batch(self, key: tuple[int, int, Parts, Size]) -> Batch:
        return self.batch(*key)

    def _placed_at(self, size: Size) -> "_Placing":
        if size not in self._placing:
            self._placing[size] = _Placing(self._config.at(size), self._targets)
        return self._placing[size]

    def _sample(self, position: int) -> Sample:
        """Return the sample at a position of the endless order; for an unreadable image, the next readable one."""
        epoch, place = divmod(position // self._config.augmentation.repeats, len(self._indices))
        order = self._order(epoch)
        for offset in range(len(order)):
            try:
                return self._dataset[int(self._indices[order[(place + offset) % len(order)]])]
            except UnreadableImage as error:
                if not self._config.skip_unreadable:
                    raise
                _log.warning("skipped: %s", error)
        raise UserError(f"none of the {len(order)} training images can be decoded: check the data set")

    def _order(self, epoch: int) -> np.ndarray:
        if self._epoch is None or self._epoch[0] != epoch:
            generator = np.random.default_rng(derive_seed("order", self._seed, epoch))
            self._epoch = (epoch, generator.permutation(len(self._indices)))
        return self._epoch[1]


class _Placing:
    """How the images of a batch are placed on a canvas of one size."""

    def __init__(self, config: DataConfig, targets: Targets) -> None:
        self.transform = TrainTransform(config, targets)
        self.placement = config.train_placement
