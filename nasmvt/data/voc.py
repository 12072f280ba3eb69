"""Pascal VOC: JPEGImages, Annotations (boxes), SegmentationClass (label maps), lists of splits in ImageSets."""

import xml.etree.ElementTree as ET
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from nasmvt.data.dataset import Dataset, Request, text_digest
from nasmvt.data.detected import Annotations, Detected
from nasmvt.data.folders import FileList, MissingSplit, images_in, is_file, some, split_names
from nasmvt.data.formats import register_format
from nasmvt.data.names import Names
from nasmvt.data.objects import ObjectList
from nasmvt.data.segmented import Segmented, meaning_of
from nasmvt.data.spellings import Spellings
from nasmvt.data.types import IGNORE
from nasmvt.data.values import flag, number, shown, whole
from nasmvt.errors import UserError
from nasmvt.text import read_bytes, read_lines

_CLASSES = (
    *("background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow"),
    *("diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor"),
)


@register_format("voc", "detection", "segmentation")
def open_voc(request: Request) -> Dataset:
    """Open VOC's boxes or label maps, by the kind of the task.

    Raises:
        UserError: if a folder, a list or a file is missing, or breaks a rule of the format.
    """
    return VocBoxes(request) if request.kind == "detection" else VocMaps(request)


class VocBoxes(Detected):
    """Boxes from one XML file per image; difficult objects are crowds, which neither count as hits nor as misses.

    The classes are the names in the training split, in alphabetical order. VOC counts pixels from 1, and corners are
    inclusive.
    """

    def __init__(self, request: Request) -> None:
        files = _images(request, "Main")
        annotations, sizes = _read(request, files)

        def train() -> tuple[Annotations, Names]:
            first = _images(request.train, "Main")
            return _read(request, first)[0], first.names

        super().__init__(request, files, Names(path.stem for path in files), sizes, annotations, train)

    def digest(self) -> str:
        """Return a digest over the names and sizes of the images, and the content of the XML files."""
        labels = FileList(self._source, [f"{path.stem}.xml" for path in self._files])
        return text_digest(self._files.digest(), labels.digest(contents=True))


class VocMaps(Segmented):
    """Label maps with VOC's 21 classes, unless a file or the settings name others; 0 is the background, 255 ignored."""

    def __init__(self, request: Request) -> None:
        files = _images(request, "Segmentation")
        folder = request.root / "SegmentationClass"
        maps = FileList(folder, [f"{path.stem}.png" for path in files])
        missing = [str(path) for path in maps if not is_file(path)]
        if missing:
            raise UserError(f"every image of a split needs a label map, but there is no {some(missing)}: add it")
        labels = meaning_of(request, lambda: maps, ignore=(IGNORE,), usual=_CLASSES)
        super().__init__(request, files, maps, labels)


def _images(request: Request, topic: str) -> FileList:
    """Return the images that the list of a split names, or all if the data are split by seed and there is no list."""
    root, folder = request.root, request.root / "JPEGImages"
    if not folder.is_dir():
        raise UserError(f"VOC's images must lie in {folder}, but there is no such folder: set root to the one above it")
    by_stem = {Path(name).stem: name for name in images_in(folder)}
    lists = [root / "ImageSets" / topic / f"{name}.txt" for name in split_names(request.split_name)]
    found = next((path for path in lists if is_file(path)), None)
    if found is None and request.config.split is not None:
        stems: Sequence[str] = sorted(by_stem)
    elif found is None:
        raise MissingSplit(
            f"the split '{request.split_name}' needs a list of its images, but there is no {lists[0]}: add it"
        )
    else:
        stems = [line.strip() for line in read_lines(found)]
    spellings = Spellings(by_stem)
    # VOC's lists of one class say after the name whether the image has an object of it; names may hold spaces.
    meant = {stem: spellings.find(stem) or spellings.find(stem.split()[0]) for stem in stems}
    missing = [stem for stem in stems if meant[stem] is None]
    if missing or not stems:
        raise UserError(f"{found or folder} must name images of {folder}, but {some(missing) or 'names none'}: fix it")
    return FileList(folder, [by_stem[name] for stem in stems if (name := meant[stem]) is not None])


def _read(request: Request, files: FileList) -> tuple[Annotations, np.ndarray]:
    """Return the objects of some images, and the image sizes that the files state."""
    folder = request.root / "Annotations"
    found: list[tuple[int, str, list[float], bool]] = []
    sizes = np.zeros((len(files), 2), dtype=np.int32)
    for row, image in enumerate(files):
        path = folder / f"{image.stem}.xml"
        try:
            tree = ET.fromstring(read_bytes(path))
        except (ET.ParseError, ValueError, LookupError) as error:  # LookupError: unknown encoding
            raise UserError(f"{path} is not an XML file that can be read ({error}): fix or replace it") from None
        sides = [whole(tree.findtext(f"size/{side}") or "") or 0 for side in ("height", "width")]
        sizes[row] = sides if min(sides) > 0 else 0
        found += [(row, *_object(item, path)) for item in tree.iter("object")]
    classes = sorted({name for _, name, _, _ in found})
    places, objects = {name: place for place, name in enumerate(classes)}, ObjectList()
    for row, name, corners, difficult in found:
        objects.add(row, places[name], corners, crowd=difficult)
    return Annotations(source=folder, classes=classes, objects=objects.sorted(len(files))), sizes


def _object(item: ET.Element, path: Path) -> tuple[str, list[float], bool]:
    """Return the name, the corners x0, y0, x1, y1 and the difficulty of an object."""
    name = (item.findtext("name") or "").strip()
    if not name:
        raise UserError(f"{path}: every object needs a name, but one has none: add it")
    given = [item.findtext(f"bndbox/{side}") for side in ("xmin", "ymin", "xmax", "ymax")]
    box = [value for value in map(number, given) if value is not None]
    if len(box) != 4:
        raise UserError(f"{path}: the object {name!r} has the bndbox {shown(given)}, not four numbers: fix it")
    difficult = flag(item.findtext("difficult"))
    if difficult is None:
        raise UserError(f"{path}: 'difficult' of the object {name!r} must be 0 or 1: fix it")
    return name, [box[0] - 1, box[1] - 1, box[2], box[3]], difficult
