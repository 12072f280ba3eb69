"""COCO's annotation files: read and checked against the rules of the format, into arrays."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from nasmvt.data.folders import some
from nasmvt.data.masks import Part
from nasmvt.data.names import Blobs, Names
from nasmvt.data.segmentations import has_segmentation
from nasmvt.data.text import decode_text, read_bytes
from nasmvt.data.values import flag, identifier, number, shown, whole
from nasmvt.errors import UserError

_FARTHEST = 1e9
"""What lies farther outside of an image, in pixels, is no farther."""
_NO_SEGMENTATION = msgspec.Raw(b"null")


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
    """Polygons fill most of a file: they are checked, and kept as the text they are until they are drawn."""


class _Content(msgspec.Struct, gc=False):
    images: list[_Image]
    annotations: list[_Annotation]
    categories: list[_Category]


@dataclass(frozen=True, kw_only=True)
class CocoFile:
    """One annotation file: n images with m objects, sorted by their image.

    The objects of image i are those from `starts[i]` up to `starts[i + 1]`.
    """

    path: Path
    categories: Mapping[int, str]
    """Names by category id, in the order of the ids."""
    ids: "np.ndarray | Names"
    """The ids of the images: (n,) int64, or texts."""
    files: Names
    """The names of the image files as the file gives them."""
    sizes: np.ndarray
    """(n, 2) int32: height and width in pixels."""
    starts: np.ndarray
    """(n + 1,) int64."""
    boxes: np.ndarray
    """(m, 4) float32: x0, y0, x1, y1 in pixels; may lie outside of the image, and be empty or turned (x1 < x0)."""
    places: np.ndarray
    """(m,) int32: the place of each object's category among `categories`."""
    crowds: np.ndarray
    """(m,) bool: whether it stands for a group of objects that are not told apart."""
    segmentations: Blobs
    """The JSON text of each object's polygons or run lengths; empty if it has none."""

    def without_mask(self) -> np.ndarray:
        """Return the indices of the objects, crowds aside, that have no segmentation."""
        return np.flatnonzero((self.segmentations.lengths() == 0) & ~self.crowds)

    def image_of(self, item: int) -> int:
        """Return the index of the image of an object."""
        return int(np.searchsorted(self.starts, item, side="right")) - 1

    def objects(self, image: int) -> slice:
        """Return where the objects of an image are in the arrays."""
        return slice(int(self.starts[image]), int(self.starts[image + 1]))

    def clipped(self, image: int, size: tuple[int, int]) -> np.ndarray:
        """Return an image's boxes (n, 4), clipped to `size` (height, width); may be empty (x0 == x1)."""
        boxes = self.boxes[self.objects(image)]
        sides = np.array([size[1], size[0]], dtype=np.float32)
        low = np.clip(boxes[:, :2], 0, sides)
        return np.concatenate([low, np.clip(boxes[:, 2:], low, sides)], axis=1)

    def parts(self, image: int, boxes: np.ndarray) -> list[Part]:
        """Return the masks of an image's objects for `ObjectMasks`; where there is none, the box stands for it."""
        texts = self.segmentations[self.objects(image)]
        return [
            msgspec.json.decode(text) if text else tuple(box) for text, box in zip(texts, boxes.tolist(), strict=True)
        ]


def read_annotations(path: Path) -> CocoFile:
    """Read an annotation file.

    Numbers and flags may be given as text; `iscrowd` may be missing.

    Raises:
        UserError: if it is no JSON, lacks a key, or contradicts itself, naming the file, the place and the value.
    """
    content = _decode(read_bytes(path), path)
    categories = _categories(content.categories, path)
    ids, sizes = _images(content.images, path)
    rows = {identity: row for row, identity in enumerate(ids)}
    places = {identity: place for place, identity in enumerate(categories)}
    count = len(content.annotations)
    owners, labels = np.zeros(count, dtype=np.int64), np.zeros(count, dtype=np.int32)
    boxes, crowds = np.zeros((count, 4), dtype=np.float32), np.zeros(count, dtype=bool)
    texts: list[Any] = []
    for i, item in enumerate(content.annotations):
        try:
            row = owners[i] = _find(item.image_id, identifier(item.image_id), rows, "image_id", "images")
            labels[i] = _find(item.category_id, whole(item.category_id), places, "category_id", "categories")
            boxes[i] = _box(item.bbox)
            crowds[i] = _crowd(item.iscrowd)
            texts.append(item.segmentation if has_segmentation(item.segmentation, sizes[row]) else b"")
        except ValueError as error:
            which = f"annotation {item.id}" if item.id is not None else f"annotation number {i + 1}"
            raise UserError(f"{path}: the {which} has {error}") from None
    order = np.argsort(owners, kind="stable")
    return CocoFile(
        path=path,
        categories=categories,
        ids=_compact(ids),
        files=Names(image.file_name for image in content.images),
        sizes=np.array(sizes, dtype=np.int32).reshape(-1, 2),
        starts=np.searchsorted(owners[order], np.arange(len(ids) + 1)),
        boxes=boxes[order],
        places=labels[order],
        crowds=crowds[order],
        segmentations=Blobs(texts[i] for i in order.tolist()),
    )


def _decode(content: bytes, path: Path) -> _Content:
    """Decode the bytes of a file; what is no strict JSON in UTF-8 goes through Python's more lenient reader."""
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
    """Keep a number that is too large as the text that it is, to be named in an error."""
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
                f"{path}: a category id stands for one name, but {identity} is {names[identity]!r} and "
                f"{record.name!r}: renumber the categories"
            )
    if not names:
        raise UserError(f"{path} names no categories: add at least one under 'categories'")
    first: dict[str, int] = {}
    for identity, name in names.items():
        if first.setdefault(name, identity) != identity:
            raise UserError(
                f"{path}: a category's name is its own, but {first[name]} and {identity} are both {name!r}: "
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
            raise UserError(f"{path}: every image id stands once, but {identity!r} stands twice: renumber the images")
        ids[identity] = None
        if not isinstance(record.file_name, str) or not record.file_name.strip("/\\ ") or "\0" in record.file_name:
            raise UserError(
                f"{path}: the image {identity!r} has the file_name {shown(record.file_name)}, no name of a file: fix it"
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


def _compact(ids: list[int | str]) -> "np.ndarray | Names":
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
    corners = (x, y, x + width, y + height)
    x0, y0, x1, y1 = (min(max(value, -_FARTHEST), _FARTHEST) for value in corners)
    return x0, y0, x1, y1


def _crowd(value: Any) -> bool:
    crowd = flag(value)
    if crowd is None:
        raise ValueError(f"the iscrowd {shown(value)}, which must be 0 or 1: fix it")
    return crowd
