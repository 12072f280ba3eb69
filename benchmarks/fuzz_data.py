"""Tiny valid experiments of every format, for `fuzz.py`."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import yaml
from PIL import Image

SIZE = (32, 40)
"""Height and width of the images."""
SPLITS = {"train": 6, "val": 3}
_XML = """<annotation><size><width>40</width><height>32</height></size>
<object><name>{name}</name><difficult>0</difficult>
<bndbox><xmin>4</xmin><ymin>5</ymin><xmax>20</xmax><ymax>17</ymax></bndbox></object>
</annotation>"""


def write(format: str, folder: Path) -> None:
    """Write `data` in a format and `mine.yaml`, an experiment that takes a second, into a folder."""
    kind, build = FORMATS[format]
    build(folder / "data")
    data = {"format": format.partition("-")[0], "root": "data", "image_size": 32, "search_fraction": 0.34}
    training = {"steps": 1, "warmup_steps": 0, "recalibration_images": 2, "evaluation_images": 2}
    search = {"population": 2, "parents": 1, "generations": 1, "mutants": 1, "crossovers": 1, "workers": 0}
    experiment = {
        "space": "vit_mvt_nano",
        "tasks": {"task": {"kind": kind, "batch_size": 2, "data": data}},
        "training": training,
        "retrain": training,
        "search": {**search, "recalibration_images": 2},
    }
    (folder / "mine.yaml").write_text(yaml.safe_dump(experiment, sort_keys=False))


def _image(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(len(str(path))).integers(0, 256, (*SIZE, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)


def _labels(path: Path, first: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    labels = np.full(SIZE, first, dtype=np.uint8)
    labels[8:20, 10:30] = first + 1
    Image.fromarray(labels).save(path)


def _text(path: Path, content: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)


def _imagefolder(root: Path) -> None:
    for split, count in SPLITS.items():
        for number in range(count):
            suffix = ("jpg", "png", "webp")[number % 3]
            _image(root / split / ("cat", "dog")[number % 2] / f"{number}.{suffix}")


def _coco(root: Path) -> None:
    outlines = ([[4, 5, 20, 5, 20, 17, 4, 17]], {"size": [32, 40], "counts": [100, 50, 1130]})
    for split, count in SPLITS.items():
        images = [{"id": n, "file_name": f"{n}.jpg", "height": 32, "width": 40} for n in range(count)]
        objects = [
            {
                "id": n,
                "image_id": n,
                "category_id": 1 + n % 2,
                "bbox": [4, 5, 16, 12],
                "iscrowd": 0,
                "segmentation": outlines[n % 2],
            }
            for n in range(count)
        ]
        categories = [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}]
        content = {"images": images, "annotations": objects, "categories": categories}
        _text(root / f"annotations/instances_{split}.json", json.dumps(content))
        for image in images:
            _image(root / "images" / split / str(image["file_name"]))


def _yolo(root: Path) -> None:
    _text(root / "data.yaml", "train: images/train\nval: images/val\nnames: [cat, dog]\n")
    for split, count in SPLITS.items():
        for number in range(count):
            _image(root / f"images/{split}/{number}.jpg")
            _text(root / f"labels/{split}/{number}.txt", f"{number % 2} 0.5 0.5 0.2 0.4\n")


def _voc(root: Path, topic: str) -> None:
    for split, count in SPLITS.items():
        names = [f"{split}{number}" for number in range(count)]
        _text(root / f"ImageSets/{topic}/{split}.txt", "\n".join(names))
        for number, name in enumerate(names):
            _image(root / f"JPEGImages/{name}.jpg")
            if topic == "Main":
                _text(root / f"Annotations/{name}.xml", _XML.format(name=("cat", "dog")[number % 2]))
            else:
                _labels(root / f"SegmentationClass/{name}.png", 0)


def _ade20k(root: Path) -> None:
    _text(root / "classes.txt", "sky\nroad\n")
    for split, count in SPLITS.items():
        for number in range(count):
            _image(root / f"images/{split}/{number}.jpg")
            _labels(root / f"annotations/{split}/{number}.png", 1)


def _cityscapes(root: Path) -> None:
    for split, count in SPLITS.items():
        for number in range(count):
            _image(root / f"leftImg8bit/{split}/ulm/{number}_leftImg8bit.png")
            _labels(root / f"gtFine/{split}/ulm/{number}_gtFine_labelIds.png", 7)


FORMATS: dict[str, tuple[str, Callable[[Path], None]]] = {
    "imagefolder": ("classification", _imagefolder),
    "coco": ("detection", _coco),
    "yolo": ("detection", _yolo),
    "voc-boxes": ("detection", lambda root: _voc(root, "Main")),
    "voc-maps": ("segmentation", lambda root: _voc(root, "Segmentation")),
    "ade20k": ("segmentation", _ade20k),
    "cityscapes": ("segmentation", _cityscapes),
}
"""The kind of task of each format, and what writes its data."""
