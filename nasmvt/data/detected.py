"""The common part of all detection formats: images, and their objects in arrays."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from nasmvt.data.dataset import Classes, Dataset, Request
from nasmvt.data.detection import count_objects
from nasmvt.data.folders import FileList
from nasmvt.data.masks import ObjectMasks
from nasmvt.data.names import Names
from nasmvt.data.objects import Objects
from nasmvt.data.orientation import labels_orientation, turn_boxes, turn_image, upright_size
from nasmvt.data.pictures import look_at, read_stored
from nasmvt.data.report import LabelCounts, Look
from nasmvt.data.types import DataInfo, Sample
from nasmvt.errors import UserError

_OUTSIDE, _OUTSIDE_PART = 1.0, 0.005
"""How far a box may extend beyond its image without being reported: in pixels, or as a fraction of its sides."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Annotations:
    """The annotations of one split."""

    source: Path
    """Where they come from; named in errors."""
    classes: list[str]
    """The class names of the annotations, in the order of the labels."""
    objects: Objects


class Detected(Dataset):
    """Images with boxes, and with masks where every object of the training split has one.

    Images without objects are kept. A crowd without a segmentation is masked by its box.

    Args:
        files: the images.
        ids: the id of each in its sample.
        sizes: (n, 2) int32, height and width as the annotations state them; 0 where they state none.
        annotations: the objects of the images.
        train: gives the annotations of the training split and the names of its images, if they are others.

    Raises:
        UserError: if the annotations have a class that the training split lacks, or an object lacks a required mask.
    """

    def __init__(
        self,
        request: Request,
        files: FileList,
        ids: np.ndarray | Names,
        sizes: np.ndarray,
        annotations: Annotations,
        train: Callable[[], tuple[Annotations, Sequence[Any]]],
    ) -> None:
        self._files, self._ids, self._sizes = files, ids, sizes
        self._source, self._objects = annotations.source, annotations.objects
        config, known = request.config, request.known
        self._annotated = config.orientation
        if known is not None:
            classes, masks = Classes.known(config, known.classes, annotations.classes), known.has_masks
        else:
            first, names = (annotations, files.names) if request.of_training else train()
            classes, masks = Classes.found(config, first.classes), _has_masks(config.masks, first, names)
        self.info = DataInfo(kind="detection", classes=classes.names, has_masks=masks)
        self._labels = classes.of(annotations.classes, annotations.source)
        if masks and len(self._objects.without_mask()):
            raise UserError(
                f"masks are used where every object has one, but {_bare(annotations, files.names)}: add them, or set "
                f"the data's 'masks' to false"
            )

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self._files)

    def __getitem__(self, index: int) -> Sample:
        """Return an upright image and its objects, including crowds and empty boxes (training drops them)."""
        path = self._files[index]
        image, orientation = read_stored(path)
        stored = (image.height, image.width)
        turn = self._turn(index, stored, orientation)
        size = stored if turn == orientation else upright_size(stored, orientation)
        boxes = self._objects.clipped(index, size)
        objects = self._objects.of(index)
        target: dict[str, Any] = {
            "boxes": turn_boxes(torch.tensor(boxes), size, turn),
            "labels": torch.tensor(self._labels[self._objects.places[objects]]),
            "crowd": torch.tensor(self._objects.crowds[objects]),
        }
        if self.info.has_masks:
            parts = self._objects.parts(index, size, boxes)
            target["masks"] = ObjectMasks(size, parts, f"{self._source}, image {path.name}", turn)
        identity = self._ids[index]
        identity = identity if isinstance(identity, str) else int(identity)
        return Sample(id=identity, image=turn_image(image, orientation), target=target)

    def look(self, index: int) -> Look:
        """Return what the header of an image says; its size must be what the annotations state, if they do."""
        path = self._files[index]
        look = look_at(path)
        if tuple(self._sizes[index].tolist()) not in (look.size, (0, 0)):  # turned by EXIF's orientation, or wrong
            self._turn(index, look.size, read_stored(path)[1])
        return look

    def label_counts(self, indices: np.ndarray) -> LabelCounts:
        """Count the objects of each class, and their irregularities."""
        objects, sizes = self._objects, self._sizes
        owners = np.repeat(np.arange(len(self)), np.diff(objects.starts))
        items = np.flatnonzero(np.isin(owners, indices))
        boxes, owners = objects.boxes[items], owners[items]
        counts = count_objects(
            self._labels[objects.places[items]],
            objects.crowds[items],
            boxes,
            owners,
            len(indices),
            len(self.info.classes),
        )
        sides = np.ones((len(items), 2)) if objects.relative else sizes[owners][:, ::-1]
        slack = _OUTSIDE_PART if objects.relative else _OUTSIDE
        beyond = (boxes[:, :2] < -slack).any(axis=1) | (boxes[:, 2:] > sides + slack).any(axis=1)
        outside = int((beyond & (sides > 0).all(axis=1)).sum())
        bare = 0 if self.info.has_masks else int(np.isin(objects.without_mask(), items).sum())
        some_bare = bare if bare < len(items) - counts.ignored else 0
        return replace(
            counts,
            odd={
                **counts.odd,
                "boxes extend beyond their image and are clipped": outside,
                "objects have no mask although others do: only boxes are used": some_bare,
            },
        )

    def occupied(self, indices: np.ndarray) -> np.ndarray:
        """Return which of some images, bool, hold an object that is no crowd and has an area."""
        objects = self._objects
        usable = ~objects.crowds & (objects.boxes[:, 2:] > objects.boxes[:, :2]).all(axis=1)
        owners = np.repeat(np.arange(len(self)), np.diff(objects.starts))
        return np.bincount(owners[usable], minlength=len(self))[indices] > 0

    def _turn(self, index: int, stored: tuple[int, int], orientation: int) -> int:
        """Return the orientation by which the labels of an image must be turned to lie on the upright image.

        Raises:
            UserError: if the annotations state another size than the image has.
        """
        height, width = self._sizes[index].tolist()
        labelled = (height, width) if height else upright_size(stored, orientation)
        try:
            return labels_orientation(stored, orientation, labelled, self._annotated)
        except ValueError as error:
            raise UserError(
                f"the image {self._files[index]} must have the size that {self._source} states, but {error}: fix one "
                f"of them"
            ) from None


def _has_masks(wanted: bool | None, train: Annotations, names: Sequence[Any]) -> bool:
    """Return whether masks are used: if requested, or, by default, if every training object has one."""
    missing, objects = len(train.objects.without_mask()), train.objects.count()
    if wanted is not None:
        return wanted
    if 0 < missing < objects:
        _log.warning(
            "only boxes are used, not masks: %s; add them, or set the data's 'masks' to false to confirm",
            _bare(train, names),
        )
    return missing == 0 < objects


def _bare(annotations: Annotations, names: Sequence[Any]) -> str:
    """Say how many objects have no mask, and where the first one is."""
    objects, bare = annotations.objects, annotations.objects.without_mask()
    return (
        f"{len(bare)} of {objects.count()} objects of {annotations.source} have no segmentation (the first is of the "
        f"image {names[objects.image_of(bare[0])]})"
    )
