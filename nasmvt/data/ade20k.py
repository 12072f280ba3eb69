"""Segmentation in the layout of ADE20K: images, and label maps as PNG of the same name.

root/images/<split>/x.jpg and root/annotations/<split>/x.png; in a label map 0 is ignored and i > 0 is
the class i - 1.
"""

from pathlib import Path

import numpy as np
import torch
from PIL import Image

from nasmvt.data.dataset import Dataset, Request, text_digest
from nasmvt.data.folders import FileList, LeftOut, images_in, some, split_folder
from nasmvt.data.formats import register_format
from nasmvt.data.pictures import read_picture
from nasmvt.data.types import IGNORE, DataInfo, Sample
from nasmvt.errors import UserError


@register_format("ade20k", "segmentation")
class Ade20k(Dataset):
    """Images with a label for every pixel.

    The class names come from `config.classes`, else root/classes.txt, else root/objectInfo150.txt, else
    they are class_1 to class_K with K the largest label of the training split.

    Raises:
        UserError: if a folder, an image or a label map is missing, or there are too many classes.
    """

    def __init__(self, request: Request) -> None:
        root, name, left_out = request.root, request.split_name, LeftOut()
        folder = split_folder(root / "images", name)
        masks = split_folder(root / "annotations", name)
        names = images_in(folder, left_out)
        if not names:
            raise UserError(f"the folder {folder} holds no images: fill it or name another split")
        self._images = FileList(folder.parent.parent, [f"images/{folder.name}/{image}" for image in names])
        present = set(images_in(masks))
        maps = [f"{Path(image).stem}.png" for image in names]
        missing = [str(masks / name) for name in maps if name not in present]
        if missing:
            raise UserError(f"every image of {folder} needs a label map, but there is no {some(missing)}: add it")
        self._maps = FileList(masks, maps)
        self.left_out = left_out.names()
        if request.known is not None:
            classes = request.known.classes
        else:
            config = request.config
            classes = config.classes or _named_classes(root) or _counted_classes(root, config.train_split)
        if len(classes) > IGNORE:
            raise UserError(f"label maps hold at most {IGNORE} classes, but {root} has {len(classes)}: merge classes")
        self.info = DataInfo(kind="segmentation", classes=classes)

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self._images)

    def __getitem__(self, index: int) -> Sample:
        """Return an image and its uint8 label map (H, W) of classes and `IGNORE`."""
        path, mask_path = self._images[index], self._maps[index]
        picture = read_picture(path, upright=False)
        labels = read_label_map(mask_path)
        if labels.shape != (picture.height, picture.width):
            raise UserError(
                f"a label map must have the size of its image, but {mask_path} is {labels.shape[1]}x"
                f"{labels.shape[0]} and {path} is {picture.width}x{picture.height}: make them equal"
            )
        largest = int(labels.max(initial=0))
        if largest > len(self.info.classes):
            raise UserError(
                f"the label map {mask_path} holds the label {largest}, but there are "
                f"{len(self.info.classes)} classes: fix the map or name "
                f"every class in root/classes.txt or 'classes'"
            )
        # Of uint8, 0 - 1 is 255, which is IGNORE.
        target = torch.from_numpy(labels.astype(np.uint8) - np.uint8(1))
        return Sample(id=self._images.names[index], image=picture, target=target)

    def digest(self) -> str:
        """Return a digest over the names and sizes of the images and the label maps."""
        return text_digest(self._images.digest(), self._maps.digest())


def read_label_map(path: Path) -> np.ndarray:
    """Read a label map as an array (H, W) of whole numbers, as they stand in the file.

    Raises:
        UserError: if it can't be decoded or has several channels, naming the file.
    """
    try:
        with Image.open(path) as picture:
            labels = np.array(picture)
    except (OSError, SyntaxError, ValueError) as error:
        detail = " ".join(str(error).split())
        raise UserError(f"the label map {path} can't be decoded ({detail}): replace it") from None
    if labels.ndim != 2 or labels.dtype.kind not in "uib":
        raise UserError(
            f"a label map must be a grey or palette image of labels, but {path} has the shape "
            f"{labels.shape}: store one label per pixel"
        )
    return labels


def _named_classes(root: Path) -> tuple[str, ...] | None:
    """Read the names from classes.txt (`name` or `1<TAB>name` per line) or ADE20K's objectInfo150.txt."""
    plain, table = root / "classes.txt", root / "objectInfo150.txt"
    if plain.is_file():
        return _unique([line.split("\t")[-1].strip() for line in _lines(plain)], plain)
    if table.is_file():
        # The table's names are lists of synonyms; the first one is the name in common use.
        rows = _lines(table)[1:]
        return _unique([row.split("\t")[-1].split(",")[0].strip() for row in rows], table)
    return None


def _lines(path: Path) -> list[str]:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} can't be read ({error}): store it as UTF-8 text") from None
    return [line for line in text.splitlines() if line.strip()]


def _unique(names: list[str], path: Path) -> tuple[str, ...]:
    if not names:
        raise UserError(f"{path} must name the classes, but is empty: write one name per line")
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise UserError(f"{path} must name every class once, but names {some(repeated)} twice: fix it")
    return tuple(names)


def _counted_classes(root: Path, train_split: str) -> tuple[str, ...]:
    folder = split_folder(root / "annotations", train_split)
    maps = [name for name in images_in(folder) if name.lower().endswith(".png")]
    count = max((int(read_label_map(folder / name).max(initial=0)) for name in maps), default=0)
    if count == 0:
        raise UserError(f"the label maps of {folder} hold no label above 0: name the classes in {root / 'classes.txt'}")
    return tuple(f"class_{label}" for label in range(1, count + 1))
