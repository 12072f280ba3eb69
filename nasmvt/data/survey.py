"""Examining a data set before anything is trained: exactly where its labels are in memory, else by a sample."""

import time
from collections import deque
from collections.abc import Iterator
from typing import Any

import numpy as np

from nasmvt.data.dataset import Dataset
from nasmvt.data.pictures import UnreadableImage
from nasmvt.data.report import LabelCounts, Look, SplitReport
from nasmvt.data.targets import TARGETS
from nasmvt.seeding import derive_seed

MOST = 500
"""Default number of images that are examined."""


def survey(
    dataset: Dataset, seed: int, *, tolerant: bool, most: int | None = MOST, seconds: float | None = None
) -> SplitReport:
    """Examine one split of a data set.

    Args:
        dataset: the split.
        seed: seed of the choice of images.
        tolerant: whether images that can't be read are skipped instead of stopping a training.
        most: maximum number of images examined; None: all.
        seconds: time limit; at least one image is examined. None: no limit.

    Raises:
        UserError: if labels break a rule of the format.
    """
    order = np.random.default_rng(derive_seed("survey", seed)).permutation(len(dataset))[:most]
    views = _Views(dataset, order, None if seconds is None else time.monotonic() + seconds)
    labels = dataset.label_counts(np.arange(len(dataset)))
    if labels is None:
        labels = TARGETS.get(dataset.info.kind).count(views.targets(), len(dataset.info.classes))
    else:
        deque(views.targets(), maxlen=0)
    return views.report(labels, tolerant)


class _Views:
    """Observations of the images so far."""

    def __init__(self, dataset: Dataset, order: np.ndarray, deadline: float | None) -> None:
        self._dataset = dataset
        self._order = order
        self._deadline = deadline
        self._looks: list[Look] = []
        self._unreadable: list[str] = []

    def targets(self) -> Iterator[Any]:
        """Examine the images, and yield the labels of each."""
        for index in self._order.tolist():
            try:
                look = self._dataset.look(index)
            except UnreadableImage as error:
                self._unreadable.append(str(error))
            else:
                self._looks.append(look._replace(target=None))
                yield look.target
            if self._deadline is not None and time.monotonic() > self._deadline:
                return

    def report(self, labels: LabelCounts, tolerant: bool) -> SplitReport:
        """Return the observations."""
        sizes = [look.size for look in self._looks]
        return SplitReport(
            images=len(self._dataset),
            looked_at=len(self._looks) + len(self._unreadable),
            names=self._dataset.info.classes,
            labels=labels,
            smallest=min(sizes, key=_pixels, default=None),
            largest=max(sizes, key=_pixels, default=None),
            left_out=self._dataset.left_out,
            animated=sum(look.animated for look in self._looks),
            unreadable=tuple(self._unreadable),
            tolerant=tolerant,
        )


def _pixels(size: tuple[int, int]) -> tuple[int, int, int]:
    return size[0] * size[1], *size
