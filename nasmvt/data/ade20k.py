"""Segmentation in the layout of ADE20K: root/images/<split>/x.jpg and root/annotations/<split>/x.png."""

from pathlib import Path

from nasmvt.data.dataset import Request
from nasmvt.data.folders import FileList, LeftOut, images_in, some, split_folder
from nasmvt.data.formats import register_format
from nasmvt.data.segmented import Segmented, meaning_of
from nasmvt.errors import UserError


@register_format("ade20k", "segmentation")
class Ade20k(Segmented):
    """Images and label maps of the same names, in which 0 is ignored and i > 0 is the class i - 1.

    `labels`, `ignore`, `image_suffix` and `mask_suffix` change that. The class names come from `labels`, `classes`,
    or a file in the root (see `read_classes`), else they are class_1 to class_K with K the largest label of the
    training split.

    Raises:
        UserError: if a folder, an image or a label map is missing, or the labels are inconsistent.
    """

    def __init__(self, request: Request) -> None:
        root, left_out = request.root, LeftOut()
        images, maps = _pairs(request, request.split_name, left_out)

        def train_maps() -> FileList:
            train = request.config.train_split
            return maps if train == request.split_name else _pairs(request, train, LeftOut())[1]

        super().__init__(request, FileList(root, images), maps, meaning_of(request, train_maps))
        self.left_out = left_out.names()


def _pairs(request: Request, split: str, left_out: LeftOut) -> tuple[list[str], FileList]:
    """Return the images of a split, relative to the root, and their label maps."""
    root, config = request.root, request.config
    folder, masks = split_folder(root / "images", split), split_folder(root / "annotations", split)
    images, maps = [], []
    for name in images_in(folder, left_out):
        stem = Path(name).stem
        if stem.endswith(config.image_suffix):
            images.append(f"images/{folder.name}/{name}")
            maps.append(stem.removesuffix(config.image_suffix) + config.mask_suffix)
        else:
            left_out.add(LeftOut.ENDING, name)
    if not images:
        raise UserError(f"the folder {folder} holds no images: fill it or name another split")
    present = set(images_in(masks))
    missing = [str(masks / name) for name in maps if name not in present]
    if missing:
        raise UserError(
            f"every image of {folder} needs a label map, but there is no {some(missing)}: add it, or set 'mask_suffix' "
            f"to what the names of label maps end with"
        )
    return images, FileList(masks, maps)
