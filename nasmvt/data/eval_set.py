"""Evaluation images: read in the process that uses them, once per pass, with a bounded cache of decoded batches.

Shapes: B batch, H, W canvas height and width.
"""

import copy
import logging
import pickle
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from nasmvt.data.config import DataConfig
from nasmvt.data.dataset import Dataset
from nasmvt.data.geometry import Size
from nasmvt.data.pictures import UnreadableImage
from nasmvt.data.targets import TARGETS, Placed
from nasmvt.data.transforms import EvalTransform, collate
from nasmvt.data.types import Batch, Sample
from nasmvt.data.workers import prepare
from nasmvt.errors import UserError

CACHE = 128 * 2**20
"""Bytes of decoded batches that a set caches by default, in every process that iterates over it."""

_log = logging.getLogger(__name__)


class EvalSet(Iterable[Batch]):
    """Batches of some images of a data set, in order, placed by `EvalTransform`; it can be iterated repeatedly.

    `images` is uint8 (B, 3, H, W). Targets are in the pixels of the original images, for a metric, or on the canvas as
    in training, for a loss. Pickling is cheap: it transfers indices, not pixels. The last batch may be
    smaller than the others, and so may one with unreadable images.

    Args:
        dataset: the data set.
        indices: the images of it that belong to the set.
        config: placement, loader processes, and whether unreadable images are skipped.
        batch_size: images B per batch.
        on_canvas: whether targets are on the canvas.
        cache: bytes of decoded batches to keep for the next pass; if there are more, the first ones are kept.

    Raises:
        UserError: if the batch size is below 1.
    """

    def __init__(
        self,
        dataset: Dataset,
        indices: Sequence[int] | np.ndarray,
        config: DataConfig,
        batch_size: int,
        *,
        on_canvas: bool = False,
        cache: int = CACHE,
    ) -> None:
        if batch_size < 1:
            raise UserError(f"a batch holds at least one image, but the batch size is {batch_size}: raise it")
        self._indices = np.asarray(indices, dtype=np.int64)
        self._batch_size = batch_size
        self._workers = config.workers
        self._reader = _Reader(dataset, config, on_canvas)
        self._cache = self._room = cache
        self._kept: dict[int, Batch] = {}
        self._others: dict[Size, EvalSet] = {}
        self.skipped: list[str] = []
        """What was skipped, one sentence per unreadable image; only if `config.skip_unreadable`."""

    def __len__(self) -> int:
        """Return the number of images, unreadable ones included."""
        return len(self._indices)

    def at(self, size: Size) -> "EvalSet":
        """Return the same images placed for another `image_size`; asked again, the same set with its cache."""
        config = self._reader.config
        if size == config.image_size:
            return self
        if size not in self._others:
            self._others[size] = other = self._of(self._indices)
            other._reader = _Reader(self._reader.dataset, config.at(size), self._reader.on_canvas)
        return self._others[size]

    def blocks(self, count: int) -> list["EvalSet"]:
        """Return the images as `count` sets of about equal size; the first has the first image, and every `count`-th.

        Raises:
            UserError: if there are fewer images.
        """
        if len(self) < count:
            raise UserError(
                f"{count} blocks of images need as many images, but there are {len(self)}: take "
                "more, or leave out --race"
            )
        return [self._of(self._indices[start::count]) for start in range(count)]

    def __iter__(self) -> Iterator[Batch]:
        """Iterate over the images once.

        Raises:
            UnreadableImage: if one can't be decoded and `config.skip_unreadable` is off.
        """
        places = range(-(-len(self._indices) // self._batch_size))
        read = prepare(self._reader, [self._chunk(place) for place in places if place not in self._kept], self._workers)
        for place in places:
            batch = self._kept.get(place)
            if batch is None:
                batch, skipped = next(read)
                self._report(skipped)
                if batch is None:
                    continue
                self._keep(place, batch)
            yield batch

    def _chunk(self, place: int) -> list[int]:
        start = place * self._batch_size
        chunk: list[int] = self._indices[start : start + self._batch_size].tolist()
        return chunk

    def _report(self, skipped: Sequence[str]) -> None:
        for sentence in skipped:
            if sentence not in self.skipped:
                _log.warning("skipped: %s", sentence)
                self.skipped.append(sentence)

    def _keep(self, place: int, batch: Batch) -> None:
        size = batch.images.nbytes + len(pickle.dumps(batch.targets, protocol=5)) if self._room > 0 else 0
        if 0 < size <= self._room:
            self._room -= size
            self._kept[place] = batch

    def _of(self, indices: np.ndarray) -> "EvalSet":
        """Return a set of other images, placed alike."""
        other = copy.copy(self)
        other._indices, other._kept, other._others, other._room, other.skipped = indices, {}, {}, self._cache, []
        return other

    def __getstate__(self) -> dict[str, Any]:
        """Drop the cached batches from the pickled state."""
        return {**vars(self), "_kept": {}, "_others": {}, "_room": self._cache}


class _Reader:
    """Reads the images of a batch; separate from `EvalSet`, so that it can be sent to loader processes."""

    def __init__(self, dataset: Dataset, config: DataConfig, on_canvas: bool) -> None:
        self.dataset, self.config, self.on_canvas = dataset, config, on_canvas
        self._skip = config.skip_unreadable
        self._targets = TARGETS.get(dataset.info.kind)
        self._transform = EvalTransform(config)

    def __call__(self, chunk: list[int]) -> tuple[Batch | None, list[str]]:
        placed: list[Placed] = []
        skipped: list[str] = []
        for index in chunk:
            try:
                sample = self.dataset[index]
            except UnreadableImage as error:
                if not self._skip:
                    raise
                skipped.append(str(error))
                continue
            placed.extend(self._views(sample))
        if not placed:
            return None, skipped
        gather = self._targets.collate if self.on_canvas else self._targets.gather
        views = 1 if self.on_canvas else len(self._transform.placements)

        def gather_once(targets: Sequence[Any], canvas: Size) -> Any:
            return gather(targets[::views], canvas)

        return collate(placed, gather_once, self._transform.placement, self._transform.colour), skipped

    def _views(self, sample: Sample) -> list[Placed]:
        """Return every view of an image, or, for a loss, the first one with its target."""
        if not self.on_canvas:
            return self._transform.placed(sample.image, sample.target, sample.id)
        image, geometry, info = self._transform.place(sample.image, sample.id)
        return [Placed(image, self._targets.move(sample.target, geometry), info)]
