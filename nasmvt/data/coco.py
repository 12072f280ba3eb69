"""Detection in the layout of COCO: images, and one JSON file of boxes and masks per split."""

from pathlib import Path
from typing import Any

import torch

from nasmvt.data.coco_json import CocoFile, CocoObject, find_annotations, read_annotations
from nasmvt.data.config import DataConfig
from nasmvt.data.dataset import Dataset, Split, class_names, split_name
from nasmvt.data.folders import some, split_names
from nasmvt.data.masks import ObjectMasks, Part
from nasmvt.data.pictures import read_picture
from nasmvt.data.types import DataInfo, Sample
from nasmvt.errors import UserError


class Coco(Dataset):
    """Images with boxes, and with masks where every object of the training split has one.

    Labels are the places of the category ids in rising order, so ids may have gaps. Images without
    objects are kept. A crowd without a segmentation is masked by its box.

    Raises:
        UserError: if a file is missing or breaks a rule of the format, or the categories of the splits
            differ.
    """

    def __init__(self, config: DataConfig, root: Path, split: Split) -> None:
        train = read_annotations(find_annotations(root, config.train_split))
        name = split_name(config, split)
        path = find_annotations(root, name)
        content = train if path == train.path else read_annotations(path)
        if content.categories != train.categories:
            raise UserError(
                f"both splits must have the same categories, but {path} has {_listing(content)} and "
                f"{train.path} has {_listing(train)}: make them equal"
            )
        has_masks = train.has_objects() and train.first_without_mask() is None
        bare = content.first_without_mask() if has_masks else None
        if bare is not None:
            raise UserError(
                f"every object of the training split has a segmentation, but one of the image "
                f"{bare.file_name} in {path} has none: add it"
            )
        if not content.pictures:
            raise UserError(f"{path} lists no images: add them or name another split")
        self._path = path
        self._pictures = content.pictures
        self._folder = _picture_folder(root, name, path)
        missing = [
            str(self._folder / p.file_name) for p in self._pictures if not (self._folder / p.file_name).is_file()
        ]
        if missing:
            raise UserError(f"{path} lists images that do not exist, {some(missing)}: add them or fix the list")
        self._labels = {category: label for label, category in enumerate(content.categories)}
        classes = class_names(config, list(content.categories.values()))
        self.info = DataInfo(kind="detection", classes=classes, has_masks=has_masks)

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self._pictures)

    def __getitem__(self, index: int) -> Sample:
        """Return an image and its objects, crowds and empty boxes included (training drops them)."""
        record = self._pictures[index]
        path = self._folder / record.file_name
        picture = read_picture(path)
        if (picture.height, picture.width) != record.size:
            raise UserError(
                f"an image must have the size that its annotations state, but {path} is {picture.width}x"
                f"{picture.height} and {self._path} says {record.size[1]}x{record.size[0]}: fix one of them"
            )
        target: dict[str, Any] = {
            "boxes": torch.tensor([item.box for item in record.objects], dtype=torch.float32).reshape(-1, 4),
            "labels": torch.tensor([self._labels[item.category] for item in record.objects], dtype=torch.int64),
            "crowd": torch.tensor([item.crowd for item in record.objects], dtype=torch.bool),
        }
        if self.info.has_masks:
            parts = [_part(item) for item in record.objects]
            target["masks"] = ObjectMasks(record.size, parts, f"{self._path}, image {record.file_name}")
        return Sample(id=record.id, image=picture, target=target)


def _part(item: CocoObject) -> Part:
    """Return the object's segmentation; a crowd may have none, its box stands for it."""
    return item.box if item.segmentation is None else item.segmentation


def _picture_folder(root: Path, split: str, annotations: Path) -> Path:
    """Find the images of a split: images/<split>, <split>, the same with a year behind, or images."""
    names = dict.fromkeys([annotations.stem.removeprefix("instances_"), *split_names(split)])
    parents = (root / "images", root)
    for parent in parents:
        for name in names:
            if (parent / name).is_dir():
                return parent / name
    for parent in parents:
        similar = sorted(path for path in parent.glob(f"{split}*") if path.is_dir())
        if len(similar) == 1:
            return similar[0]
    if parents[0].is_dir():
        return parents[0]
    raise UserError(
        f"the images of the split '{split}' must lie in {root / 'images' / split}, {root / split} or "
        f"{root / 'images'}, but there is none of them: move them there"
    )


def _listing(content: CocoFile) -> str:
    return some([f"{identity}={name}" for identity, name in content.categories.items()], 10)
