import numpy as np
import pytest

from nasmvt.data import DataConfig, open_dataset
from nasmvt.errors import UserError
from tests.data.writers import write_picture


def write_text(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


@pytest.fixture
def root(tmp_path):
    for name in ("train/a", "train/b", "val/c"):
        write_picture(tmp_path / "images" / f"{name}.png")
    write_text(tmp_path / "labels/train/a.txt", "1 0.5 0.5 0.2 0.4\n\n0 0.1 0.1 0.4 0.4\n")
    write_text(tmp_path / "labels/val/c.txt", "0 0.5 0.5 1 1\n")
    write_text(tmp_path / "data.yaml", "train: images/train\nval: images/val\nnc: 2\nnames: [dog, cat]\n")
    return tmp_path


def opened(root, split="train", **more):
    return open_dataset(DataConfig(format="yolo", root=root, **more), "detection", split, 0)


def test_boxes_are_parts_of_the_sides(root):
    train, val = opened(root), opened(root, "val")
    assert train.info == val.info
    assert (train.info.classes, train.info.has_masks) == (("dog", "cat"), False)
    target = train[0].target
    assert np.allclose(target["boxes"], [[12, 6, 18, 14], [0, 0, 9, 6]])
    assert target["labels"].tolist() == [1, 0]
    assert train[0].id == "images/train/a.png"
    assert len(train[1].target["boxes"]) == 0
    assert val[0].target["boxes"].tolist() == [[0, 0, 30, 20]]


def test_polygons_are_masks(root):
    write_text(root / "labels/train/a.txt", "0 0.1 0.2 0.5 0.2 0.5 0.6 0.1 0.6\n")
    dataset = opened(root)
    assert dataset.info.has_masks
    target = dataset[0].target
    assert np.allclose(target["boxes"], [[3, 4, 15, 12]])
    expected = np.zeros((20, 30), dtype=bool)
    expected[4:12, 3:15] = True
    assert np.array_equal(target["masks"].dense()[0].numpy(), expected)


@pytest.mark.parametrize(
    "settings",
    [
        "path: .\ntrain: images/train\nval: images/val\nnames: {0: dog, 1: cat}\n",
        "train: ../images/train\nvalid: ../images/val\nnames: {1: cat, 0: dog}\n",
        "train: [images/train]\nvalidation: list.txt\nnames: [dog, cat]\n",
    ],
)
def test_settings_of_other_tools(root, settings):
    write_text(root / "data.yaml", settings)
    write_text(root / "list.txt", "./images/val/c.png\n")
    assert opened(root).info.classes == ("dog", "cat")
    assert opened(root, "val")[0].target["boxes"].tolist() == [[0, 0, 30, 20]]


def test_a_list_of_classes_and_the_usual_folders_do_too(root):
    (root / "data.yaml").unlink()
    with pytest.raises(UserError, match=r"must be named in .*data\.yaml or .*classes\.txt"):
        opened(root)
    write_text(root / "classes.txt", "dog\ncat\n")
    assert (len(opened(root)), len(opened(root, "val"))) == (2, 1)


@pytest.mark.parametrize(
    ("line", "fragment"),
    [
        ("2 0.5 0.5 0.2 0.4", "classes are numbered 0 to 1"),
        ("cat 0.5 0.5 0.2 0.4", "classes are numbered 0 to 1"),
        ("0 0.5 0.5 0.2", "the class is followed by x"),
        ("0 0.5 0.5 0.2 0.4 0.9", "the class is followed by x"),
        ("0 0.5 nan 0.2 0.4", "the class is followed by x"),
        ("0 120 80 40 30", "numbers are fractions of the image's width and height"),
    ],
)
def test_a_bad_line_is_named(root, line, fragment):
    write_text(root / "labels/train/a.txt", f"0 0.5 0.5 0.2 0.4\n{line}\n")
    with pytest.raises(UserError, match=r"a\.txt: line 2 is '.*', but ") as error:
        opened(root)
    assert fragment in str(error.value)


@pytest.mark.parametrize(
    ("settings", "fragment"),
    [
        ("train: images/train\nnames: {0: dog, 2: cat}\n", "must number the classes 0, 1"),
        ("train: images/train\nnames: [dog, dog]\n", "must list every class once"),
        ("train: images/none\nnames: [dog, cat]\n", "names images/none, but there is no"),
        ("val: images/val\nnames: [dog, cat]\n", "names no images for 'train'"),
        ("train: [\n", "is not valid YAML"),
    ],
)
def test_bad_settings_are_named(root, settings, fragment):
    write_text(root / "data.yaml", settings)
    with pytest.raises(UserError, match=r"data\.yaml") as error:
        opened(root)
    assert fragment in str(error.value)


def test_labels_that_are_elsewhere_are_missed(root):
    (root / "labels").rename(root / "annotations")
    with pytest.raises(UserError, match=r"a\.png must be in .*labels/train/a\.txt, but no image of 'train' has any"):
        opened(root)


def test_identity_sees_the_content_of_labels(root):
    before = opened(root).identity()
    write_text(root / "labels/train/a.txt", "0 0.5 0.5 0.2 0.4\n\n0 0.1 0.1 0.4 0.4\n")
    assert opened(root).identity().digest != before.digest
