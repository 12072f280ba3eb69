import json
import shutil

import numpy as np
import pytest

from nasmvt.data import DataConfig, open_dataset
from nasmvt.errors import UserError
from tests.data.writers import annotation, write_coco, write_labels, write_picture


def write_folder(root):
    for name in ("train/ant/1.png", "train/bee/1.png", "train/bee/2.png", "val/ant/9.png"):
        write_picture(root / name)


def write_detection(root):
    write_coco(root, "train", [annotation(1, 1, 7, [2, 3, 10, 5])])


def write_segmentation(root):
    write_picture(root / "images/train/x.jpg")
    write_labels(root / "annotations/train/x.png", np.ones((20, 30), dtype=np.uint8))
    (root / "classes.txt").write_text("sky\nroad\n")


FORMATS = {
    "imagefolder": ("classification", write_folder, "train/bee/2.png"),
    "coco": ("detection", write_detection, "images/train/2.png"),
    "ade20k": ("segmentation", write_segmentation, "annotations/train/x.png"),
}


def identity(form, root, **more):
    kind = FORMATS[form][0]
    return open_dataset(DataConfig(format=form, root=root, **more), kind, "train", 0).identity()


@pytest.fixture(params=FORMATS)
def form(request, tmp_path):
    FORMATS[request.param][1](tmp_path / "data")
    return request.param


def test_the_same_data_elsewhere_are_the_same(form, tmp_path):
    shutil.copytree(tmp_path / "data", tmp_path / "copy")
    assert identity(form, tmp_path / "data") == identity(form, tmp_path / "copy")


def test_a_file_of_another_size_is_other_data(form, tmp_path):
    before = identity(form, tmp_path / "data")
    with (tmp_path / "data" / FORMATS[form][2]).open("ab") as file:
        file.write(b"\0")
    after = identity(form, tmp_path / "data")
    assert (after.images, after.classes) == (before.images, before.classes)
    assert after.digest != before.digest


def test_another_name_is_other_data(tmp_path):
    write_folder(tmp_path)
    before = identity("imagefolder", tmp_path)
    assert (before.images, before.classes) == (3, ("ant", "bee"))
    (tmp_path / "train/bee/2.png").rename(tmp_path / "train/bee/3.png")
    assert identity("imagefolder", tmp_path).digest != before.digest


def test_changed_annotations_are_other_data(tmp_path):
    write_detection(tmp_path)
    before = identity("coco", tmp_path)
    path = tmp_path / "annotations/instances_train.json"
    content = json.loads(path.read_text())
    content["annotations"][0]["bbox"] = [2, 3, 10, 6]
    path.write_text(json.dumps(content))
    assert identity("coco", tmp_path).digest != before.digest


def test_a_choice_of_images_is_other_data(tmp_path):
    write_folder(tmp_path)
    whole, part = identity("imagefolder", tmp_path), identity("imagefolder", tmp_path, limit=2)
    assert (whole.images, part.images) == (3, 2)
    assert whole.digest != part.digest == identity("imagefolder", tmp_path, limit=2).digest


def test_drawn_shapes_are_known_by_what_they_are_drawn_from():
    def drawn(seed=0, kind="detection", **more):
        return open_dataset(DataConfig(**more), kind, "train", seed).identity().digest

    others = [drawn(1), drawn(train_images=9), drawn(image_size=32), drawn(kind="segmentation")]
    assert drawn() == drawn()
    assert len({drawn(), *others}) == 5


def test_a_file_that_is_gone_is_named(tmp_path):
    write_folder(tmp_path)
    dataset = open_dataset(DataConfig(format="imagefolder", root=tmp_path), "classification", "train", 0)
    (tmp_path / "train/bee/2.png").unlink()
    with pytest.raises(UserError, match=r"bee/2\.png can't be read"):
        dataset.identity()
