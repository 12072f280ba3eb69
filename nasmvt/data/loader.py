"""Batches: for training a function of (seed, step) alone, for evaluation every image once.

Shapes: B batch, H, W canvas height and width, K classes.
"""

import itertools
import logging
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch

from nasmvt.data.config import DataConfig
from nasmvt.data.dataset import Dataset
from nasmvt.data.pictures import UnreadableImage
from nasmvt.data.transforms import EvalTransform, TrainTransform
from nasmvt.data.types import Batch, ImageInfo, Kind, Sample
from nasmvt.data.workers import prepare
from nasmvt.errors import UserError
from nasmvt.seeding import derive_seed, seeded

_log = logging.getLogger(__name__)

_Placed = tuple[torch.Tensor, Any, ImageInfo]
"""A canvas, the target, and where the image lies on the canvas."""


class TrainLoader:
    """Augmented batches without end, each a function of (seed, step) alone.

    The order of the images is one seeded permutation per epoch, one after the other; a batch may span
    two or more epochs. With `config.workers` > 0 processes prepare the batches, the very same ones.

    Raises:
        UserError: if there are no images, or the batch size is below 1.
    """

    def __init__(
        self,
        dataset: Dataset,
        indices: Sequence[int] | np.ndarray,
        config: DataConfig,
        kind: Kind,
        batch_size: int,
        seed: int,
    ) -> None:
        if not len(indices):
            raise UserError("training needs at least one image, but the split is empty: add images")
        _check_batch_size(batch_size)
        self._dataset = dataset
        self._indices = np.asarray(indices)
        self._config = config
        self._kind = kind
        self._batch_size = batch_size
        self._seed = seed
        self._transform = TrainTransform(config, kind)
        self._epoch: tuple[int, np.ndarray] | None = None

    def batch(self, step: int) -> Batch:
        """Return the batch of a step.

        Returns:
            `images` uint8 (B, 3, H, W), or float32 in 0..1 for classification; `targets` in canvas pixels:
            class indices (B,) int64, or soft (B, K) float32 when mixup or cutmix is on; a list of dicts
            with `boxes`, `labels` and maybe `masks`; or label maps (B, H, W) uint8.

        Raises:
            UnreadableImage: if an image can't be decoded and `config.skip_unreadable` is off.
        """
        images, targets, infos = [], [], []
        for slot in range(self._batch_size):
            sample = self._sample(step * self._batch_size + slot)
            with seeded("augmentation", self._seed, step, slot):
                image, target, info = self._transform(sample)
            images.append(image)
            targets.append(target)
            infos.append(info)
        stacked = torch.stack(images)
        if self._kind == "detection":
            return Batch(images=stacked, targets=targets, infos=infos)
        if self._kind == "segmentation":
            return Batch(images=stacked, targets=torch.stack(targets), infos=infos)
        stacked, labels = self._mix(stacked, torch.tensor(targets, dtype=torch.int64), step)
        return Batch(images=stacked, targets=labels, infos=infos)

    def batches(self, start_step: int = 0) -> Iterator[Batch]:
        """Yield the batches of `start_step`, `start_step` + 1 and so on, without end."""
        return prepare(self.batch, itertools.count(start_step), self._config.workers)

    def _sample(self, position: int) -> Sample:
        """Return the sample at a place of the endless order; of the unreadable ones, the next readable."""
        epoch, place = divmod(position, len(self._indices))
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

    def _mix(self, images: torch.Tensor, labels: torch.Tensor, step: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Mix pairs of images by timm's Mixup; of an odd batch the last image stays as it is."""
        augmentation = self._config.augmentation
        if not augmentation.mixup and not augmentation.cutmix:
            return images, labels
        from timm.data import Mixup

        classes = len(self._dataset.info.classes)
        soft = torch.nn.functional.one_hot(labels, classes).float()
        even = len(images) - len(images) % 2
        if even:
            mixup = Mixup(augmentation.mixup, augmentation.cutmix, label_smoothing=0.0, num_classes=classes)
            with seeded("mixup", self._seed, step):
                images[:even], soft[:even] = mixup(images[:even], labels[:even])
        return images, soft


class _EvalReader:
    """Reads some images; apart from `EvalBatches` so that it can be sent to a worker."""

    def __init__(self, dataset: Dataset, config: DataConfig) -> None:
        self._dataset = dataset
        self._skip = config.skip_unreadable
        self._transform = EvalTransform(config)

    def __call__(self, chunk: list[int]) -> tuple[list[_Placed], list[str]]:
        samples, skipped = [], []
        for index in chunk:
            try:
                sample = self._dataset[index]
            except UnreadableImage as error:
                if not self._skip:
                    raise
                skipped.append(str(error))
                continue
            image, info = self._transform(sample.image, sample.id)
            samples.append((image, sample.target, info))
        return samples, skipped


class EvalBatches(Iterator[Batch]):
    """Every image of `indices` once, in order, on the canvas of `EvalTransform`.

    `images` is uint8 (B, 3, H, W); `targets` are in the pixels of the original images: class indices
    (B,) int64, a list of dicts as in `Sample` (crowds included), or a list of label maps (h, w).
    """

    def __init__(self, dataset: Dataset, indices: Sequence[int], config: DataConfig, batch_size: int) -> None:
        _check_batch_size(batch_size)
        self.skipped: list[str] = []
        """What was left out so far, one sentence per unreadable image; only if `config.skip_unreadable`."""
        self._classification = dataset.info.kind == "classification"
        chunks = [list(indices[start : start + batch_size]) for start in range(0, len(indices), batch_size)]
        self._chunks = prepare(_EvalReader(dataset, config), chunks, config.workers)

    def __iter__(self) -> "EvalBatches":
        """Return itself: the images are gone through once."""
        return self

    def __next__(self) -> Batch:
        """Return the next batch; the last may be smaller, and so may one with unreadable images."""
        for samples, skipped in self._chunks:
            for sentence in skipped:
                _log.warning("skipped: %s", sentence)
            self.skipped += skipped
            if samples:
                return self._collate(samples)
        raise StopIteration

    def _collate(self, samples: list[_Placed]) -> Batch:
        images, targets, infos = zip(*samples, strict=True)
        return Batch(
            images=torch.stack(images),
            targets=torch.tensor(targets, dtype=torch.int64) if self._classification else list(targets),
            infos=list(infos),
        )


def eval_batches(dataset: Dataset, indices: Sequence[int], config: DataConfig, batch_size: int) -> EvalBatches:
    """Return an iterator of evaluation batches over the images of `indices`, see `EvalBatches`.

    Raises:
        UserError: if the batch size is below 1.
    """
    return EvalBatches(dataset, indices, config, batch_size)


def _check_batch_size(batch_size: int) -> None:
    if batch_size < 1:
        raise UserError(f"a batch holds at least one image, but the batch size is {batch_size}: raise it")
