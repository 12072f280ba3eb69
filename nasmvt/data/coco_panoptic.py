"""Panoptic segmentation in the layout of COCO: images, one JSON file per split, and a PNG of ids per image."""

from collections import Counter
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from nasmvt.data.coco_files import find_images, locate
from nasmvt.data.dataset import Dataset, Request, class_names, text_digest
from nasmvt.data.folders import FileList, MissingSplit, is_file, is_folder, some, split_names
from nasmvt.data.formats import register_format
from nasmvt.data.orientation import labels_orientation, turn_array, turn_image
from nasmvt.data.panoptic import VOID, Segment, Segments
from nasmvt.data.pictures import read_stored
from nasmvt.data.types import DataInfo, Sample
from nasmvt.data.values import flag, whole
from nasmvt.errors import UserError


@register_format("coco_panoptic", "panoptic")
class CocoPanoptic(Dataset):
    """`annotations/panoptic_<split>.json`, the PNGs in a folder of the same name beside it or in the root.

    Classes are the categories that are things by rising id, then those that are stuff. An id of a PNG is red + 256
    green + 65536 blue; 0 belongs to no segment.

    Raises:
        UserError: if a file is missing, or the annotations break a rule of the format.
    """

    def __init__(self, request: Request) -> None:
        root, name = request.root, request.split_name
        self._source = _annotations(root, name)
        self._maps = _maps(root, self._source)
        content = _read(self._source)
        self._categories, self.info = _categories(content, self._source, request)
        images = {item["id"]: item for item in _items(content, "images", ("id", "file_name"), self._source)}
        records = _items(content, "annotations", ("image_id", "file_name", "segments_info"), self._source)
        unknown = [str(record["image_id"]) for record in records if record["image_id"] not in images]
        if not records or unknown:
            raise UserError(
                f"{self._source} must annotate the images that it lists, but annotates "
                f"{'none' if not records else f'the unknown {some(unknown)}'}: fix it"
            )
        folder = find_images(root, name, self._source)
        names = [str(images[record["image_id"]]["file_name"]) for record in records]
        self._images = locate(names, folder, root, self._source)
        self._ids = [record["image_id"] for record in records]
        self._pngs = [str(record["file_name"]) for record in records]
        self._segments = [self._parse(record) for record in records]
        self._annotated = request.config.orientation

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self._images)

    def __getitem__(self, index: int) -> Sample:
        """Return an upright image and its segments.

        Raises:
            UserError: if the PNG is missing, of another size, or holds ids that the annotations lack.
        """
        path = self._maps / self._pngs[index]
        if not is_file(path):
            raise UserError(
                f"every image of {self._source} needs a PNG of its segments, but there is no {path}: add it"
            )
        image, orientation = read_stored(self._images[index])
        red, green, blue = np.asarray(read_stored(path)[0]).astype(np.int32).transpose(2, 0, 1)
        ids = red + (green << 8) + (blue << 16)
        stored = (image.height, image.width)
        try:
            turn = labels_orientation(stored, orientation, (ids.shape[0], ids.shape[1]), self._annotated)
        except ValueError as error:
            raise UserError(
                f"an image and its PNG of segments must have one size, but {self._images[index]} and {path} have not "
                f"({error}): make them equal"
            ) from None
        known = {segment.id for segment in self._segments[index]}
        strange = set(np.unique(ids).tolist()) - known - {VOID}
        if strange:
            raise UserError(
                f"{path} holds the id {some([str(number) for number in sorted(strange)])}, which {self._source} "
                f"does not list for it: add the segment, or write 0 for pixels of none"
            )
        target = Segments.of(turn_array(ids, turn), self._segments[index])
        return Sample(id=self._ids[index], image=turn_image(image, orientation), target=target)

    def occupied(self, indices: np.ndarray) -> np.ndarray:
        """Return which of some images, bool, hold a thing that is no crowd."""
        segments = (self._segments[index] for index in indices)
        return np.array([any(s.thing and not s.crowd and not s.flat for s in held) for held in segments], dtype=bool)

    def digest(self) -> str:
        """Return a digest over the names and sizes of the images, and the content of the annotation file."""
        annotations = FileList(self._source.parent, [self._source.name])
        return text_digest(self._images.digest(), annotations.digest(contents=True))

    def _parse(self, record: dict[str, Any]) -> tuple[Segment, ...]:
        segments, listed = [], record["segments_info"]
        if not isinstance(listed, list) or not all(isinstance(item, dict) for item in listed):
            raise UserError(
                f"{self._source}: 'segments_info' of {record['file_name']} must be a list of objects: fix it"
            )
        for item in listed:
            number, category = whole(item.get("id")), whole(item.get("category_id"))
            box, crowd = item.get("bbox", (0, 0, 1, 1)), flag(item.get("iscrowd"))
            if not isinstance(box, (list, tuple)) or len(box) != 4 or not all(isinstance(v, (int, float)) for v in box):
                raise UserError(
                    f"{self._source}: the bbox of a segment is four numbers, but one of {record['file_name']} has "
                    f"{box!r}: fix it"
                )
            if number is None or number <= VOID or category not in self._categories or crowd is None:
                raise UserError(
                    f"{self._source}: a segment has an id above 0 and a category of the list, but one of "
                    f"{record['file_name']} has the id {item.get('id')!r} and the category "
                    f"{item.get('category_id')!r}: fix it"
                )
            label = self._categories[category]
            area = whole(item.get("area", 0)) or 0
            segments.append(
                Segment(
                    id=number,
                    label=label,
                    thing=label < self.info.things,
                    area=area,
                    crowd=crowd,
                    flat=area <= 0 or min(box[2:]) < 1,
                )
            )
        repeated = [str(number) for number, count in Counter(segment.id for segment in segments).items() if count > 1]
        if repeated:
            raise UserError(
                f"{self._source}: the segments of an image have ids of their own, but {record['file_name']} has "
                f"{some(repeated)} twice: fix it"
            )
        return tuple(segments)


