"""YOLO: data.yaml, images, and beside each folder `images` a folder `labels` with a text file per image."""

from pathlib import Path, PurePosixPath
from typing import Any

import msgspec
import numpy as np

from nasmvt.data.dataset import Request, text_digest
from nasmvt.data.detected import Annotations, Detected
from nasmvt.data.folders import (
    FileList,
    LeftOut,
    MissingSplit,
    has_image_suffix,
    images_in,
    is_file,
    is_folder,
    some,
    split_names,
)
from nasmvt.data.formats import register_format
from nasmvt.data.names import Names
from nasmvt.data.objects import ObjectList
from nasmvt.data.values import number, shown, whole
from nasmvt.errors import UserError
from nasmvt.text import read_lines, read_text
from nasmvt.yaml_text import load_yaml


@register_format("yolo", "detection")
class Yolo(Detected):
    """Boxes `class x y width height`, or polygons `class x1 y1 x2 y2 ...`, as fractions of the image's sides.

    Labels are the classes' numbers in data.yaml. An image without a label file has no objects. The
    box of a polygon is its bounding box.

    Raises:
        UserError: if a file is missing or breaks a rule of the format, naming the line.
    """

    def __init__(self, request: Request) -> None:
        settings = _read_settings(request.root)
        left_out = LeftOut()
        files = _images(request, settings, left_out)
        annotations = _read(request, settings, files)

        def train() -> tuple[Annotations, Names]:
            first = _images(request.train, settings, LeftOut())
            return _read(request.train, settings, first), first.names

        sizes = np.zeros((len(files), 2), dtype=np.int32)
        super().__init__(request, files, files.names, sizes, annotations, train)
        self.left_out = left_out.names()

    def digest(self) -> str:
        """Return a digest over the names and sizes of the images, and the content of the label files."""
        labels = (_label_name(name) for name in self._files.names)
        present = [name for name in labels if (self._files.root / name).is_file()]
        return text_digest(self._files.digest(), FileList(self._files.root, present).digest(contents=True))


def _read_settings(root: Path) -> dict[str, Any]:
    """Return the content of data.yaml (or the only YAML file with class names), or of classes.txt and usual folders."""
    files = [root / "data.yaml", root / "dataset.yaml", *sorted(root.glob("*.y*ml"))]
    for path in files:
        if not path.is_file():
            continue
        settings = load_yaml(read_text(path), str(path))
        if isinstance(settings, dict) and "names" in settings:
            return {**settings, "names": _class_list(settings["names"], path), "file": path}
    path = root / "classes.txt"
    if path.is_file():
        names = [line.strip() for line in read_lines(path)]
        usual = {key: f"images/{name}" for key in ("train", "val") for name in reversed(split_names(key))}
        found = {key: value if (root / value).is_dir() else "images" for key, value in usual.items()}
        return {**found, "names": _class_list(names, path), "file": path}
    raise UserError(f"the classes must be named in {files[0]} or {path}, but there is neither: add one")


def _class_list(names: Any, path: Path) -> list[str]:
    """Return the class names in the order of their numbers, given as a list or as a mapping from numbers."""
    if isinstance(names, dict):
        numbers = [whole(key) for key in names]
        if sorted(number for number in numbers if number is not None) != list(range(len(names))):
            raise UserError(
                f"{path}: 'names' must number the classes 0, 1, ..., but has {some(list(map(str, names)))}: fix it"
            )
        names = [name for _, name in sorted(zip(numbers, names.values(), strict=True), key=lambda pair: pair[0] or 0)]
    if not isinstance(names, list) or not names or len({str(name) for name in names}) < len(names):
        raise UserError(f"{path}: 'names' must list every class once, but is {shown(names)}: fix it")
    return [str(name) for name in names]


