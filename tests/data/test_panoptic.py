"""Panoptic targets and COCO's format: read, moved, refused in a sentence; the built-in data have them."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from nasmvt.config import parse
from nasmvt.data import IGNORE, DataConfig, Dataset, EvalSet, TrainLoader, open_dataset
from nasmvt.data.panoptic import Segments
from nasmvt.errors import UserError

CATEGORIES = [
    {"id": 7, "name": "grass", "isthing": 0},
    {"id": 2, "name": "cat", "isthing": 1},
    {"id": 5, "name": "dog", "isthing": 1},
    {"id": 3, "name": "sky", "isthing": 0},
]


def write(root: Path, **changes: Any) -> Path:
    """Write a data set of one image of 12 x 10 pixels: grass below, a cat, a crowd of dogs, a pixel of none."""
    ids = np.full((10, 12), 300, dtype=np.int64)
    ids[:4] = 70_000
    ids[2:6, 1:5] = 9
    ids[6:9, 6:12] = 11
    ids[9, 0] = 0
    segments = [
        {"id": 300, "category_id": 7, "area": 61, "bbox": [0, 4, 12, 6], "iscrowd": 0},
        {"id": 70_000, "category_id": 3, "area": 40, "bbox": [0, 0, 12, 4], "iscrowd": 0},
        {"id": 9, "category_id": 2, "area": 16, "bbox": [1, 2, 4, 4], "iscrowd": 0},
        {"id": 11, "category_id": 5, "area": 18, "bbox": [6, 6, 6, 3], "iscrowd": 1},
    ]
    for split in ("train", "val"):
        folder = root / "annotations" / f"panoptic_{split}"
        folder.mkdir(parents=True)
        (root / split).mkdir()
        Image.new("RGB", (12, 10)).save(root / split / "1.png")
        drawn = np.stack((ids, ids >> 8, ids >> 16), axis=-1).astype(np.uint8)
        Image.fromarray(drawn).save(folder / "1.png")
        content = {
            "images": [{"id": 1, "file_name": "1.png", "height": 10, "width": 12}],
            "categories": CATEGORIES,
            "annotations": [{"image_id": 1, "file_name": "1.png", "segments_info": segments}],
            **changes,
        }
        folder.with_suffix(".json").write_text(json.dumps(content))
    return root


def opened(root: Path) -> Dataset:
    config = parse(DataConfig, {"format": "coco_panoptic", "root": root, "image_size": 24}, "x")
    return open_dataset(config, "panoptic", "train", 0)


def test_things_come_first_and_segments_are_read(tmp_path: Path) -> None:
    dataset = opened(write(tmp_path))
    assert dataset.info.classes == ("cat", "dog", "sky", "grass")
    assert (dataset.info.things, dataset.info.category_ids) == (2, (2, 5, 3, 7))
    target = dataset[0].target
    assert [(s.id, s.label, s.thing, s.area, s.crowd) for s in target.segments] == [
        (300, 3, False, 61, False),
        (70_000, 2, False, 40, False),
        (9, 0, True, 16, False),
        (11, 1, True, 18, True),
    ]
    assert (target.ids() == 70_000).sum() == 12 * 4 - 8


def test_a_training_batch_has_objects_and_classes(tmp_path: Path) -> None:
    """Twice as large: the cat is an object, the crowd of dogs has a class only, and padding counts for nothing."""
    dataset = opened(write(tmp_path))
    config = parse(DataConfig, {"image_size": 24, "augmentation": {"hflip": 0, "scale": [1, 1]}}, "x")
    (target,) = TrainLoader(dataset, [0], config, 1, 0).batch(0).targets
    assert target["labels"].tolist() == [0]
    assert target["boxes"].tolist() == [[2, 4, 10, 12]]
    assert target["masks"].sum() == 4 * 16
    semantic = target["semantic"]
    assert (semantic.shape, semantic.dtype) == ((24, 24), torch.uint8)
    counts = torch.bincount(semantic.flatten().long(), minlength=256)
    assert counts[[0, 1, 2, 3]].tolist() == [64, 72, 160, 4 * (120 - 16 - 18 - 40 - 1)]
    assert counts[IGNORE] == 4 + 24 * 4
    (batch,) = EvalSet(dataset, [0], config, 1)
    assert isinstance(batch.targets[0], Segments)
    assert batch.targets[0].size == (10, 12)


def test_the_built_in_data_have_things_and_stuff() -> None:
    dataset = open_dataset(DataConfig(image_size=(48, 64)), "panoptic", "train", 0)
    assert dataset.info.classes[-2:] == ("plain", "stripes")
    sample = dataset[2]
    ids = sample.target.ids()
    assert {s.id: s.area for s in sample.target.segments} == {
        int(i): int(n) for i, n in zip(*ids.unique(return_counts=True), strict=True)
    }
    assert sum(not s.thing for s in sample.target.segments) == 2


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"categories": [*CATEGORIES, {"id": 9, "name": "cat", "isthing": 0}]}, "'cat' .9. is both thing and stuff"),
        ({"categories": [*CATEGORIES, {"id": 2, "name": "cow", "isthing": 1}]}, "'cow' .2. is there twice"),
        ({"categories": CATEGORIES[1:3]}, "must list categories of things and of stuff, but lists 2 and 0"),
        ({"annotations": []}, "must annotate the images that it lists, but annotates none"),
        ({"annotations": [{"image_id": 8, "file_name": "1.png", "segments_info": []}]}, "annotates the unknown 8"),
        (
            {"annotations": [{"image_id": 1, "file_name": "1.png", "segments_info": [{"id": 1, "category_id": 4}]}]},
            "a segment has an id above 0 and a category of the list",
        ),
        (
            {"annotations": [{"image_id": 1, "file_name": "1.png", "segments_info": [{"id": 1, "bbox": [1]}]}]},
            r"the bbox of a segment is four numbers, but one of 1.png has \[1\]",
        ),
        (
            {"annotations": [{"image_id": 1, "file_name": "1.png", "segments_info": [3]}]},
            "'segments_info' of 1.png must be a list of objects",
        ),
    ],
)
def test_annotations_that_contradict_themselves_get_a_sentence(
    tmp_path: Path, changes: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(UserError, match=sentence):
        opened(write(tmp_path, **changes))


def test_a_png_with_ids_that_the_json_lacks_gets_a_sentence(tmp_path: Path) -> None:
    dataset = opened(write(tmp_path, annotations=[{"image_id": 1, "file_name": "1.png", "segments_info": []}]))
    with pytest.raises(UserError, match=r"holds the id 9, 11, 300"):
        _ = dataset[0]
    (tmp_path / "annotations" / "panoptic_train" / "1.png").unlink()
    with pytest.raises(UserError, match="needs a PNG of"):
        _ = dataset[0]


def test_images_without_things_are_told(tmp_path: Path) -> None:
    """A crowd is no thing to train on."""
    dataset = opened(write(tmp_path))
    assert dataset.occupied(np.array([0])).tolist() == [True]
    path = tmp_path / "annotations/panoptic_train.json"
    content = json.loads(path.read_text())
    content["annotations"][0]["segments_info"][2]["iscrowd"] = 1
    path.write_text(json.dumps(content))
    assert opened(tmp_path).occupied(np.array([0])).tolist() == [False]
