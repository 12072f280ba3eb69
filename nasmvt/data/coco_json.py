"""COCO's annotation files: read and checked against the rules of the format, into arrays."""

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from nasmvt.data.detected import Annotations
from nasmvt.data.folders import some
from nasmvt.data.names import Names
from nasmvt.data.objects import ObjectList
from nasmvt.data.segmentations import has_segmentation
from nasmvt.data.values import flag, identifier, number, shown, whole
from nasmvt.errors import UserError
from nasmvt.text import decode_text, read_bytes

_NO_SEGMENTATION = msgspec.Raw(b"null")
_ONE_POLYGON = re.compile(rb"\[\s*[-0-9]")
"""A polygon that is not in a list of polygons, as VGG Image Annotator writes it."""


class _Category(msgspec.Struct, gc=False):
    id: Any = None
    name: Any = None


class _Image(msgspec.Struct, gc=False):
    id: Any = None
    file_name: Any = None
    height: Any = None
    width: Any = None


class _Annotation(msgspec.Struct, gc=False):
    id: Any = None
    image_id: Any = None
    category_id: Any = None
    bbox: Any = None
    iscrowd: Any = None
    segmentation: msgspec.Raw = _NO_SEGMENTATION
    """Polygons make up most of a file: they are checked, and kept as text until they are drawn."""


class _Content(msgspec.Struct, gc=False):
    images: list[_Image]
    annotations: list[_Annotation]
    categories: list[_Category]


@dataclass(frozen=True, kw_only=True)
class CocoFile:
    """One annotation file of n images."""

    ids: np.ndarray | Names
    """The ids of the images: (n,) int64, or texts."""
    files: Names
    """The names of the image files as the file gives them."""
    sizes: np.ndarray
    """(n, 2) int32: height and width in pixels."""
    annotations: Annotations
    """The objects; classes are the categories in the order of their ids."""


def read_annotations(path: Path) -> CocoFile:
    """Read an annotation file.

    Numbers and flags may be given as text; `iscrowd` may be missing.

    Raises:
        UserError: if it is not JSON, lacks a key, or contradicts itself, naming the file, the place and the value.
    """
    content = _decode(read_bytes(path), path)
    categories = _categories(content.categories, path)
    ids, sizes = _images(content.images, path)
    rows = {identity: row for row, identity in enumerate(ids)}
    places = {identity: place for place, identity in enumerate(categories)}
    objects = ObjectList()
    for i, item in enumerate(content.annotations):
        try:
            row = _find(item.image_id, identifier(item.image_id), rows, "image_id", "images")
            place = _find(item.category_id, whole(item.category_id), places, "category_id", "categories")
            text: bytes | msgspec.Raw = item.segmentation
            if _ONE_POLYGON.match(text):
                text = b"[%b]" % bytes(text)
            text = text if has_segmentation(text, sizes[row]) else b""
            objects.add(row, place, _box(item.bbox), crowd=_crowd(item.iscrowd), segmentation=text)
        except ValueError as error:
            which = f"annotation {item.id}" if item.id is not None else f"annotation number {i + 1}"
            raise UserError(f"{path}: the {which} has {error}") from None
    return CocoFile(
        ids=_compact(ids),
        files=Names(image.file_name for image in content.images),
        sizes=np.array(sizes, dtype=np.int32).reshape(-1, 2),
        annotations=Annotations(source=path, classes=list(categories.values()), objects=objects.sorted(len(ids))),
    )


def _decode(content: bytes, path: Path) -> _Content:
    """Decode the bytes of a file; anything that is not strict JSON in UTF-8 goes to Python's more lenient parser."""
    try:
        return msgspec.json.decode(content, type=_Content)
    except msgspec.ValidationError as error:
        raise UserError(f"{path} is not in COCO's format ({error}): fix it") from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        pass
    try:
        lenient = json.loads(decode_text(content, path), parse_constant=str, parse_float=_finite)
        return msgspec.json.decode(msgspec.json.encode(lenient), type=_Content)
    except msgspec.ValidationError as error:
        raise UserError(f"{path} is not in COCO's format ({error}): fix it") from None
    except (ValueError, RecursionError, UnicodeError) as error:  # also what msgspec can't encode
        raise UserError(f"{path} is not a JSON file that can be read ({error}): fix or replace it") from None