def _images(request: Request, settings: dict[str, Any], left_out: LeftOut) -> FileList:
    """Return the images of a split: those of a folder, of a list in a text file, or of several of these."""
    path = settings["file"]
    key = next((key for key in split_names(request.split_name) if settings.get(key)), None)
    if key is None:
        raise MissingSplit(f"{path} names no images for '{request.split_name}': add the folder of its images")
    entries = settings[key] if isinstance(settings[key], list) else [settings[key]]
    root, names = request.root, list[str]()
    for entry in entries:
        place = _find(root, str(settings.get("path") or ""), str(entry), path)
        if place.suffix == ".txt":
            listed = (line.strip().replace("\\", "/") for line in read_lines(place))
            names += [str(_find(root, str(place.parent), name, place)) for name in listed]
        else:
            names += [str(place / name) for name in images_in(place, left_out)]
    if not names:
        raise UserError(f"{path} names images for '{key}', but {some(list(map(str, entries)))} holds none: fill it")
    return FileList(root, [name.removeprefix(f"{root}/") for name in names])


def _find(root: Path, base: str, entry: str, source: Path) -> Path:
    """Return an existing path that data.yaml means: relative to its `path`, or the root, or (Roboflow) without ../."""
    candidates = [root / base / entry, root / entry, root / entry.removeprefix("../"), Path(entry)]
    for path in candidates:
        if is_folder(path) or (is_file(path) and (path.suffix == ".txt" or has_image_suffix(path.name))):
            return path
    raise UserError(f"{source} names {entry}, but there is no {candidates[0]} or {candidates[1]}: fix it or add it")


def _label_name(image: str) -> str:
    """Return the label file of an image: the last folder `images` becomes `labels`."""
    parts = list(PurePosixPath(image).with_suffix(".txt").parts)
    if "images" in parts[:-1]:
        parts[len(parts) - 1 - parts[::-1].index("images")] = "labels"
    return str(PurePosixPath(*parts))


def _read(request: Request, settings: dict[str, Any], files: FileList) -> Annotations:
    """Return the objects of some images; an image without a label file has none."""
    names, objects, bare = settings["names"], ObjectList(), []
    for row, image in enumerate(files.names):
        path = files.root / _label_name(image)
        if not is_file(path):
            bare.append(image)
            continue
        for i, line in enumerate(read_lines(path), start=1):
            try:
                place, box, segmentation = _parse(line, len(names))
            except ValueError as error:
                raise UserError(f"{path}: line {i} is {shown(line)}, but {error}: fix it") from None
            objects.add(row, place, box, segmentation=segmentation)
    if len(bare) == len(files):
        raise UserError(
            f"the labels of {files[0]} must be in {files.root / _label_name(bare[0])}, but no image of "
            f"'{request.split_name}' has any: add them"
        )
    table = objects.sorted(len(files), relative=True)
    return Annotations(source=settings["file"], classes=names, objects=table)


def _parse(line: str, classes: int) -> tuple[int, tuple[float, float, float, float], bytes]:
    """Return the class, the box (x0, y0, x1, y1) and JSON of the polygon of a line, all as fractions of the sides."""
    words = line.split()
    label = whole(words[0])
    if label is None:
        label = whole(number(words[0]))
    if label is None or not 0 <= label < classes:
        raise ValueError(f"classes are numbered 0 to {classes - 1}")
    values = [value for value in map(number, words[1:]) if value is not None]
    if len(values) < len(words) - 1 or (len(values) != 4 and (len(values) < 6 or len(values) % 2)):
        raise ValueError("the class is followed by x, y, width and height, or by three or more points of a polygon")
    if not all(-1 <= value <= 2 for value in values):
        raise ValueError("numbers are fractions of the image's width and height, 0 to 1")
    if len(values) == 4:
        x, y, width, height = values
        return label, (x - width / 2, y - height / 2, x + width / 2, y + height / 2), b""
    xs, ys = values[::2], values[1::2]
    return label, (min(xs), min(ys), max(xs), max(ys)), msgspec.json.encode([values])
