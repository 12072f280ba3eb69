"""Data on disk as the command meets them: what is broken is named, what is unusual works."""

import copy
import json
from pathlib import Path

import numpy as np
import pytest

from tests.cli.conftest import write_experiment
from tests.data.writers import annotation, write_broken, write_coco, write_labels, write_picture


def on_files(name: str, format: str, **more):
    """Return a change to the one task `name` on the folder `data`."""

    def change(values):
        task = values["tasks"][name]
        task["data"] = {"format": format, "root": "data", "image_size": 32, "search_fraction": 0.25, **more}
        values["tasks"] = {name: {**task, "batch_size": 2}}

    return change


def write_label_maps(pictures: int = 8) -> None:
    for split in ("train", "val"):
        for n in range(pictures):
            write_picture(Path(f"data/images/{split}/{n}.png"))
            labels = np.random.default_rng(n).integers(0, 4, (20, 30)).astype(np.uint8)
            write_labels(Path(f"data/annotations/{split}/{n}.png"), labels)
    Path("data/classes.txt").write_text("sky\nroad\ntree\n")


def write_objects(masks: bool, pictures: int = 8) -> Path:
    outline = {"segmentation": [[3, 3, 13, 3, 13, 15]]} if masks else {}
    ids = range(1, pictures + 1)
    objects = [annotation(n, n, [7, 2][n % 2], [3, 3, 10, 12], **outline) for n in ids]
    return [write_coco(Path("data"), split, objects, pictures=pictures) for split in ("val", "train")][-1]


def test_a_corrupt_picture_stops_the_training_unless_it_may_be_skipped(nasmvt, caplog):
    write_label_maps()
    write_broken(Path("data/images/train/3.png"))
    write_experiment(on_files("seg", "ade20k"))
    sentence = nasmvt.refused("train-supernet", "tiny.yaml", "--out", "out")
    assert "images/train/3.png can't be decoded" in sentence
    assert "skip_unreadable" in sentence
    nasmvt("train-supernet", "tiny.yaml", "--out", "again", "--set", "tasks.seg.data.skip_unreadable=true")
    assert "skipped" in caplog.text
    assert "3.png" in caplog.text


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        (np.ones((21, 30), np.uint8), ["must have one size", "30x21", "30x20"]),
        (np.full((20, 30), 9, np.uint8), ["holds the label 9", "3 classes"]),
    ],
)
def test_a_wrong_label_map_is_named(nasmvt, labels, words):
    write_label_maps()
    for n in range(8):
        write_labels(Path(f"data/annotations/train/{n}.png"), labels)
    write_experiment(on_files("seg", "ade20k"))
    sentence = nasmvt.refused("train-supernet", "tiny.yaml", "--out", "out")
    assert [word for word in [*words, "annotations/train/"] if word not in sentence] == [], sentence
    assert not Path("out").exists()


def test_an_unknown_category_is_named(nasmvt):
    path = write_objects(masks=True)
    content = json.loads(path.read_text())
    content["annotations"][0]["category_id"] = 99
    path.write_text(json.dumps(content))
    write_experiment(on_files("det", "coco"))
    sentence = nasmvt.refused("train-supernet", "tiny.yaml", "--out", "out")
    assert "category_id 99" in sentence
    assert "instances_train.json" in sentence
    assert not Path("out").exists()


def test_boxes_without_masks_go_all_the_way(nasmvt):
    write_objects(masks=False)
    write_experiment(on_files("det", "coco"))
    nasmvt("train-supernet", "tiny.yaml", "--out", "out")
    nasmvt("export", "out", "--arch", "smallest")
    printed = nasmvt("evaluate", "out/export")
    assert "box_map" in printed
    assert "mask_map" not in printed


def unusual_sizes(values):
    for task, size in zip(values["tasks"].values(), ([33, 47], [17, 16], [40, 24]), strict=True):
        task["data"]["image_size"] = size


def one_picture_per_batch(values):
    for task in values["tasks"].values():
        task["batch_size"] = 1
    values["tasks"]["seg"]["head"]["pool_scales"] = [2]


def two_of_a_kind(values):
    seg = values["tasks"]["seg"]
    other = copy.deepcopy(seg)
    other["data"]["image_size"] = [24, 40]
    values["tasks"] = {"road": seg, "sky_2": other}


def one_task(values):
    values["tasks"] = {"cls": values["tasks"]["cls"]}


@pytest.mark.parametrize("change", [unusual_sizes, one_picture_per_batch, two_of_a_kind, one_task])
def test_unusual_experiments_go_all_the_way(nasmvt, change):
    write_experiment(change, search={"population": 2, "parents": 1, "generations": 1, "workers": 0})
    nasmvt("train-supernet", "tiny.yaml", "--out", "out", "--set", "training.steps=2")
    nasmvt("search", "out")
    nasmvt("export", "out")
    nasmvt("evaluate", "out/export")
    nasmvt("predict", "out/export", "--count", "1", "--out", "drawn")
    assert sorted(path.name for path in Path("drawn").iterdir()) == sorted(
        json.loads(Path("out/export/config.json").read_text())["tasks"]
    )