def _finite(text: str) -> float | str:
    """Keep a number that is too large as text, so that an error can name it."""
    value = float(text)
    return value if math.isfinite(value) else text


def _categories(records: list[_Category], path: Path) -> dict[int, str]:
    names: dict[int, str] = {}
    for i, record in enumerate(records):
        identity = whole(record.id)
        if identity is None:
            raise UserError(
                f"{path}: category number {i + 1} has the id {shown(record.id)}, not a whole number: fix it"
            )
        if not isinstance(record.name, str) or not record.name.strip():
            raise UserError(f"{path}: the category {identity} must have a name, but has {shown(record.name)}: add it")
        if names.setdefault(identity, record.name) != record.name:
            raise UserError(
                f"{path}: a category id must have one name, but {identity} is {names[identity]!r} and "
                f"{record.name!r}: renumber the categories"
            )
    if not names:
        raise UserError(f"{path} names no categories: add at least one under 'categories'")
    first: dict[str, int] = {}
    for identity, name in names.items():
        if first.setdefault(name, identity) != identity:
            raise UserError(
                f"{path}: category names must be unique, but {first[name]} and {identity} are both {name!r}: "
                f"merge or rename them"
            )
    return dict(sorted(names.items()))


def _images(records: list[_Image], path: Path) -> tuple[list[int | str], list[tuple[int, int]]]:
    ids: dict[int | str, None] = {}
    sizes = []
    for i, record in enumerate(records):
        identity = identifier(record.id)
        if identity is None:
            raise UserError(
                f"{path}: image number {i + 1} has the id {shown(record.id)}, neither number nor text: fix it"
            )
        if identity in ids:
            raise UserError(
                f"{path}: every image id must be unique, but {identity!r} occurs twice: renumber the images"
            )
        ids[identity] = None
        if not isinstance(record.file_name, str) or not record.file_name.strip("/\\ ") or "\0" in record.file_name:
            raise UserError(
                f"{path}: the image {identity!r} has the file_name {shown(record.file_name)}, which is not a file "
                f"name: fix it"
            )
        height, width = whole(record.height), whole(record.width)
        for key, side, given in (("height", height, record.height), ("width", width, record.width)):
            if side is None or not 0 < side < 2**31:
                raise UserError(
                    f"{path}: the image {identity!r} has the {key} {shown(given)}, which must be a number of pixels: "
                    f"fix it"
                )
        sizes.append((height or 0, width or 0))
    return list(ids), sizes


def _compact(ids: list[int | str]) -> np.ndarray | Names:
    if all(isinstance(identity, int) and abs(identity) < 2**63 for identity in ids):
        return np.array(ids, dtype=np.int64)
    return Names(map(str, ids))


def _find(given: Any, key: Any, known: Mapping[Any, int], field: str, table: str) -> int:
    if key is None or key not in known:
        names = some([str(name) for name in known], 10)
        raise ValueError(f"the {field} {shown(given)}, but '{table}' lists {names}: fix the id or add what it names")
    return known[key]


def _box(value: Any) -> tuple[float, float, float, float]:
    """Return x0, y0, x1, y1 of a box x, y, width, height."""
    numbers = [number(item) for item in value] if isinstance(value, list) else []
    finite = [item for item in numbers if item is not None]
    if len(numbers) != 4 or len(finite) != 4:
        raise ValueError(f"the bbox {shown(value)}, which must be four numbers x, y, width, height: fix it")
    x, y, width, height = finite
    return x, y, x + width, y + height


def _crowd(value: Any) -> bool:
    crowd = flag(value)
    if crowd is None:
        raise ValueError(f"the iscrowd {shown(value)}, which must be 0 or 1: fix it")
    return crowd
