"""Detection in the layout of COCO: images, and one JSON file of boxes and masks per split."""

import logging
from typing import Any

import numpy as np
import torch

from nasmvt.data.coco_files import find_annotations, find_images, locate
from nasmvt.data.coco_json import CocoFile, read_annotations
from nasmvt.data.dataset import Dataset, Request, class_labels, class_names, text_digest
from nasmvt.data.folders import FileList, LeftOut, images_in
from nasmvt.data.formats import register_format
from nasmvt.data.masks import ObjectMasks
from nasmvt.data.orientation import labels_orientation, turn_boxes, turn_image
from nasmvt.data.pictures import read_stored
from nasmvt.data.types import DataInfo, Sample
from nasmvt.errors import UserError

_log = logging.getLogger(__name__)


@register_format("coco", "detection")
class Coco(Dataset):
    """Images with boxes, and with masks where every object of the training split has one.

    Labels are the places of the training split's category ids in rising order, so ids may have gaps; those of another
    split are matched by name, and it may lack some. Images without objects are kept. A crowd without a
    segmentation is masked by its box.

    Raises:
        UserError: if a file is missing or breaks a rule of the format, or a split has a category that
            training has not.
    """

    def __init__(self, request: Request) -> None:
        root, name = request.root, request.split_name
        content = read_annotations(find_annotations(root, name))
        self.info = _info(request, content)
        if not len(content.files):
            raise UserError(f"{content.path} lists no images: add them or name another split")
        folder = find_images(root, name, content.path)
        self._files = locate(content.files, folder, root, content.path)
        self._content = content
        self._annotated = request.config.orientation
        found = list(content.categories.values())
        labels = class_labels(request.config, found, self.info.classes, content.path)
        self._labels = np.array([labels[name] for name in found], dtype=np.int64)
        self.left_out = _left_out(self._files) if folder.name != "images" else {}

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self._files)

    def __getitem__(self, index: int) -> Sample:
        """Return an image and its objects, crowds and empty boxes included (training drops them)."""
        content, path = self._content, self._files[index]
        image, orientation = read_stored(path)
        height, width = content.sizes[index].tolist()
        try:
            turn = labels_orientation((image.height, image.width), orientation, (height, width), self._annotated)
        except ValueError as error:
            raise UserError(
                f"the image {path} must have the size that {content.path} states, but {error}: fix one of them"
            ) from None
        upright = turn_image(image, orientation)
        drawn_on = image if turn == orientation else upright
        size = (drawn_on.height, drawn_on.width)
        objects, boxes = content.objects(index), content.clipped(index, size)
        target: dict[str, Any] = {
            "boxes": turn_boxes(torch.tensor(boxes), size, turn),
            "labels": torch.tensor(self._labels[content.places[objects]]),
            "crowd": torch.tensor(content.crowds[objects]),
        }
        if self.info.has_masks:
            source = f"{content.path}, image {content.files[index]}"
            target["masks"] = ObjectMasks(size, content.parts(index, boxes), source, turn)
        identity = content.ids[index]
        return Sample(id=identity if isinstance(identity, str) else int(identity), image=upright, target=target)

    def digest(self) -> str:
        """Return a digest over the names and sizes of the images, and the content of the annotation file."""
        path = self._content.path
        return text_digest(self._files.digest(), FileList(path.parent, [path.name]).digest(contents=True))


def _info(request: Request, content: CocoFile) -> DataInfo:
    """Return the classes of the training split and whether masks are used; they are then needed in this split, too."""
    config, info = request.config, request.known
    if info is None:
        path = find_annotations(request.root, config.train_split)
        train = content if path == content.path else read_annotations(path)
        classes = class_names(config, list(train.categories.values()))
        info = DataInfo(kind="detection", classes=classes, has_masks=_has_masks(train, config.masks))
    if info.has_masks and len(content.without_mask()):
        raise UserError(
            f"masks are used where every object has one, but {_bare(content)}: add them, or set the data's 'masks' to "
            f"false"
        )
    return info


def _has_masks(train: CocoFile, wanted: bool | None) -> bool:
    """Return whether masks are used: if they are wanted, or if that is open and every object has one."""
    missing, objects = len(train.without_mask()), int((~train.crowds).sum())
    if wanted is not None:
        return wanted
    if 0 < missing < objects:
        _log.warning(
            "only boxes are used, not masks: %s; add them, or set the data's 'masks' to false to confirm", _bare(train)
        )
    return missing == 0 and objects > 0


def _bare(content: CocoFile) -> str:
    """Say how many objects have no mask, and where the first one is."""
    bare = content.without_mask()
    return (
        f"{len(bare)} of {int((~content.crowds).sum())} objects of {content.path} have no segmentation (the first is "
        f"of the image {content.files[content.image_of(bare[0])]})"
    )


def _left_out(files: FileList) -> Any:
    left_out, listed = LeftOut(), set(files.names)
    for name in images_in(files.root, left_out):
        if name not in listed:
            left_out.add(LeftOut.NO_ANNOTATION, name)
    return left_out.names()
