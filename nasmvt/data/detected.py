"""What all formats of detection share: images, and their objects in arrays."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from nasmvt.data.dataset import Classes, Dataset, Request
from nasmvt.data.folders import FileList
from nasmvt.data.masks import ObjectMasks
from nasmvt.data.names import Names
from nasmvt.data.objects import Objects
from nasmvt.data.orientation import labels_orientation, turn_boxes, turn_image, upright_size
from nasmvt.data.pictures import read_stored
from nasmvt.data.types import DataInfo, Sample
from nasmvt.errors import UserError

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Annotations:
    """What the annotations of one split say."""

    source: Path
    """Where they stand; what errors name."""
    classes: list[str]
    """The names that the annotations know, in the order that gives labels."""
    objects: Objects


class Detected(Dataset):
    """Images with boxes, and with masks where every object of the training split has one.

    Images without objects are kept. A crowd without a segmentation is masked by its box.

    Args:
        files: the images.
        ids: what each is called in its sample.
        sizes: (n, 2) int32, height and width as the annotations state them; 0 where they state none.
        annotations: the objects of the images.
        train: gives the annotations of the training split and the names of its images, if they are others.

    Raises:
        UserError: if the annotations know a class that training has not, or an object needs a mask and has none.
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
        """Return an upright image and its objects, crowds and empty boxes included (training drops them)."""
        path = self._files[index]
        image, orientation = read_stored(path)
        stored = (image.height, image.width)
        height, width = self._sizes[index].tolist()
        labelled = (height, width) if height else upright_size(stored, orientation)
        try:
            turn = labels_orientation(stored, orientation, labelled, self._annotated)
        except ValueError as error:
            raise UserError(
                f"the image {path} must have the size that {self._source} states, but {error}: fix one of them"
            ) from None
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


def _has_masks(wanted: bool | None, train: Annotations, names: Sequence[Any]) -> bool:
    """Return whether masks are used: if they are wanted, or if that is open and every training object has one."""
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
