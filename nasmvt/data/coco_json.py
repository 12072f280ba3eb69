"""COCO's annotation files: found, read, and checked against the rules of the format."""

import json
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nasmvt.data.folders import some, split_names
from nasmvt.data.masks import fault, is_segmentation
from nasmvt.errors import UserError


@dataclass(frozen=True, kw_only=True)
class CocoObject:
    """One annotation."""

    category: int
    """The category's id in the file."""
    box: tuple[float, float, float, float]
    """x0, y0, x1, y1 in pixels, clipped to the image; may be empty (x0 == x1)."""
    crowd: bool
    """Whether it stands for a group of objects that are not told apart."""
    segmentation: Any
    """Polygons or run lengths, or None."""


@dataclass(frozen=True, kw_only=True)
class CocoPicture:
    """One image and its annotations."""

    id: int | str
    file_name: str
    size: tuple[int, int]
    """Height and width in pixels."""
    objects: list[CocoObject] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True)
class CocoFile:
    """One annotation file."""

    path: Path
    categories: dict[int, str]
    """Names by category id, in the order of the ids."""
    pictures: list[CocoPicture]

    def has_objects(self) -> bool:
        """Return whether there is any object, crowds aside."""
        return any(not item.crowd for picture in self.pictures for item in picture.objects)

    def first_without_mask(self) -> CocoPicture | None:
        """Return an image with an object (crowds aside) that has no segmentation, if there is one."""
        for picture in self.pictures:
            if any(item.segmentation is None and not item.crowd for item in picture.objects):
                return picture
        return None


def find_annotations(root: Path, split: str) -> Path:
    """Return the annotation file of a split: instances_<split>.json, or the only instances_<split>*.json.

    Raises:
        UserError: if there is none, or several that fit.
    """
    folder = root / "annotations"
    exact = [folder / f"instances_{name}.json" for name in split_names(split)]
    for path in exact:
        if path.is_file():
            return path
    similar = sorted(folder.glob(f"instances_{split}*.json"))
    if len(similar) == 1:
        return similar[0]
    if similar:
        example = similar[0].stem.removeprefix("instances_")
        raise UserError(
            f"the split '{split}' must have one annotation file, but {folder} holds "
            f"{some([path.name for path in similar])}: set train_split and val_split to full names, such as "
            f"'{example}'"
        )
    raise UserError(f"there is no annotation file {exact[0]}: create it or set train_split and val_split")


def read_annotations(path: Path) -> CocoFile:
    """Read an annotation file.

    Raises:
        UserError: if it is no JSON, lacks a key, or contradicts itself, naming the file.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise UserError(f"{path} is not a JSON file that can be read ({error}): fix or replace it") from None
    categories = {
        _get(record, "id", "a category", path, int): str(_get(record, "name", "a category", path))
        for record in _get(content, "categories", "the file", path, list)
    }
    if not categories:
        raise UserError(f"{path} names no categories: add at least one under 'categories'")
    pictures: dict[int | str, CocoPicture] = {}
    for record in _get(content, "images", "the file", path, list):
        picture = _picture(record, path)
        if picture.id in pictures:
            raise UserError(f"{path}: every image id stands once, but {picture.id} stands twice: renumber the images")
        pictures[picture.id] = picture
    for record in _get(content, "annotations", "the file", path, list):
        image_id = _get(record, "image_id", "an annotation", path, (int, str))
        if image_id not in pictures:
            raise UserError(
                f"{path}: the annotation {record.get('id')} is of the image {image_id!r}, which is not "
                f"listed under 'images': add the image or remove the annotation"
            )
        owner = pictures[image_id]
        owner.objects.append(_object(record, owner.size, categories, path))
    return CocoFile(path=path, categories=dict(sorted(categories.items())), pictures=list(pictures.values()))


def _picture(record: Any, path: Path) -> CocoPicture:
    identity = _get(record, "id", "an image", path, (int, str))
    what = f"the image {identity!r}"
    size = (_get(record, "height", what, path, int), _get(record, "width", what, path, int))
    return CocoPicture(id=identity, file_name=_get(record, "file_name", what, path, str), size=size)


def _object(record: Any, size: tuple[int, int], categories: dict[int, str], path: Path) -> CocoObject:
    what = f"the annotation {record.get('id')}"
    category = _get(record, "category_id", what, path, int)
    if category not in categories:
        raise UserError(
            f"{path}: {what} has the category id {category!r}, but the categories are "
            f"{some([str(known) for known in categories], 10)}: fix the id or add the category"
        )
    box = _get(record, "bbox", what, path, list)
    if len(box) != 4 or not all(isinstance(value, (int, float)) and math.isfinite(value) for value in box):
        raise UserError(f"{path}: the bbox of {what} must be four numbers x, y, width, height, but is {box}: fix it")
    x, y, width, height = map(float, box)
    x0, y0 = min(max(x, 0.0), size[1]), min(max(y, 0.0), size[0])
    x1, y1 = min(max(x + width, x0), size[1]), min(max(y + height, y0), size[0])
    segmentation = record.get("segmentation")
    if not is_segmentation(segmentation):
        segmentation = None
    elif wrong := fault(segmentation, size):
        raise UserError(f"{path}: {what} has {wrong}: fix or remove its segmentation")
    crowd = bool(record.get("iscrowd", 0))
    return CocoObject(category=category, box=(x0, y0, x1, y1), crowd=crowd, segmentation=segmentation)


def _get(record: Any, key: str, what: str, path: Path, kind: type | tuple[type, ...] = object) -> Any:
    if not isinstance(record, dict) or key not in record:
        raise UserError(f"{path}: {what} has no '{key}', which COCO's format asks for: add it")
    value = record[key]
    if not isinstance(value, kind):
        expected = " or ".join(item.__name__ for item in (kind if isinstance(kind, tuple) else (kind,)))
        raise UserError(f"{path}: '{key}' of {what} must be of type {expected}, but is {str(value)[:60]!r}: fix it")
    return value
