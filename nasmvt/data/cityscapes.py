"""Segmentation in the layout of Cityscapes: leftImg8bit/<split>/<city> and gtFine/<split>/<city>."""

from nasmvt.data.dataset import Request, class_names
from nasmvt.data.folders import FileList, LeftOut, images_in, scan, some, split_folder
from nasmvt.data.formats import register_format
from nasmvt.data.label_maps import PixelLabels, Value, consecutive
from nasmvt.data.segmented import Segmented, meaning_of
from nasmvt.data.types import IGNORE
from nasmvt.errors import UserError

_IDS = {
    7: "road",
    8: "sidewalk",
    11: "building",
    12: "wall",
    13: "fence",
    17: "pole",
    19: "traffic light",
    20: "traffic sign",
    21: "vegetation",
    22: "terrain",
    23: "sky",
    24: "person",
    25: "rider",
    26: "car",
    27: "truck",
    28: "bus",
    31: "train",
    32: "motorcycle",
    33: "bicycle",
}
"""The 19 classes that are evaluated, by their id; those with other ids are ignored."""
_IMAGE, _IDS_MAP, _TRAIN_IDS_MAP = "_leftImg8bit", "_gtFine_labelIds.png", "_gtFine_labelTrainIds.png"


@register_format("cityscapes", "segmentation")
class Cityscapes(Segmented):
    """Cityscapes' fine annotations with the 19 classes that are evaluated.

    `labels` and `ignore` redefine the ids of labelIds.png.

    Raises:
        UserError: if a folder, an image or a label map is missing.
    """

    def __init__(self, request: Request) -> None:
        root, left_out = request.root, LeftOut()
        folder = split_folder(root / "leftImg8bit", request.split_name)
        names = []
        for city in scan(folder):
            if not city.is_dir():
                left_out.add(LeftOut.ENDING, city.name)
                continue
            for image in images_in(folder / city.name, left_out, f"{city.name}/"):
                name = f"{city.name}/{image}"
                if f"{_IMAGE}." in image:
                    names.append(name)
                else:
                    left_out.add(LeftOut.ENDING, name)
        if not names:
            raise UserError(f"{folder} must hold a folder of images *{_IMAGE}.png per city, but holds none: add them")
        maps = split_folder(root / "gtFine", request.split_name)
        stems = [name.rpartition(_IMAGE)[0] for name in names]
        by_id = request.config.labels is not None or not (maps / f"{stems[0]}{_TRAIN_IDS_MAP}").is_file()
        files = FileList(maps, [stem + (_IDS_MAP if by_id else _TRAIN_IDS_MAP) for stem in stems])
        missing = [str(path) for path in files if not path.is_file()]
        if missing:
            raise UserError(f"every image of {folder} needs a label map, but there is no {some(missing)}: add it")
        images = FileList(root, [f"leftImg8bit/{folder.name}/{name}" for name in names])
        super().__init__(request, images, files, _labels(request, by_id))
        self.left_out = left_out.names()


def _labels(request: Request, by_id: bool) -> PixelLabels:
    config = request.config
    if config.labels is not None:
        return meaning_of(request, lambda: FileList(request.root, []))
    names = class_names(config, list(_IDS.values()))
    meaning: dict[Value, str] = dict(zip(_IDS, names, strict=True)) if by_id else consecutive(names, ())
    # Beside the classes there are ids up to 33, and 255 for -1.
    others = [value for value in (*range(34), IGNORE) if value not in meaning]
    return PixelLabels(meaning, config.ignore if config.ignore is not None else others)