def _annotations(root: Path, split: str) -> Path:
    paths = [root / "annotations" / f"panoptic_{name}.json" for name in split_names(split)]
    for path in paths:
        if is_file(path):
            return path
    raise MissingSplit(f"there is no annotation file {paths[0]}: create it or set train_split and val_split")


def _maps(root: Path, source: Path) -> Path:
    folders = (source.parent / source.stem, root / source.stem)
    for folder in folders:
        if is_folder(folder):
            return folder
    raise UserError(
        f"the PNGs of {source} must lie in {folders[0]} or {folders[1]}, but there is neither: move them there"
    )


def _read(path: Path) -> dict[str, Any]:
    try:
        content = msgspec.json.decode(path.read_bytes())
    except (OSError, ValueError) as error:
        raise UserError(f"{path} must be a JSON file, but can't be read ({error}): fix it") from None
    if not isinstance(content, dict):
        raise UserError(f"{path} must hold COCO's panoptic annotations, but is no JSON object: fix it")
    return content


def _items(content: dict[str, Any], key: str, needed: tuple[str, ...], path: Path) -> list[dict[str, Any]]:
    items = content.get(key)
    if not isinstance(items, list) or not all(isinstance(item, dict) and item.keys() >= set(needed) for item in items):
        raise UserError(f"{path} must hold a list '{key}' of objects with {some(list(needed))}, but does not: fix it")
    return items


def _categories(content: dict[str, Any], path: Path, request: Request) -> tuple[dict[int, int], DataInfo]:
    """Return the label of every category id, and what a network has to know."""
    found: dict[int, tuple[str, bool]] = {}
    for item in _items(content, "categories", ("id", "name", "isthing"), path):
        number, thing = whole(item["id"]), flag(item["isthing"])
        if number is None or thing is None:
            raise UserError(f"{path}: a category has an id and isthing of 0 or 1, but {item['name']!r} has not: fix it")
        if number in found or any(item["name"] == name for name, _ in found.values()):
            kinds = {other for key, (name, other) in found.items() if key == number or name == item["name"]}
            both = "both thing and stuff" if kinds != {thing} else "there twice"
            raise UserError(f"{path}: a category is listed once, but {item['name']!r} ({number}) is {both}: fix it")
        found[number] = (str(item["name"]), thing)
    order = [number for wanted in (True, False) for number in sorted(found) if found[number][1] is wanted]
    things = sum(thing for _, thing in found.values())
    if not 0 < things < len(found):
        raise UserError(
            f"{path} must list categories of things and of stuff, but lists {things} and {len(found) - things}: add "
            "some, or make it a task of segmentation or detection"
        )
    info = DataInfo(
        kind="panoptic",
        classes=class_names(request.config, [found[number][0] for number in order]),
        has_masks=True,
        things=things,
        category_ids=tuple(order),
    )
    return {number: label for label, number in enumerate(order)}, info
